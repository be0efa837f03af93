"""Dates in expressions: instants, calendar dates and durations, which leave an expression as ISO 8601 text.

An instant is an aware datetime in UTC, a date has no zone, a duration is an exact span of time. What is now comes from
the run, never from the machine's clock, so that every attempt and replay computes the same.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any

from stemflow.errors import UnitError
from stemflow.expr.errors import Refusal
from stemflow.expr.limits import Frame
from stemflow.lazy_import import LazyModule
from stemflow.units import parse_duration_ms

if TYPE_CHECKING:
    import zoneinfo
else:
    zoneinfo = LazyModule("zoneinfo")

DATES = (date, timedelta)  # datetime is a date
FORMAT_CHARACTERS = 200

_DATE = re.compile(r"\d{4}-\d\d-\d\d")
_INSTANT = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d(\.\d{1,6})?)?(?P<zone>Z|[+-]\d\d:\d\d)?")
_ZONE = re.compile(r"[A-Za-z][A-Za-z0-9_+-]*(/[A-Za-z0-9_+-]+){0,2}")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DAY = timedelta(days=1)


def kind(value: Any) -> str | None:
    """`an instant`, `a date`, `a duration`, or None for any other value."""
    if isinstance(value, datetime):
        return "an instant"
    if isinstance(value, date):
        return "a date"
    return "a duration" if isinstance(value, timedelta) else None


def instant_of(at_ms: int) -> datetime:
    """The instant at so many milliseconds since 1970."""
    return _EPOCH + timedelta(milliseconds=at_ms)


def iso(value: Any) -> str:
    """`2026-01-31T02:00:00Z`, `2026-01-31` or `PT1H30M`. Raises TypeError for any other value."""
    if isinstance(value, datetime):
        unit = "microseconds" if value.microsecond % 1_000 else "milliseconds" if value.microsecond else "seconds"
        return f"{value.replace(tzinfo=None).isoformat(timespec=unit)}Z"
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, timedelta):
        return _iso_duration(value)
    raise TypeError(f"{type(value).__name__} is not JSON")


def _iso_duration(value: timedelta) -> str:
    sign = "-" if value < timedelta() else ""
    span = abs(value)
    hours, seconds = divmod(span.seconds, 3_600)
    minutes, seconds = divmod(seconds, 60)
    fraction = f".{span.microseconds:06d}".rstrip("0") if span.microseconds else ""
    days = f"{span.days}D" if span.days else ""
    time = "".join(f"{count}{unit}" for count, unit in ((hours, "H"), (minutes, "M")) if count)
    if seconds or fraction:
        time += f"{seconds}{fraction}S"
    return f"{sign}P{days}{'T' + time if time else '' if days else 'T0S'}"


def as_json(value: Any) -> Any:
    """`value` with each date in it as text; parts without dates are not copied."""
    if isinstance(value, list):
        parts = [as_json(part) for part in value]
        return parts if any(new is not old for new, old in zip(parts, value, strict=True)) else value
    if isinstance(value, dict):
        members = {key: as_json(part) for key, part in value.items()}
        return members if any(members[key] is not part for key, part in value.items()) else value
    return iso(value) if isinstance(value, DATES) else value


# -- functions


def now(frame: Frame, at: datetime) -> datetime:
    """`now()`: the instant at which the run was created."""
    return at


def today(frame: Frame, at: datetime, zone: Any = "UTC") -> date:
    """`today(zone)`: the calendar date of the run's start in a time zone."""
    return at.astimezone(_zone(zone)).date()


def read_date(frame: Frame, value: Any, zone: Any = None) -> date:
    """`date(text, zone)`: a date, or an instant where the text has a time; `zone` is for one without an offset."""
    if isinstance(value, date):
        return value
    if not isinstance(value, str):
        raise Refusal("expected a text with a date, such as '2026-01-31' or '2026-01-31T03:00Z'")
    if _DATE.fullmatch(value):
        return date.fromisoformat(value)
    found = _INSTANT.fullmatch(value)
    if found is None:
        raise Refusal("expected a date such as '2026-01-31' or an instant such as '2026-01-31T03:00Z' in the text")
    read = datetime.fromisoformat(value)
    if found["zone"] is None:
        if zone is None:
            raise Refusal("the time in the text has no zone", "write date(text, 'Europe/Berlin'), or end it with Z")
        read = read.replace(tzinfo=_zone(zone))
    return read.astimezone(UTC)


def duration(frame: Frame, value: Any) -> timedelta:
    """`duration(text)`: a span of time such as `90m`, `1h30m` or `PT1H30M`."""
    if isinstance(value, timedelta):
        return value
    if not isinstance(value, str) or len(value) > FORMAT_CHARACTERS:
        raise Refusal("expected a text with a duration, such as '90m' or 'PT1H30M'")
    try:
        return timedelta(milliseconds=parse_duration_ms(value))
    except UnitError:
        raise Refusal("expected a duration such as '90m', '1h30m' or 'PT1H30M' in the text") from None


def format_date(frame: Frame, value: Any, form: Any = None, zone: Any = "UTC") -> str:
    """`format_date(date, "%d.%m.%Y %H:%M", zone)`: English names, whatever the machine's language is."""
    if not isinstance(value, date):
        raise Refusal("expected a date or an instant to format", "write date(text) to read one")
    if form is None:
        return iso(value)
    if not isinstance(form, str) or len(form) > FORMAT_CHARACTERS:
        raise Refusal(f"expected a format of at most {FORMAT_CHARACTERS} characters, such as '%d.%m.%Y'")
    shown = value.astimezone(_zone(zone)) if isinstance(value, datetime) else value
    frame.charge(len(form))
    return _DIRECTIVE.sub(lambda found: _directive(shown, found[1]), form)


_DIRECTIVE = re.compile(r"%(.?)", re.DOTALL)
_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_MONTHS = ("January", "February", "March", "April", "May", "June", "July", "August", "September", "October",
           "November", "December")  # fmt: skip
_OF_DATES: dict[str, Callable[[date], str]] = {
    "Y": lambda at: f"{at.year:04d}", "m": lambda at: f"{at.month:02d}", "d": lambda at: f"{at.day:02d}",
    "y": lambda at: f"{at.year % 100:02d}", "j": lambda at: f"{at.timetuple().tm_yday:03d}",
    "u": lambda at: str(at.isoweekday()), "G": lambda at: f"{at.isocalendar().year:04d}",
    "V": lambda at: f"{at.isocalendar().week:02d}", "A": lambda at: _DAYS[at.weekday()],
    "a": lambda at: _DAYS[at.weekday()][:3], "B": lambda at: _MONTHS[at.month - 1],
    "b": lambda at: _MONTHS[at.month - 1][:3], "%": lambda at: "%",
}  # fmt: skip
_OF_INSTANTS: dict[str, Callable[[datetime], str]] = {
    "H": lambda at: f"{at.hour:02d}", "M": lambda at: f"{at.minute:02d}", "S": lambda at: f"{at.second:02d}",
    "f": lambda at: f"{at.microsecond:06d}", "I": lambda at: f"{(at.hour - 1) % 12 + 1:02d}",
    "p": lambda at: "AM" if at.hour < 12 else "PM", "z": lambda at: at.strftime("%z"),
}  # fmt: skip


def _directive(at: date, letter: str) -> str:
    if letter in _OF_DATES:
        return _OF_DATES[letter](at)
    if letter not in _OF_INSTANTS:
        raise Refusal(f"'%{letter}' is not a directive of a format", "write %Y %m %d %H %M %S, or %% for '%'")
    if not isinstance(at, datetime):
        raise Refusal(f"'%{letter}' asks for a time, which a date does not have")
    return _OF_INSTANTS[letter](at)


def _zone(name: Any) -> zoneinfo.ZoneInfo:
    if isinstance(name, str) and len(name) <= 64 and _ZONE.fullmatch(name):
        try:
            return zoneinfo.ZoneInfo(name)
        except (OSError, ValueError, LookupError):  # also a folder, or a file that holds no zone
            pass
    raise Refusal("expected the name of a time zone, such as 'Europe/Berlin' or 'UTC'")


# -- operators


def add(left: Any, right: Any) -> Any:
    """`left + right`, of which one is a duration."""
    if isinstance(left, timedelta) and isinstance(right, date):
        left, right = right, left
    if isinstance(right, timedelta) and kind(left):
        return left + _fitting(left, right)
    raise _unfit("add", left, right)


def subtract(left: Any, right: Any) -> Any:
    """`left - right`: two of one kind, or anything and a duration."""
    if kind(left) == kind(right) and kind(left):
        return left - right
    if isinstance(right, timedelta) and kind(left):
        return left - _fitting(left, right)
    raise _unfit("subtract", left, right)


def multiply(left: Any, right: Any) -> Any:
    """`duration * number`."""
    span, times = (left, right) if isinstance(left, timedelta) else (right, left)
    if isinstance(span, timedelta) and isinstance(times, (int, float)):
        return span * times
    raise _unfit("multiply", left, right)


def divide(left: Any, right: Any) -> Any:
    """`duration / number`, or how often one duration is in another."""
    if isinstance(left, timedelta) and isinstance(right, (int, float, timedelta)):
        return left / right
    raise _unfit("divide", left, right)


def same_kind(left: Any, right: Any) -> None:
    """Refuse to compare values of different kinds, which would always be false."""
    if kind(left) != kind(right):
        raise _unfit("compare", left, right)


def _fitting(left: Any, span: timedelta) -> timedelta:
    if isinstance(left, date) and not isinstance(left, datetime) and span % _DAY:
        raise Refusal("a date can be moved by whole days only", "write an instant such as now(), or a duration in days")
    return span


def _unfit(verb: str, left: Any, right: Any) -> Refusal:
    hint = "write date(text) to read one from a text" if isinstance(left, str) or isinstance(right, str) else None
    return Refusal(f"cannot {verb} {kind(left) or _other(left)} and {kind(right) or _other(right)}", hint)


def _other(value: Any) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case str():
            return "a text"
        case list():
            return "a list"
        case int() | float():
            return "a number"
    return "an object"
