"""The admission rule of rate limits."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from stemflow.core.limits import Tat, admissible, next_at_ms, paced, paced_after, paced_at_ms, remember

LIMITS = st.integers(1, 5)
PERIODS = st.integers(1, 50)
WAITS = st.lists(st.tuples(st.integers(0, 40), st.integers(1, 6)), max_size=60)
"""(ms until somebody asks again, how many would start)."""


def admitted(limit: int, per_ms: int, asked: list[tuple[int, int]]) -> list[int]:
    """The instants of all starts when each asker starts as many as the rule lets."""
    now_ms, kept, starts = 0, list[int](), list[int]()
    for wait_ms, wanted in asked:
        now_ms += wait_ms
        count = max(0, min(wanted, admissible(kept, limit, per_ms, now_ms)))
        kept = remember(kept, limit, now_ms, count)
        starts += [now_ms] * count
    return starts


@given(LIMITS, PERIODS, WAITS)
def test_no_window_holds_more_starts_than_the_limit(limit: int, per_ms: int, asked: list[tuple[int, int]]) -> None:
    starts = admitted(limit, per_ms, asked)
    for first in starts:
        assert sum(first <= start < first + per_ms for start in starts) <= limit


@given(LIMITS, PERIODS, WAITS, st.integers(0, 60))
def test_what_is_not_admitted_now_is_at_the_next_instant_and_not_before(
    limit: int, per_ms: int, asked: list[tuple[int, int]], later_ms: int
) -> None:
    # Given starts, and somebody who asks at or after the last of them
    kept = admitted(limit, per_ms, asked)[-limit:]
    now_ms = (kept[-1] if kept else 0) + later_ms

    # When one more is to start
    at_ms = next_at_ms(kept, limit, per_ms, now_ms)

    # Then that instant admits it and the one before, if it is still to come, does not
    assert at_ms >= now_ms
    assert admissible(kept, limit, per_ms, at_ms) > 0
    assert at_ms == now_ms or admissible(kept, limit, per_ms, at_ms - 1) <= 0


def test_a_burst_takes_the_whole_limit_at_once_and_then_waits_for_the_oldest_to_leave() -> None:
    # Given a limit of 3 in 10 ms of which 2 started at 0 and 1 at 4
    kept = remember(remember([], 3, 0, 2), 3, 4, 1)

    # When more want to start, then the first two places are free at 10 and the third at 14
    assert admissible(kept, 3, 10, 9) == 0
    assert next_at_ms(kept, 3, 10, 9) == 10
    assert admissible(kept, 3, 10, 10) == 2
    assert admissible(kept, 3, 10, 14) == 3


PACE = st.tuples(st.integers(1, 7), st.integers(1, 50), st.integers(1, 4))
"""(limit, per_ms, burst)"""


def paced_starts(pace: tuple[int, int, int], asked: list[tuple[int, int]]) -> tuple[list[int], Tat]:
    """The instants of all starts when each asker starts as many as the rule lets, and what is remembered."""
    limit, per_ms, burst = pace
    now_ms, tat, starts = 0, (0, 0), list[int]()
    for wait_ms, wanted in asked:
        now_ms += wait_ms
        count = max(0, min(wanted, paced(tat, limit, per_ms, burst, now_ms)))
        tat = paced_after(tat, limit, per_ms, now_ms, count) if count else tat
        starts += [now_ms] * count
    return starts, tat


@given(PACE, WAITS)
def test_pacing_starts_no_more_than_its_burst_and_one_a_space(
    pace: tuple[int, int, int], asked: list[tuple[int, int]]
) -> None:
    # Given starts under a pace; then from one to another there are no more than the burst and one for each space, but
    # for the millisecond that the clock cannot see into
    limit, per_ms, burst = pace
    starts, _ = paced_starts(pace, asked)
    for one in range(len(starts)):
        for other in range(one, len(starts)):
            assert (other - one + 1 - burst) * per_ms < (starts[other] - starts[one] + 1) * limit


@given(PACE, WAITS, st.integers(0, 60))
def test_what_the_pace_does_not_admit_now_it_admits_at_the_next_instant_and_not_before(
    pace: tuple[int, int, int], asked: list[tuple[int, int]], later_ms: int
) -> None:
    starts, tat = paced_starts(pace, asked)
    now_ms = (starts[-1] if starts else 0) + later_ms
    at_ms = paced_at_ms(tat, *pace, now_ms)
    assert at_ms >= now_ms
    assert paced(tat, *pace, at_ms) > 0
    assert at_ms == now_ms or paced(tat, *pace, at_ms - 1) <= 0


def test_a_pace_that_is_no_whole_number_of_milliseconds_is_kept_over_time() -> None:
    # Given 300 in a second, asked for every millisecond, when ten seconds pass; then 3,000 have started, one at a time
    starts, _ = paced_starts((300, 1_000, 1), [(1, 1)] * 10_000)
    assert len(starts) == 3_000
    assert {later - earlier for earlier, later in pairwise(starts)} == {3, 4}
