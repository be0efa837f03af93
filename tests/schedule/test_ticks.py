"""Ticks against an oracle: a scan of every minute by Debian's rule, over zones and around their clock changes."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from stemflow.expr.dates import instant_of
from stemflow.schedule import ScheduleError, due_ms, next_tick, spec_of, ticks, ticks_between
from stemflow.schedule.changes import change_at, clock_changes
from stemflow.schedule.ticks import count_ticks, milliseconds, previous_tick

MINUTE = timedelta(minutes=1)
ZONES = (
    "UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Africa/Cairo", "America/Santiago",
    "Asia/Kathmandu", "Pacific/Apia", "Africa/Casablanca", "America/St_Johns",
)  # fmt: skip
CHANGES = (
    "2026-03-08", "2026-03-29", "2026-04-05", "2026-04-24", "2026-09-06", "2026-10-04", "2026-10-25", "2026-10-29",
    "2026-11-01", "2026-02-15", "2026-03-22",
)  # fmt: skip
FIXED = (
    "30 2 * * *", "0 0 * * *", "15,45 1,2 * * *", "59 23 * * *", "0 3 * * 1-5", "5 0 1 * *", "0 2 29 3 *",
    "30 1-3 * * *", "0 0 13 * 5", "0-10/5 2 * * 0", "7 1 * 3,10 *",
)  # fmt: skip
ELAPSED = ("* * * * *", "*/15 * * * *", "*/30 2 * * *", "0 * * * *", "20 */2 * * *", "*/7 1-3 * * *", "5 * * * 0")


def matches(cron: str, local: datetime) -> bool:
    """Whether the fields of an expression fit a local time, written without the library."""
    minute, hour, day, month, weekday = cron.split()
    in_month = _fits(month, local.month, 1, 12)
    by_day = _fits(day, local.day, 1, 31)
    by_weekday = _fits(weekday, local.isoweekday() % 7, 0, 6)
    both = day.startswith("*") or weekday.startswith("*")
    on_day = (by_day and by_weekday) if both else (by_day or by_weekday)
    return _fits(minute, local.minute, 0, 59) and _fits(hour, local.hour, 0, 23) and in_month and on_day


def _fits(field: str, value: int, low: int, high: int) -> bool:
    for part in field.split(","):
        span, _, step = part.partition("/")
        first, dash, last = span.partition("-")
        start, end = (low, high) if first == "*" else (int(first), int(last if dash else first))
        if start <= value <= end and (value - start) % int(step or 1) == 0:
            return True
    return False


def oracle(cron: str, zone: ZoneInfo, start: datetime, end: datetime) -> list[datetime]:
    """The instants of an expression in [start, end): each minute is looked at, local or elapsed."""
    minute, hour, *_ = cron.split()
    found: set[datetime] = set()
    at = start - timedelta(days=1)
    if minute.startswith("*") or hour.startswith("*"):
        while at < end:
            if matches(cron, at.astimezone(zone)):
                found.add(at)
            at += MINUTE
    else:
        local = at.astimezone(zone).replace(tzinfo=None)
        while local < end.astimezone(zone).replace(tzinfo=None) + timedelta(days=1):
            if matches(cron, local):
                found.add(_first_from(local, zone))
            local += MINUTE
    return sorted(one for one in found if start <= one < end)


def _first_from(local: datetime, zone: ZoneInfo) -> datetime:
    """The first instant, minute by minute, whose local time is at or after `local`."""
    at = local.replace(tzinfo=zone).astimezone(UTC) - timedelta(hours=3)
    while at.astimezone(zone).replace(tzinfo=None) < local:
        at += MINUTE
    return at


def instants(given: Mapping[str, Any], start: datetime, end: datetime) -> list[datetime]:
    first, last = milliseconds(start) - 1, milliseconds(end) - 1
    return [instant_of(tick.at_ms) for tick in ticks_between(spec_of(given), first, last)]


def cases() -> Iterator[tuple[str, str, str]]:
    """A draw of expression, zone and day that is the same in each run; each expression and zone is among them."""
    rng = random.Random(20)
    for number, cron in enumerate((*FIXED, *ELAPSED) * 2):
        yield cron, ZONES[number % len(ZONES)], rng.choice(CHANGES)


@pytest.mark.parametrize(("cron", "zone", "day"), list(cases()))
def test_the_ticks_are_those_of_a_scan_of_each_minute(cron: str, zone: str, day: str) -> None:
    start = datetime.fromisoformat(f"{day}T00:00Z") - timedelta(hours=14)
    end = start + timedelta(days=2)
    expected = oracle(cron, ZoneInfo(zone), start, end)
    found = instants({"cron": cron, "timezone": zone}, start, end)
    assert found == expected
    # From any start, the next tick is the next of that set.
    spec = spec_of({"cron": cron, "timezone": zone})
    rng = random.Random(f"{cron}{zone}{day}")
    for _ in range(20):
        after = start + timedelta(seconds=rng.randrange(86_400))
        later = [one for one in expected if one > after]
        tick = next_tick(spec, milliseconds(after))
        if later:
            assert tick is not None
            assert instant_of(tick.at_ms) == later[0]


def local(given: Mapping[str, Any], after: str, count: int) -> list[str]:
    spec = spec_of(given)
    zone = ZoneInfo(spec.timezone)
    found = islice(ticks(spec, milliseconds(datetime.fromisoformat(after))), count)
    return [instant_of(tick.at_ms).astimezone(zone).isoformat() for tick in found]


def test_what_a_fixed_time_does_in_a_gap_and_in_a_repeated_hour_can_be_chosen() -> None:
    berlin = {"cron": "30 2 * * *", "timezone": "Europe/Berlin"}
    assert local(berlin, "2026-03-28T12:00Z", 2) == ["2026-03-29T03:00:00+02:00", "2026-03-30T02:30:00+02:00"]
    assert local({**berlin, "dst": {"gap": "skip"}}, "2026-03-28T12:00Z", 1) == ["2026-03-30T02:30:00+02:00"]
    assert local(berlin, "2026-10-24T12:00Z", 2) == ["2026-10-25T02:30:00+02:00", "2026-10-26T02:30:00+01:00"]
    second = {**berlin, "dst": {"fold": "second"}}
    assert local(second, "2026-10-24T12:00Z", 1) == ["2026-10-25T02:30:00+01:00"]
    both = {**berlin, "cron": "0,30 2 * * *", "dst": {"fold": "both"}}
    assert local(both, "2026-10-24T12:00Z", 4) == [
        "2026-10-25T02:00:00+02:00", "2026-10-25T02:30:00+02:00",
        "2026-10-25T02:00:00+01:00", "2026-10-25T02:30:00+01:00",
    ]  # fmt: skip


def test_a_change_of_the_clock_is_named() -> None:
    spec = spec_of({"cron": "30 2 * * *", "timezone": "Europe/Berlin"})
    year = (1_767_225_600_000, 1_767_225_600_000 + 365 * 86_400_000)
    assert [(one.kind, one.local) for one in clock_changes(spec, *year)] == [
        ("gap", "2026-03-29 02:30"), ("fold", "2026-10-25 02:30"),
    ]  # fmt: skip
    moved = [tick.at_ms for tick in ticks_between(spec, *year) if change_at(spec, tick.at_ms) is not None]
    assert [instant_of(one).date().isoformat() for one in moved] == ["2026-03-29", "2026-10-25"]


def test_an_interval_counts_from_its_anchor() -> None:
    given = {"every": "7m", "anchor": "2026-01-01T00:03:00+00:00"}
    assert local(given, "2026-01-01T00:03:00Z", 2) == ["2026-01-01T00:10:00+00:00", "2026-01-01T00:17:00+00:00"]
    assert local(given, "2025-12-31T00:00Z", 1) == ["2026-01-01T00:03:00+00:00"]
    spec = spec_of(given)
    assert count_ticks(spec, spec.anchor_ms - 1, spec.anchor_ms + 3 * 420_000) == 4
    assert previous_tick(spec, spec.anchor_ms + 420_000) == spec.anchor_ms
    assert previous_tick(spec, spec.anchor_ms) is None


def test_the_tick_before_is_found_over_years() -> None:
    spec = spec_of({"cron": "0 0 29 2 *"})
    at = milliseconds(datetime(2028, 2, 29, tzinfo=UTC))
    assert previous_tick(spec, at) == milliseconds(datetime(2024, 2, 29, tzinfo=UTC))


def test_jitter_is_the_same_everywhere_and_stays_before_the_next_tick() -> None:
    spec = spec_of({"every": "10s", "jitter": "1h"})
    late = {due_ms("a", spec, at_ms) - at_ms for at_ms in range(0, 1_000_000, 10_000)}
    assert all(0 <= one < 10_000 for one in late)
    assert len(late) > 50
    assert due_ms("a", spec, 10_000) == due_ms("a", spec_of({"every": "10s", "jitter": "1h"}), 10_000)


def test_excluded_days_instants_and_expressions() -> None:
    given = {"cron": "0 2 * * *", "exclude": ["0 0 25 12 *", "2026-12-27", "2026-12-28T03:00:00+01:00", "0 2 30 * *"]}
    spec = spec_of(given)
    found = islice(ticks(spec, milliseconds(datetime(2026, 12, 24, tzinfo=UTC))), 8)
    days = {instant_of(tick.at_ms).day: tick.excluded for tick in found}
    assert days == {24: False, 25: True, 26: False, 27: True, 28: True, 29: False, 30: True, 31: False}


def test_events_of_the_sun_each_day_of_a_year() -> None:
    pytest.importorskip("astral")
    given = {"solar": "sunset", "place": [40.7, -74.0], "timezone": "America/New_York"}
    start = datetime(2026, 1, 1, 5, tzinfo=UTC)
    found = instants(given, start, start + timedelta(days=365))
    assert len({one.astimezone(ZoneInfo("America/New_York")).date() for one in found}) == 365
    assert len(found) == 365
    # In Tromsø the sun does not set for two months.
    polar = instants({"solar": "sunset", "place": [69.6, 18.9]}, start, start + timedelta(days=365))
    assert 200 < len(polar) < 320
    early = instants({**given, "offset": "-15m"}, start, start + timedelta(days=1))
    assert early[0] == found[0] - timedelta(minutes=15)


WRONG: list[tuple[Any, str, str]] = [
    ("x", "", "expected a mapping"),
    ({}, "", "got neither"),
    ({"cron": "* * * * *", "every": "5m"}, "every", "got cron and every"),
    ({"cron": "61 * * * *"}, "cron", "bad minute"),
    ({"cron": "* * * * * *"}, "cron", "five fields"),
    ({"cron": "0 0 31 2 *"}, "cron", "bad day-of-month"),
    ({"cron": 5}, "cron", "expected a cron expression"),
    ({"cron": "@never"}, "cron", "five fields"),
    ({"every": "50ms"}, "every", "at least 100ms"),
    ({"every": "soon"}, "every", "expected a duration"),
    ({"every": "5m", "anchor": "2026-01-01"}, "anchor", "an instant with its zone"),
    ({"at": "2026-01-01T00:00"}, "at", "an instant with its zone"),
    ({"at": "2026-01-01T00:00Z", "anchor": "2026-01-01T00:00Z"}, "anchor", "together with every"),
    ({"cron": "@daily", "timezone": "Berlin"}, "timezone", "such as Europe/Berlin"),
    ({"cron": "@daily", "timezone": "../etc/passwd"}, "timezone", "such as Europe/Berlin"),
    ({"cron": "@daily", "overlap": "queue"}, "overlap", "expected one of skip"),
    ({"cron": "@daily", "catch_up": {"keep": "first"}}, "catch_up.keep", "none, last, all"),
    ({"cron": "@daily", "catch_up": {"wndow": 1}}, "catch_up.wndow", "window or keep"),
    ({"cron": "@daily", "exclude": "2026-01-01"}, "exclude", "a list"),
    ({"cron": "@daily", "exclude": ["2026-02-31"]}, "exclude[0]", "a date that exists"),
    ({"cron": "@daily", "exclude": ["never"]}, "exclude[0]", "five fields"),
    ({"cron": "@daily", "dst": {"gap": "later"}}, "dst.gap", "run, skip"),
    ({"solar": "sunset"}, "place", "latitude"),
    ({"solar": "sunset", "place": [91, 0]}, "place", "latitude"),
    ({"cron": "@daily", "inputs": 5}, "inputs", "a mapping"),
    ({"cron": "@daily", "queue": ""}, "queue", "the name of a queue"),
    ({"cron": "@daily", "wen": 1}, "wen", "expected one of cron"),
]


@pytest.mark.parametrize(("given", "key", "message"), WRONG, ids=[str(number) for number in range(len(WRONG))])
def test_what_cannot_be_is_refused_by_name(given: Any, key: str, message: str) -> None:
    with pytest.raises(ScheduleError, match=message) as refused:
        spec_of(given)
    assert refused.value.key == key
