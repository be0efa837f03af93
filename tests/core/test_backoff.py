"""How long the next attempt waits."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from stemflow.core.backoff import delay_ms
from stemflow.model.policy import RetryPolicy

PATHS = [f"step[{number}]" for number in range(500)]


def test_by_default_the_delays_double_from_two_seconds_less_up_to_a_quarter() -> None:
    for attempt, longest in enumerate((2_000, 4_000, 8_000, 16_000)):
        delays = [delay_ms(RetryPolicy(), "run", path, attempt) for path in PATHS]
        assert longest * 3 // 4 <= min(delays) <= longest * 77 // 100
        assert longest * 98 // 100 <= max(delays) <= longest


def test_the_delay_stays_below_five_minutes_however_many_attempts_there_were() -> None:
    for attempt in (8, 64, 10_000):
        assert 225_000 <= delay_ms(RetryPolicy(), "run", "step", attempt) <= 300_000


def test_the_same_attempt_of_the_same_step_always_waits_equally_long() -> None:
    waits = {delay_ms(RetryPolicy(), "run", "step", 1) for _ in range(3)}
    others = {delay_ms(RetryPolicy(), run, "step", attempt) for run, attempt in (("other", 1), ("run", 2))}
    assert len(waits) == 1
    assert not waits & others


def test_fixed_and_linear_delays_without_jitter_are_exact() -> None:
    fixed = RetryPolicy(backoff="fixed", initial_ms=700, jitter=0.0)
    linear = RetryPolicy(backoff="linear", initial_ms=100, factor=1.0, jitter=0.0, max_ms=350)
    assert [delay_ms(fixed, "r", "p", attempt) for attempt in range(3)] == [700, 700, 700]
    assert [delay_ms(linear, "r", "p", attempt) for attempt in range(4)] == [100, 200, 300, 350]


@given(
    st.sampled_from(("fixed", "linear", "exponential")), st.integers(0, 10**6), st.floats(0, 1e3), st.floats(0, 1),
    st.integers(0, 10**5),
)  # fmt: skip
def test_no_delay_is_negative_or_beyond_its_cap(
    backoff: str, initial_ms: int, factor: float, jitter: float, attempt: int
) -> None:
    policy = RetryPolicy(backoff=backoff, initial_ms=initial_ms, factor=factor, jitter=jitter)  # type: ignore[arg-type]
    assert 0 <= delay_ms(policy, "run", "path", attempt) <= (initial_ms if backoff == "fixed" else policy.max_ms)
