"""The kinds of composites: one file each with all that the machine, values, reruns and displays ask of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from stemflow.core.kinds.base import KindRules
from stemflow.core.kinds.chain import ChainRules
from stemflow.core.kinds.chord import ChordRules
from stemflow.core.kinds.group import GroupRules
from stemflow.core.kinds.map import MapRules
from stemflow.core.kinds.steps import StepsRules
from stemflow.core.kinds.switch import SwitchRules
from stemflow.model.plan import ScopeKind, ScopePlan

KINDS: Final[Mapping[ScopeKind, KindRules]] = {
    kind.name: kind for kind in (ChainRules(), GroupRules(), ChordRules(), MapRules(), StepsRules(), SwitchRules())
}
"""Each kind under the name that plans have for it."""


def rules_of(plan: ScopePlan) -> KindRules:
    """The rules of this composite."""
    return KINDS[plan.kind]
