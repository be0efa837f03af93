"""A group: parallel members."""

from __future__ import annotations

from typing import Any

from stemflow.core.kinds.base import KindRules, Opening
from stemflow.core.shape import Shape
from stemflow.model.plan import AnyPlan, ScopePlan


class GroupRules(KindRules):
    """The value is the list of the members' values, in order. A running member may add others."""

    name = "group"
    gives = "all"
    wide = True

    def opening(self, shape: Shape, node: int, answer: Any) -> Opening:
        size = len(shape.scope(node).members)
        return Opening(size, range(size))

    def tolerates(self, plan: ScopePlan, member: AnyPlan, index: int) -> bool:
        return member.on_error != "fail" or plan.policy != "fail_fast"

    def may_join(self, plan: ScopePlan, index: int) -> bool:
        return True
