"""Revisions of records that runs share: two decisions that change one differently give it different revisions."""

from __future__ import annotations

from stemflow.core.work import _next_rev
from stemflow.model.records import Claim, Node
from stemflow.testing.simulation.simulator import simulate


def claim(*waiters: str) -> Claim:
    return Claim(key="k", holders=(("r", ""),), waiters=tuple((one, "") for one in waiters), rev=5)


def test_a_decision_that_rests_on_one_that_was_refused_fits_no_other_change() -> None:
    assert _next_rev(claim("a"), 5) == _next_rev(claim("a"), 5) > 5
    assert len({_next_rev(claim(one), 5) for one in "abcdefgh"}) == 8
    assert _next_rev(Node(run="r", path="", plan="p", node=0, state="ready", rev=5), 5) == 6


def test_no_waiter_and_no_holder_of_a_key_is_lost() -> None:
    # Worlds in which a claim of another worker had the revision that a refused decision would have given it
    for seed in (1_672, 1_818):
        simulate(seed)
