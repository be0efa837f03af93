"""A chain: members in order; each gets the value of the previous one."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from stemflow.core.kinds.base import NOTHING, Feed, KindRules, Moves, Opening, View
from stemflow.core.shape import Shape
from stemflow.model.plan import ScopePlan
from stemflow.model.records import SKIPPED, SUCCEEDED, Cause, State, Tally


class ChainRules(KindRules):
    """The value is that of the last member. If a member does not run, the following ones are skipped."""

    name = "chain"
    gives = "last"

    def opening(self, shape: Shape, node: int, answer: Any) -> Opening:
        plan = shape.scope(node)
        return Opening(len(plan.members), range(min(len(plan.members), 1)))

    def after(self, view: View, index: int, how: str, answer: Any = None) -> Moves:
        plan, following = view.plan, index + 1
        size = view.tally.size
        if following == size:
            return NOTHING
        if how == "ok" or (how == "failed" and view.shape.nodes[plan.members[index]].on_error == "continue"):
            return Moves((following,))
        return Moves(ended=(((1 << size) - (1 << following), how if how == "skipped" else "upstream"),))

    def gives_up(self, plan: ScopePlan, failed: bool) -> bool:
        return False

    def ends(self, plan: ScopePlan, tally: Tally) -> tuple[State, Cause | None]:
        if tally.upstream:
            return SKIPPED, "upstream"
        return (SKIPPED, "condition") if tally.skipped else (SUCCEEDED, None)

    def waits(self, shape: Shape, node: int, size: int) -> Iterable[tuple[int, int]]:
        return ((i, i + 1) for i in range(size - 1))

    def redone(self, shape: Shape, node: int, index: int) -> set[int]:
        return set(range(index, len(shape.scope(node).members)))

    def feed(self, plan: ScopePlan, index: int) -> Feed | None:
        return "before" if 0 < index < len(plan.members) else None

    def last(self, plan: ScopePlan) -> int:
        return len(plan.members) - 1
