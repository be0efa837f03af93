"""Durations and rates as users write them, as integers of milliseconds."""

from __future__ import annotations

import math
import re
from datetime import datetime, timedelta
from functools import lru_cache

from stemflow.errors import OptionError, UnitError

Duration = str | int | float | timedelta
"""A duration as users write it: `"1m30s"`, a number of seconds, or a timedelta."""

Instant = datetime | float
"""An instant as users write it: an aware datetime, or seconds since the epoch."""

_MS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_ISO = re.compile(r"P(?=\d|T\d)(?:(\d+)D)?(?:T(?=\d)(?:(\d+)H)?(?:(\d+)M)?(?:(\d+(?:\.\d+)?)S)?)?")
_LONGEST_MS = 100 * 366 * 86_400_000


def parse_duration_ms(value: Duration) -> int:
    """Read `"1m30s"`, `"200ms"`, `"2h"`, `"1d"`, `"PT1M30S"` (ISO 8601), a number of seconds, or a timedelta.

    Raises UnitError for anything else, for a negative or infinite duration, NaN, and what is longer than 100 years.
    """
    if isinstance(value, timedelta):
        total = value.total_seconds() * 1_000
    elif isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise UnitError(f"expected a duration such as 30s, 1m30s, seconds or a timedelta, got {value!r}")
    elif isinstance(value, str):
        total = _parts(value)
    else:
        total = float(value) * 1_000 if abs(value) <= _LONGEST_MS else math.inf
    if not 0 <= total <= _LONGEST_MS:
        raise UnitError(f"expected a duration from 0 to 100 years, got {value!r}")
    return round(total)


@lru_cache(maxsize=1024)
def _parts(text: str) -> float:
    if iso := _ISO.fullmatch(text):
        return sum(float(count) * _MS[unit] for count, unit in zip(iso.groups(), "dhms", strict=True) if count)
    parts = _PART.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text.strip():
        raise UnitError(f"expected a duration such as 30s, 1m30s or 200ms, got {text!r}")
    return sum(float(number) * _MS[unit] for number, unit in parts)


def duration_of(name: str, value: Duration) -> int:
    """`parse_duration_ms` for the option or argument `name`, which the UnitError then names."""
    try:
        return parse_duration_ms(value)
    except UnitError as error:
        raise UnitError(f"{name}: {error}") from None


def timeout_s(name: str, value: Duration | None) -> float | None:
    """The seconds to wait at most, None without a limit; a negative number is 0, so that `deadline - now` can be given.

    Raises UnitError, which names the argument `name`.
    """
    if isinstance(value, (int, float)) and not isinstance(value, bool) and (value < 0 or value == math.inf):
        return 0.0 if value < 0 else None
    return None if value is None else duration_of(name, value) / 1_000


def format_duration(ms: int) -> str:
    """Write milliseconds the way `parse_duration_ms` reads them: 90_000 is `1m30s`."""
    if ms == 0:
        return "0s"
    text, rest = "", ms
    for unit in ("d", "h", "m", "s", "ms"):
        count, rest = divmod(rest, _MS[unit])
        text += f"{count}{unit}" if count else ""
    return text


def parse_rate(text: str) -> tuple[int, int]:
    """Read `"200/s"`, `"100/m"`, `"500/h"` or `"1000/d"` as (limit, ms of the window); raises UnitError."""
    match = re.fullmatch(r"\s*(\d+)\s*/\s*(s|m|h|d)\s*", text) if isinstance(text, str) else None
    if match is None or int(match[1]) == 0:
        raise UnitError(f"expected a rate such as 10/s, 100/m, 500/h or 1000/d, got {text!r}")
    return int(match[1]), _MS[match[2]]


LATEST_S = 253_402_300_799
"""The end of the year 9999."""


def instant_ms(eta: Instant, where: str) -> int:
    """Convert an aware datetime, or seconds since the epoch, to epoch milliseconds.

    `where` begins the message of an error. Raises OptionError.
    """
    if isinstance(eta, datetime):
        if eta.tzinfo is None:
            raise OptionError(f"{where}: eta: expected a datetime with a time zone, got {eta} without one; "
                              "write eta.astimezone() if it is in local time")  # fmt: skip
        return int(eta.timestamp() * 1_000)
    if isinstance(eta, bool) or not isinstance(eta, (int, float)) or not 0 <= eta <= LATEST_S:
        raise OptionError(
            f"{where}: eta: expected an aware datetime, or seconds since the epoch up to the year 9999, got {eta!r}"
        )
    return int(eta * 1_000)
