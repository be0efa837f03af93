"""Dates in expressions: read from text, computed with, and written as ISO 8601."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stemflow.expr import ExpressionError, compile_expression, parse_template
from stemflow.expr.dates import instant_of, iso
from stemflow.units import parse_duration_ms

ENV = {"run": {"created_at_ms": 1_796_094_000_123}, "inputs": {"due": "2026-12-24", "zone": "Asia/Tokyo"}}


def value(source: str) -> Any:
    return compile_expression(source, ["inputs", "run"])(ENV)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("now()", "2026-12-01T03:00:00.123Z"),
        ("today('America/Los_Angeles')", "2026-11-30"),
        ("today(inputs.zone)", "2026-12-01"),
        ("date('2026-03-29T02:30', 'Europe/Berlin')", "2026-03-29T01:30:00Z"),
        ("date('2026-10-25T03:00', 'Europe/Berlin') - date('2026-10-25T01:00', 'Europe/Berlin')", "PT3H"),
        ("date('2026-01-31T03:00:00.5-05:00')", "2026-01-31T08:00:00.500Z"),
        ("date(date(inputs.due))", "2026-12-24"),
        ("duration(duration('PT90M'))", "PT1H30M"),
        ("[{'at': today()}, 'x', null]", [{"at": "2026-12-01"}, "x", None]),
        ("f'due {date(inputs.due)} in {duration(\"36h\")}'", "due 2026-12-24 in P1DT12H"),
        ("json({'at': now()})", '{"at":"2026-12-01T03:00:00.123Z"}'),
        ("hash(today()) == hash('2026-12-01')", True),
        ("format_date(now(), '%Y-%j %I:%M:%S.%f %p %z %a %b %u %G-W%V %y %%', 'Asia/Tokyo')",
         "2026-335 12:00:00.123000 PM +0900 Tue Dec 2 2026-W49 26 %"),
        ("format_date(date('2026-12-24'), '%A, %d %B')", "Thursday, 24 December"),
        ("date(inputs.due) != null and not (today() is null)", True),
        ("sum((d - today()) / duration('1d') for d in [date('2026-12-02'), date('2026-12-03')])", 3.0),
    ],
)  # fmt: skip
def test_dates_are_computed_with_and_leave_as_text(source: str, expected: Any) -> None:
    assert value(source) == expected


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("inputs.due < today()", "cannot compare a text and a date|cannot order"),
        ("inputs.due == today()", "write date(text)"),
        ("now() < today()", "cannot compare an instant and a date"),
        ("today() + duration('1h')", "whole days only"),
        ("today() + 1", "cannot add a date and a number"),
        ("now() + now()", "cannot add an instant and an instant"),
        ("now() * 2", "cannot multiply an instant"),
        ("1 / duration('1h')", "cannot divide a number and a duration"),
        ("duration('1h') / 0", "division by zero"),
        ("duration('1d') * 1e12", "too large"),
        ("date('9999-12-31') + duration('1d')", "too large"),
        ("date('2026-02-30')", "do not fit"),
        ("date('31.12.2026')", "expected a date such as"),
        ("date(5)", "expected a text with a date"),
        ("duration(5)", "expected a text with a duration"),
        ("today('../../etc/passwd')", "name of a time zone"),
        ("today('Europe')", "name of a time zone"),
        ("today(1)", "name of a time zone"),
        ("format_date('2026-01-01', '%Y')", "write date(text)"),
        ("format_date(today(), '%H')", "a date does not have"),
        ("format_date(today(), '%s')", "not a directive"),
        ("format_date(today(), '%')", "not a directive"),
        ("today().year", "got a date"),
        ("sum([duration('1h')])", "expected numbers"),
        ("len(now())", "got an instant"),
        ("{today(): 1}", "expected a text as the key"),
    ],
)
def test_what_dates_cannot_do_is_said(source: str, words: str) -> None:
    with pytest.raises(ExpressionError) as caught:
        value(source)
    assert any(part in str(caught.value) for part in words.split("|"))


def test_the_clock_is_a_reference_to_the_run_and_exists_where_it_does() -> None:
    # Given an expression that reads the clock
    expression = compile_expression("now() > date(inputs.due)", ["inputs", "run"])
    # Then the run is among what it reads
    assert [reference.path for reference in expression.references] == [("run", "created_at_ms"), ("inputs", "due")]
    # And where there is no run, it is refused when it is compiled
    with pytest.raises(ExpressionError, match="there is no run here"):
        compile_expression("today()", ["inputs"])


def test_a_text_is_filled_with_dates() -> None:
    template = parse_template({"day": "day ${{ today() }}", "at": "${{ now() }}"}, ["run"])
    assert template(ENV) == {"day": "day 2026-12-01", "at": "2026-12-01T03:00:00.123Z"}


@given(st.integers(0, 3_000_000_000_000))
def test_a_duration_reads_back_from_what_is_written(ms: int) -> None:
    assert parse_duration_ms(iso(dt.timedelta(milliseconds=ms))) == ms


@given(st.integers(0, 200_000_000_000_000))
def test_an_instant_reads_back_from_what_is_written(at_ms: int) -> None:
    text = iso(instant_of(at_ms))
    assert dt.datetime.fromisoformat(text).timestamp() * 1_000 == pytest.approx(at_ms)
    assert compile_expression(f"date({text!r})", [])({}) == text
