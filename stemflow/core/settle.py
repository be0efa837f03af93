"""`settle`: what a scope does next, as a pure function of its kind, its policy and its tally."""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

from stemflow.core.shape import body_index
from stemflow.model.plan import AnyPlan, ScopePlan
from stemflow.model.records import CANCELLED, FAILED, SKIPPED, SUCCEEDED, Cause, State, Tally


class Verdict(NamedTuple):
    """`stay`: wait for more members; `stop`: tell the rest to stop, then close; `close`: it is over."""

    move: Literal["stay", "stop", "close"]
    state: State = SUCCEEDED
    cause: Cause | None = None


STAY: Final = Verdict("stay")


def tolerates(scope: ScopePlan, member: AnyPlan, index: int) -> bool:
    """Whether the failure of this member leaves the scope unharmed."""
    if member.on_error != "fail":
        return True
    many = scope.kind in ("group", "map", "chord")
    return many and scope.policy != "fail_fast" and index != body_index(scope)


def gives_up(scope: ScopePlan, failed: bool) -> bool:
    """Whether a failure that is not tolerated stops the others at once, so that nothing more is opened."""
    return failed and scope.kind != "chain" and scope.policy == "fail_fast"


def settle(scope: ScopePlan, tally: Tally, failed: bool) -> Verdict:
    """`failed`: a member failed whose failure is not tolerated."""
    if not tally.complete:
        return Verdict("stop", FAILED) if gives_up(scope, failed) else STAY
    return Verdict("close", *natural(scope, tally, failed))


def natural(scope: ScopePlan, tally: Tally, failed: bool) -> tuple[State, Cause | None]:
    """How a scope ends once every member has, if nobody told it otherwise."""
    if failed:
        return FAILED, None
    if tally.cancelled:
        return CANCELLED, None
    if scope.kind == "chain" or scope.kind == "chord":
        decisive = tally.ended if scope.kind == "chain" else 1 << body_index(scope)
        if tally.upstream & decisive:
            return SKIPPED, "upstream"
        if tally.skipped & decisive:
            return SKIPPED, "condition"
    return SUCCEEDED, None
