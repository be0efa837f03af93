"""Parallel members, as a group and a map have them: how many must succeed, and how many may fail."""

from __future__ import annotations

from typing import Literal

from stemflow.core.kinds.base import KindRules, Verdict
from stemflow.model.plan import AnyPlan, ScopePlan
from stemflow.model.records import CANCELLED, FAILED, SUCCEEDED, Cause, ErrorInfo, State, Tally


class ParallelRules(KindRules):
    """The value is the list of the members' values, in order; of a race, the value of the first member that succeeds.

    With a quorum, the scope is decided as soon as enough members have succeeded, or can no longer do so. With a
    tolerance, it fails at the first failure above it.
    """

    gives = "all"
    wide = True

    def tolerates(self, plan: ScopePlan, member: AnyPlan, index: int) -> bool:
        limits = plan.completion
        if limits is not None and limits.quorum is not None:
            return True
        return member.on_error != "fail" or (plan.policy != "fail_fast" and not self._has_tolerance(plan))

    def counts(self, plan: ScopePlan, tally: Tally, member: AnyPlan, index: int) -> bool:
        if self.tolerates(plan, member, index):
            return False
        return not self._has_tolerance(plan) or tally.failures > allowed_failures(plan, tally.size)

    def gives_up(self, plan: ScopePlan, failed: bool) -> bool:
        return failed and (plan.policy == "fail_fast" or self._has_tolerance(plan))

    def decided(self, plan: ScopePlan, tally: Tally) -> Verdict | None:
        quorum = None if plan.completion is None else plan.completion.quorum
        if quorum is None:
            return None
        move: Literal["close", "stop"] = "close" if tally.complete else "stop"
        succeeded = tally.ok.bit_count()
        if succeeded >= quorum:
            return Verdict(move, SUCCEEDED, kill=True)
        return Verdict(move, FAILED) if tally.size - (tally.done - succeeded) < quorum else None

    def natural(self, plan: ScopePlan, tally: Tally, failed: bool) -> tuple[State, Cause | None]:
        verdict = self.decided(plan, tally)
        if verdict is not None and not (verdict.state == FAILED and tally.cancelled):
            return verdict.state, None
        return (CANCELLED, None) if tally.cancelled and verdict is not None else super().natural(plan, tally, failed)

    def missed(self, plan: ScopePlan, tally: Tally) -> ErrorInfo:
        """The error of a scope that fails because too few of its members have succeeded."""
        assert plan.completion is not None
        text = (
            f"expected {plan.completion.quorum} of {tally.size} members to succeed, "
            f"{tally.ok.bit_count()} did and {tally.failures} failed"
        )
        return ErrorInfo("QuorumMissed", text, "stemflow.QuorumMissed")

    def taken(self, tally: Tally) -> int | None:
        """The first member that succeeded: while no other has ended since, which is when a race is decided."""
        return (tally.ok & -tally.ok).bit_length() - 1 if tally.ok else None

    @staticmethod
    def _has_tolerance(plan: ScopePlan) -> bool:
        limits = plan.completion
        return limits is not None and (limits.tolerate is not None or limits.percent is not None)


def allowed_failures(plan: ScopePlan, size: int) -> int:
    """How many of `size` members may fail: a number, or a share that is rounded down."""
    limits = plan.completion
    if limits is None:
        return 0
    if limits.percent is not None:
        return int(size * limits.percent / 100 + 1e-9)
    return limits.tolerate or 0
