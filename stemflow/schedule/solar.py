"""Events of the sun as ticks; needs the package astral (`pip install stemflow-engine[solar]`)."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from stemflow.lazy_import import LazyModule
from stemflow.schedule.spec import ScheduleError, ScheduleSpec

if TYPE_CHECKING:
    import zoneinfo
else:
    zoneinfo = LazyModule("zoneinfo")

_DAY = timedelta(days=1)


def solar_events(spec: ScheduleSpec, after: datetime) -> Iterator[datetime]:
    """The instants in UTC after `after`, to the second. A day without the event (polar day or night) has no tick.

    Raises:
        ScheduleError: astral is not installed.
    """
    assert spec.solar is not None
    assert spec.place is not None
    try:
        astral, sun = importlib.import_module("astral"), importlib.import_module("astral.sun")
    except ImportError:
        raise ScheduleError(
            "solar", "expected the package astral for it; install it with pip install stemflow-engine[solar]"
        ) from None
    zone = zoneinfo.ZoneInfo(spec.timezone)
    observer = astral.Observer(*spec.place)
    day = after.astimezone(zone).date() - 2 * _DAY
    while day.year < 2200:
        try:
            # Asked by the local date in the place's zone: by the UTC date, astral finds no event on some days.
            at = getattr(sun, spec.solar)(observer, date=day, tzinfo=zone).astimezone(UTC)
        except ValueError:
            at = None
        if at is not None:
            at = at.replace(microsecond=0) + timedelta(milliseconds=spec.offset_ms)
            if at > after:
                yield at
        day += _DAY
