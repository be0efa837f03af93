"""A map: one member per item, all of them copies of one template, with a limit on how many are open at a time."""

from __future__ import annotations

from typing import Any

from stemflow.core.kinds.base import NOTHING, Feed, Moves, Opening, View
from stemflow.core.kinds.parallel import ParallelRules
from stemflow.core.shape import Shape
from stemflow.model.effects import Frozen, GateName
from stemflow.model.plan import ScopePlan, Sealed
from stemflow.model.signature import Span

DEFAULT_WINDOW = 1_000
"""The number of members that may be open at a time if the workflow sets no `concurrency`."""


def window_of(plan: ScopePlan, bound: int | None = None) -> int:
    """How many members may be open at a time; `bound`: what an expression gave."""
    return bound or (plan.window if isinstance(plan.window, int) else None) or DEFAULT_WINDOW


class MapRules(ParallelRules):
    """The members are opened in the order of the items."""

    name = "map"
    repeats = True

    def size(self, plan: ScopePlan) -> int:
        return 0

    def place(self, plan: ScopePlan, index: int) -> int:
        return plan.members[0]

    def gate(self, plan: ScopePlan) -> GateName | None:
        asked = isinstance(plan.items, str) or plan.items is None or isinstance(plan.window, str)
        return "items" if asked or plan.batch is not None else None

    def opening(self, shape: Shape, node: int, answer: Any) -> Opening:
        plan = shape.scope(node)
        size, bound = answer if isinstance(answer, int) else None, None
        if isinstance(answer, Frozen):
            size, bound = answer.size, answer.window
        size, window = _given(plan) if size is None else size, window_of(plan, bound)
        if plan.undo:  # the last member is undone first
            return Opening(size, range(size - 1, max(size - window, 0) - 1, -1))
        return Opening(size, range(min(size, window)), bound=bound)

    def after(self, view: View, index: int, how: str, answer: Any = None) -> Moves:
        """Open the next member."""
        tally = view.tally
        if view.plan.undo:
            lowest = (tally.opened & -tally.opened).bit_length() - 1
            return Moves((lowest - 1,)) if lowest > 0 else NOTHING
        following = tally.opened.bit_length()
        if view.joined:  # members that joined were opened in addition to the window
            following = (tally.opened ^ (tally.opened + 1)).bit_length() - 1
        if following < tally.size and tally.open.bit_count() < window_of(view.plan, view.bound):
            return Moves((following,))
        return NOTHING

    def window(self, plan: ScopePlan) -> int | None:
        return window_of(plan)

    def names(self, plan: ScopePlan) -> tuple[str, ...]:
        return plan.var, plan.index_var

    def feed(self, plan: ScopePlan, index: int) -> Feed | None:
        return None if plan.spread == "env" else "item"

    def may_join(self, plan: ScopePlan, index: int) -> bool:
        return True


def _given(plan: ScopePlan) -> int:
    """The number of items, if the plan contains it."""
    items = plan.items
    if isinstance(items, int):
        return items
    if isinstance(items, Span):
        return len(range(items.start, items.stop, items.step))
    if isinstance(items, Sealed):
        return items.size
    assert isinstance(items, tuple)
    return len(items)
