"""The ticks of a schedule: the instants at which its workflow is due.

Clock changes follow the rule of Debian's cron. A fixed time that does not exist on a day (spring) is due at the first
instant after the gap; one that occurs twice (autumn) is due the first time alone. Expressions with `*` in the minute or
the hour follow elapsed time. Source: cron(8) of Debian, "daylight saving time".
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from itertools import islice
from typing import TYPE_CHECKING

from msgspec import Struct

from stemflow.expr.dates import instant_of
from stemflow.lazy_import import LazyModule
from stemflow.schedule.solar import solar_events
from stemflow.schedule.spec import ScheduleSpec

if TYPE_CHECKING:
    import hashlib
    import zoneinfo

    import cronsim
else:
    hashlib = LazyModule("hashlib")
    cronsim = LazyModule("cronsim")
    zoneinfo = LazyModule("zoneinfo")

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MINUTE = timedelta(minutes=1)
_DAY = timedelta(days=1)
_BACK_DAYS = (1 / 24, 2, 32, 400, 3_660)
COUNTED = 100_000
"""The most ticks that are counted one by one."""
LATEST = datetime(2200, 1, 1, tzinfo=UTC)
"""No tick is later than this instant."""


class Tick(Struct, frozen=True):
    """One tick: `at_ms` is its nominal instant, by which it is known; `excluded`: no run starts."""

    at_ms: int
    excluded: bool = False


def ticks(spec: ScheduleSpec, after_ms: int) -> Iterator[Tick]:
    """The ticks after the instant `after_ms`, in order, excluded ones among them.

    The same for every `after_ms`: the set of ticks does not depend on where the enumeration begins.
    """
    after = instant_of(after_ms)
    if spec.cron is not None:
        found = cron_instants(spec, after)
    elif spec.every_ms is not None:
        found = _intervals(spec, after_ms)
    elif spec.solar is not None:
        found = solar_events(spec, after)
    else:
        found = iter([instant_of(spec.at_ms)] if spec.at_ms is not None and spec.at_ms > after_ms else [])
    excluded = _exclusion(spec)
    for at in found:
        if at >= LATEST:
            return
        yield Tick(milliseconds(at), excluded.covers(at))


def next_tick(spec: ScheduleSpec, after_ms: int) -> Tick | None:
    """The first tick after `after_ms`; None if there is none any more."""
    return next(ticks(spec, after_ms), None)


def ticks_between(spec: ScheduleSpec, after_ms: int, until_ms: int) -> Iterator[Tick]:
    """The ticks after `after_ms`, up to `until_ms` inclusively."""
    for tick in ticks(spec, after_ms):
        if tick.at_ms > until_ms:
            return
        yield tick


def count_ticks(spec: ScheduleSpec, after_ms: int, until_ms: int) -> int:
    """How many ticks there are after `after_ms`, up to `until_ms` inclusively; at most COUNTED are counted."""
    if until_ms <= after_ms:
        return 0
    if spec.every_ms is not None:
        first = next(_intervals(spec, after_ms))
        return max(0, (until_ms - milliseconds(first)) // spec.every_ms + 1)
    return sum(1 for _ in islice(ticks_between(spec, after_ms, until_ms), COUNTED))


def previous_tick(spec: ScheduleSpec, before_ms: int) -> int | None:
    """The last tick before `before_ms`, within ten years; None if there is none."""
    if spec.every_ms is not None:
        at_ms = milliseconds(next(_intervals(spec, before_ms - spec.every_ms - 1)))
        return at_ms if at_ms < before_ms else None
    for days in _BACK_DAYS:
        found = None
        for tick in ticks_between(spec, before_ms - round(days * 86_400_000), before_ms - 1):
            found = tick.at_ms
        if found is not None:
            return found
    return None


def due_ms(name: str, spec: ScheduleSpec, at_ms: int) -> int:
    """When the tick at `at_ms` is acted on: later by its jitter, which is the same everywhere, never past the next."""
    if not spec.jitter_ms:
        return at_ms
    following = next_tick(spec, at_ms)
    span = spec.jitter_ms if following is None else min(spec.jitter_ms, following.at_ms - at_ms - 1)
    digest = hashlib.sha256(f"{name}\n{at_ms}".encode()).digest()
    return at_ms + int.from_bytes(digest[:8], "big") * max(span, 0) // 2**64


def milliseconds(at: datetime) -> int:
    """Milliseconds since 1970 of an instant."""
    return (at - _EPOCH) // timedelta(milliseconds=1)


def _intervals(spec: ScheduleSpec, after_ms: int) -> Iterator[datetime]:
    assert spec.every_ms is not None
    at_ms = spec.anchor_ms + max(0, (after_ms - spec.anchor_ms) // spec.every_ms + 1) * spec.every_ms
    while True:
        yield instant_of(at_ms)
        at_ms += spec.every_ms


# -- cron


def cron_instants(spec: ScheduleSpec, after: datetime) -> Iterator[datetime]:
    """The instants in UTC that a cron expression names after `after`."""
    assert spec.cron is not None
    zone = zoneinfo.ZoneInfo(spec.timezone)
    found = _fixed(spec, zone, after) if has_fixed_time(spec.cron) else _elapsed(spec.cron, zone, after)
    last = after
    for at in found:
        # The library answers with the first pass when it starts in the second pass of a repeated hour.
        if at > last:
            last = at
            yield at


def has_fixed_time(cron: str) -> bool:
    """Whether an expression names times of the day, with `*` neither in the minute nor in the hour."""
    minute, hour, *_ = cron.split()
    return not minute.startswith("*") and not hour.startswith("*")


def _elapsed(cron: str, zone: zoneinfo.ZoneInfo, after: datetime) -> Iterator[datetime]:
    for local in cronsim.CronSim(cron, after.astimezone(zone)):
        yield local.astimezone(UTC)


def _fixed(spec: ScheduleSpec, zone: zoneinfo.ZoneInfo, after: datetime) -> Iterator[datetime]:
    """Times of the day are enumerated without a zone, and then placed in it."""
    assert spec.cron is not None
    start = after.astimezone(zone).replace(tzinfo=None) - _DAY
    ready: list[datetime] = []
    for naive in cronsim.CronSim(spec.cron, start):
        earliest = naive.replace(tzinfo=zone).astimezone(UTC)
        if is_gap(naive, zone):
            earliest = after_gap(naive, zone)
        # In a repeated hour the second pass comes after all of the first.
        while ready and ready[0] <= earliest:
            yield heapq.heappop(ready)
        for at in _placed(spec, naive, zone):
            heapq.heappush(ready, at)


def _placed(spec: ScheduleSpec, naive: datetime, zone: zoneinfo.ZoneInfo) -> list[datetime]:
    """The instants at which a local time is due: none, one or two."""
    if is_gap(naive, zone):
        return [] if spec.gap == "skip" else [after_gap(naive, zone)]
    first, second = (naive.replace(tzinfo=zone, fold=fold).astimezone(UTC) for fold in (0, 1))
    if first == second or spec.fold == "first":
        return [first]
    return [second] if spec.fold == "second" else [first, second]


def is_gap(naive: datetime, zone: zoneinfo.ZoneInfo) -> bool:
    """Whether this local time does not exist."""
    return naive.replace(tzinfo=zone).astimezone(UTC).astimezone(zone).replace(tzinfo=None) != naive


def is_repeated(naive: datetime, zone: zoneinfo.ZoneInfo) -> bool:
    """Whether this local time occurs twice."""
    first, second = (naive.replace(tzinfo=zone, fold=fold).utcoffset() for fold in (0, 1))
    return first != second and not is_gap(naive, zone)


def after_gap(naive: datetime, zone: zoneinfo.ZoneInfo) -> datetime:
    """The first instant after the gap around a local time, to the minute."""
    low, high = (naive.replace(tzinfo=zone, fold=fold).astimezone(UTC) for fold in (1, 0))
    # The clock changes between the two readings of a time that does not exist.
    before = low.astimezone(zone).utcoffset()
    minutes = (high - low) // _MINUTE
    first, last = 0, minutes
    while first < last:
        middle = (first + last) // 2
        if (low + middle * _MINUTE).astimezone(zone).utcoffset() == before:
            first = middle + 1
        else:
            last = middle
    return low + first * _MINUTE


# -- exclusions


class _Exclusion:
    """The days, instants and cron expressions on which no run starts."""

    def __init__(self, timezone: str, given: tuple[str, ...]) -> None:
        self._zone = zoneinfo.ZoneInfo(timezone)
        self._days: set[date] = set()
        self._instants: set[datetime] = set()
        self._crons: list[str] = []
        for one in given:
            if " " in one:
                self._crons.append(one)
            elif "T" in one:
                self._instants.add(datetime.fromisoformat(one))
            else:
                self._days.add(date.fromisoformat(one))

    def covers(self, at: datetime) -> bool:
        if at in self._instants:
            return True
        local = at.astimezone(self._zone).replace(tzinfo=None)
        return local.date() in self._days or any(_fits(one, local) for one in self._crons)


def _fits(cron: str, local: datetime) -> bool:
    """Whether a local time fits an expression; `0 0` as its minute and hour means the whole day."""
    whole_day = cron.startswith("0 0 ")
    floor = local.replace(hour=0, minute=0, second=0, microsecond=0) if whole_day else local.replace(second=0)
    return bool(next(cronsim.CronSim(cron, floor - _MINUTE)) == floor.replace(microsecond=0))


@lru_cache(maxsize=256)
def _exclusion_of(timezone: str, given: tuple[str, ...]) -> _Exclusion:
    return _Exclusion(timezone, given)


def _exclusion(spec: ScheduleSpec) -> _Exclusion:
    return _exclusion_of(spec.timezone, spec.exclude)
