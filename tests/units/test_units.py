"""Durations and rates: what users write, and what stemflow counts with."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stemflow.errors import StemflowError, UnitError
from stemflow.units import format_duration, parse_duration_ms, parse_rate


@pytest.mark.parametrize(
    ("written", "ms"),
    [
        ("1m30s", 90_000), ("200ms", 200), ("2h", 7_200_000), ("1d", 86_400_000), ("1.5s", 1_500), ("0s", 0),
        (" 5s ", 5_000), ("1d2h3m4s5ms", 93_784_005), (3, 3_000), (0.25, 250), (0, 0),
        ("PT1M30S", 90_000), ("P1D", 86_400_000), ("P1DT2H", 93_600_000), ("PT0S", 0), ("PT0.5S", 500),
    ],
)  # fmt: skip
def test_a_duration_is_read_as_milliseconds(written: str | float, ms: int) -> None:
    assert parse_duration_ms(written) == ms


@pytest.mark.parametrize(
    "written",
    [
        "", "5", "s", "5 s", "5x", "-5s", "P", "PT", "P1DT", "P1M", "-PT1S", "1m 30s", "1s!", -1, float("nan"),
        float("inf"), True, "99999999d",
    ],
)  # fmt: skip
def test_what_is_no_duration_is_refused_with_a_sentence(written: str | float) -> None:
    with pytest.raises(UnitError, match="expected a duration") as caught:
        parse_duration_ms(written)

    assert repr(written) in str(caught.value)
    assert isinstance(caught.value, (StemflowError, ValueError))


@given(st.integers(0, 10**12))
def test_a_formatted_duration_reads_back_as_itself(ms: int) -> None:
    assert parse_duration_ms(format_duration(ms)) == ms


@pytest.mark.parametrize(("ms", "text"), [(90_000, "1m30s"), (0, "0s"), (200, "200ms"), (93_784_005, "1d2h3m4s5ms")])
def test_a_duration_is_written_in_its_largest_units(ms: int, text: str) -> None:
    assert format_duration(ms) == text


@pytest.mark.parametrize(
    ("written", "rate"),
    [
        ("200/s", (200, 1_000)), ("100/m", (100, 60_000)), ("500/h", (500, 3_600_000)),
        ("1000/d", (1_000, 86_400_000)), (" 5 / s ", (5, 1_000)),
    ],
)  # fmt: skip
def test_a_rate_is_read_as_a_limit_and_a_window(written: str, rate: tuple[int, int]) -> None:
    assert parse_rate(written) == rate


@pytest.mark.parametrize("written", ["", "5", "0/s", "-1/s", "1.5/s", "5/ms", "5/w", "s/5"])
def test_what_is_no_rate_is_refused_with_a_sentence(written: str) -> None:
    with pytest.raises(UnitError, match="expected a rate such as"):
        parse_rate(written)
