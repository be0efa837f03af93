"""A switch: one of its cases runs: the one that the value of an expression names, else the default, else none."""

from __future__ import annotations

from typing import Any

from stemflow.core.kinds.base import KindRules, Opening
from stemflow.core.shape import Shape
from stemflow.model.effects import GateName
from stemflow.model.plan import ScopePlan
from stemflow.model.records import SKIPPED, SUCCEEDED, Cause, State, Tally
from stemflow.model.step_names import DEFAULT_CASE, case_text


def chosen(plan: ScopePlan, value: Any) -> int:
    """The member index of the case that `value` names, else of the default; -1 if neither exists."""
    text = case_text(value)
    if text in plan.cases:
        return plan.cases.index(text)
    return len(plan.cases) if len(plan.members) > len(plan.cases) else -1


class SwitchRules(KindRules):
    """Value and outcome are those of the case that was taken; without one, the switch is SKIPPED by condition.

    The cases that are not taken end at once, SKIPPED by condition. The default is the last member.
    """

    name = "switch"
    gives = "taken"

    def segment(self, plan: ScopePlan, index: int) -> str:
        return DEFAULT_CASE if index == len(plan.cases) else super().segment(plan, index)

    def gate(self, plan: ScopePlan) -> GateName | None:
        return "case"

    def opening(self, shape: Shape, node: int, answer: Any) -> Opening:
        size = len(shape.scope(node).members)
        taken = 0 if answer < 0 else 1 << answer
        return Opening(size, () if answer < 0 else (answer,), ((1 << size) - 1) & ~taken)

    def gives_up(self, plan: ScopePlan, failed: bool) -> bool:
        return False

    def ends(self, plan: ScopePlan, tally: Tally) -> tuple[State, Cause | None]:
        taken = self.taken(tally)
        how = "skipped" if taken is None else tally.how(taken)
        if how == "upstream":
            return SKIPPED, "upstream"
        return (SKIPPED, "condition") if how == "skipped" else (SUCCEEDED, None)
