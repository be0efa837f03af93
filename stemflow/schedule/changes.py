"""Clock changes that a schedule meets: fixed times that do not exist on a day, or that occur twice."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Literal

from msgspec import Struct

from stemflow.expr.dates import instant_of
from stemflow.lazy_import import LazyModule
from stemflow.schedule.spec import ScheduleSpec
from stemflow.schedule.ticks import has_fixed_time, is_gap, is_repeated

if TYPE_CHECKING:
    import zoneinfo

    import cronsim
else:
    cronsim = LazyModule("cronsim")
    zoneinfo = LazyModule("zoneinfo")

_DAY = timedelta(days=1)
_HOUR = timedelta(hours=1)


class ClockChange(Struct, frozen=True):
    """A fixed time of the day on a day on which the clock changes. `local`: as `2026-03-29 02:30`."""

    kind: Literal["gap", "fold"]
    local: str


def clock_changes(spec: ScheduleSpec, after_ms: int, until_ms: int) -> Iterator[ClockChange]:
    """The fixed times of a cron expression that a clock change skips or repeats, in order."""
    if spec.cron is None or not has_fixed_time(spec.cron):
        return
    zone = zoneinfo.ZoneInfo(spec.timezone)
    for day in _days_of_change(zone, after_ms, until_ms):
        start = day - timedelta(minutes=1)
        for naive in cronsim.CronSim(spec.cron, start):
            if naive >= day + _DAY:
                break
            if is_gap(naive, zone):
                yield ClockChange("gap", naive.isoformat(" ", "minutes"))
            elif is_repeated(naive, zone):
                yield ClockChange("fold", naive.isoformat(" ", "minutes"))


def change_at(spec: ScheduleSpec, at_ms: int) -> ClockChange | None:
    """The clock change by which the tick at this instant is not at the time that the expression names, or repeats."""
    local = instant_of(at_ms).astimezone(zoneinfo.ZoneInfo(spec.timezone)).isoformat(" ", "minutes")[:16]
    for change in clock_changes(spec, at_ms - 86_400_000, at_ms + 86_400_000):
        moved = change.kind == "gap" and change.local[:10] == local[:10] and change.local != local
        if moved or (change.kind == "fold" and change.local == local):
            return change
    return None


def _days_of_change(zone: zoneinfo.ZoneInfo, after_ms: int, until_ms: int) -> Iterator[datetime]:
    """The midnights, without a zone, of the days on which the offset of the zone changes."""
    day = instant_of(after_ms).astimezone(zone).replace(tzinfo=None, hour=0, minute=0, second=0, microsecond=0)
    last = instant_of(until_ms).astimezone(zone).replace(tzinfo=None)
    while day <= last:
        if day.replace(tzinfo=zone).utcoffset() != (day + _DAY + _HOUR).replace(tzinfo=zone).utcoffset():
            yield day
        day += _DAY
