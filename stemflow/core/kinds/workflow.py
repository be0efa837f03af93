"""A sub-workflow: the body of another workflow, whose expressions see its own inputs and variables only."""

from __future__ import annotations

from typing import Any

from stemflow.core.kinds.base import Feed, KindRules, Opening
from stemflow.core.shape import Shape
from stemflow.model.effects import GateName
from stemflow.model.plan import ScopePlan
from stemflow.model.records import SKIPPED, SUCCEEDED, Cause, State, Tally
from stemflow.model.step_names import BODY


class WorkflowRules(KindRules):
    """Its only member is the body, whose value and outcome are its own. Until the end it keeps the inputs as its
    result."""

    name = "workflow"
    gives = "last"
    carries = True
    isolates = True

    def segment(self, plan: ScopePlan, index: int) -> str:
        return BODY

    def gate(self, plan: ScopePlan) -> GateName | None:
        return "inputs"

    def opening(self, shape: Shape, node: int, answer: Any) -> Opening:
        return Opening(1, (0,), result=answer)

    def gives_up(self, plan: ScopePlan, failed: bool) -> bool:
        return False

    def ends(self, plan: ScopePlan, tally: Tally) -> tuple[State, Cause | None]:
        if tally.upstream:
            return SKIPPED, "upstream"
        return (SKIPPED, "condition") if tally.skipped else (SUCCEEDED, None)

    def feed(self, plan: ScopePlan, index: int) -> Feed | None:
        return "carry"
