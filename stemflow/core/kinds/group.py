"""A group: parallel members."""

from __future__ import annotations

from typing import Any

from stemflow.core.kinds.base import Opening
from stemflow.core.kinds.parallel import ParallelRules
from stemflow.core.shape import Shape
from stemflow.model.plan import ScopePlan


class GroupRules(ParallelRules):
    """A running member may add others."""

    name = "group"

    def opening(self, shape: Shape, node: int, answer: Any) -> Opening:
        size = len(shape.scope(node).members)
        return Opening(size, range(size))

    def may_join(self, plan: ScopePlan, index: int) -> bool:
        return True
