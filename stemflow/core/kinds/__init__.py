"""The kinds of composites: one file per kind, with everything that the core, values, reruns and displays need to
know."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from stemflow.core.kinds.base import KindRules
from stemflow.core.kinds.chain import ChainRules
from stemflow.core.kinds.chord import ChordRules
from stemflow.core.kinds.fail import FailRules
from stemflow.core.kinds.group import GroupRules
from stemflow.core.kinds.loop import LoopRules
from stemflow.core.kinds.map import MapRules
from stemflow.core.kinds.set import SetRules
from stemflow.core.kinds.steps import StepsRules
from stemflow.core.kinds.switch import SwitchRules
from stemflow.core.kinds.workflow import WorkflowRules
from stemflow.model.plan import ScopeKind, ScopePlan

_ALL: Final[tuple[KindRules, ...]] = (
    ChainRules(),
    GroupRules(),
    ChordRules(),
    MapRules(),
    LoopRules(),
    StepsRules(),
    SwitchRules(),
    WorkflowRules(),
    SetRules(),
    FailRules(),
)
KINDS: Final[Mapping[ScopeKind, KindRules]] = {kind.name: kind for kind in _ALL}
"""The rules of each kind, by its name in plans."""


def rules_of(plan: ScopePlan) -> KindRules:
    """The rules of this composite's kind."""
    return KINDS[plan.kind]
