"""A chord: a header of parallel members, then the body, which is the last member in the plan."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from stemflow.core.kinds.base import NOTHING, Feed, KindRules, Moves, Opening, View
from stemflow.core.shape import Shape
from stemflow.model.plan import AnyPlan, ScopePlan
from stemflow.model.records import SKIPPED, SUCCEEDED, Cause, State, Tally

BODY = "then"
"""The path segment of the body."""


def body_of(plan: ScopePlan) -> int:
    """The member index of the body. Members that joined the header while it ran have higher indices."""
    return len(plan.members) - 1


class ChordRules(KindRules):
    """The body gets the list of the header's values; the value of the chord is that of the body."""

    name = "chord"
    gives = "last"
    wide = True
    has_body = True

    def segment(self, plan: ScopePlan, index: int) -> str:
        return BODY if index == body_of(plan) else super().segment(plan, index)

    def opening(self, shape: Shape, node: int, answer: Any) -> Opening:
        size = len(shape.scope(node).members)
        return Opening(size, range(size - 1) or (0,))

    def after(self, view: View, index: int, how: str, answer: Any = None) -> Moves:
        tally, body = view.tally, body_of(view.plan)
        if (tally.ended | tally.opened) >> body & 1 or tally.done < tally.size - 1:
            return NOTHING
        if view.failed or tally.cancelled:
            return Moves(ended=((1 << body, "upstream"),))
        return Moves((body,))

    def tolerates(self, plan: ScopePlan, member: AnyPlan, index: int) -> bool:
        return member.on_error != "fail" or (plan.policy != "fail_fast" and index != body_of(plan))

    def ends(self, plan: ScopePlan, tally: Tally) -> tuple[State, Cause | None]:
        how = tally.how(body_of(plan))
        if how == "upstream":
            return SKIPPED, "upstream"
        return (SKIPPED, "condition") if how == "skipped" else (SUCCEEDED, None)

    def waits(self, shape: Shape, node: int, size: int) -> Iterable[tuple[int, int]]:
        body = body_of(shape.scope(node))
        return ((i, body) for i in range(size) if i != body)

    def redone(self, shape: Shape, node: int, index: int) -> set[int]:
        return {index, body_of(shape.scope(node))}

    def feed(self, plan: ScopePlan, index: int) -> Feed | None:
        return "results" if index == body_of(plan) else None

    def last(self, plan: ScopePlan) -> int:
        return body_of(plan)

    def may_join(self, plan: ScopePlan, index: int) -> bool:
        return index != body_of(plan)
