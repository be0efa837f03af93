"""The admission rule of rate limits."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from stemflow.core.limits import admissible, next_at_ms, remember

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
