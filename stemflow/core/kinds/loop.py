"""A loop: one iteration of its template after the other, until a condition ends it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from stemflow.core.kinds.base import Feed, KindRules, Moves, Opening, View
from stemflow.core.shape import Shape
from stemflow.model.effects import GateName, LoopStart
from stemflow.model.plan import ScopePlan
from stemflow.model.records import ErrorInfo, Tally


class LoopRules(KindRules):
    """The value is that of the last iteration, or what the loop began with.

    While it runs, its tally has one member more than iterations were opened: the next one, which is cancelled if the
    loop is stopped.
    """

    name = "loop"
    gives = "taken"
    wide = True
    repeats = True
    carries = True

    def size(self, plan: ScopePlan) -> int:
        return 0

    def place(self, plan: ScopePlan, index: int) -> int:
        return plan.members[0]

    def gate(self, plan: ScopePlan) -> GateName | None:
        return "loop"

    def opening(self, shape: Shape, node: int, answer: Any) -> Opening:
        assert isinstance(answer, LoopStart)
        goes_on = answer.goes_on and _limit_of(shape.scope(node), answer.limit) > 0
        size, first = (2, (0,)) if goes_on else (0, ())
        return Opening(size, first, result=answer.carry, bound=answer.limit)

    def asks(self, view: View, index: int, how: str) -> str | None:
        return f"again {index + 1}" if view.plan.on is not None and how != "cancelled" else None

    def after(self, view: View, index: int, how: str, answer: Any = None) -> Moves:
        following, limit = index + 1, _limit_of(view.plan, view.bound)
        goes_on = how != "cancelled" and (answer if view.plan.on is not None else following < limit)
        if not goes_on:
            return Moves(size=following)
        if following >= limit:
            text = f"its condition did not end it within {limit} iterations"
            return Moves(error=ErrorInfo("LoopLimit", text, "stemflow.LoopLimit"))
        return Moves((following,), size=following + 2)

    def waits(self, shape: Shape, node: int, size: int) -> Iterable[tuple[int, int]]:
        return ((i, i + 1) for i in range(size - 1))

    def names(self, plan: ScopePlan) -> tuple[str, ...]:
        return "carry", "index"

    def feed(self, plan: ScopePlan, index: int) -> Feed | None:
        return "carry"

    def taken(self, tally: Tally) -> int | None:
        return tally.opened.bit_length() - 1 if tally.opened else None


def _limit_of(plan: ScopePlan, bound: int | None) -> int:
    """The largest number of iterations; `bound`: what an expression gave."""
    return plan.limit if isinstance(plan.limit, int) else bound or 0
