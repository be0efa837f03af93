"""The specification of a schedule: what users write, checked, in the types that are stored."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

from msgspec import Struct

from stemflow.errors import OptionError, UnitError
from stemflow.expr import ExpressionError, parse_condition
from stemflow.lazy_import import LazyModule
from stemflow.model.step_names import expect_event_type
from stemflow.units import parse_duration_ms

if TYPE_CHECKING:
    import zoneinfo

    import cronsim
else:
    cronsim = LazyModule("cronsim")
    zoneinfo = LazyModule("zoneinfo")

Overlap = Literal["skip", "queue_last", "cancel_running", "allow"]
Keep = Literal["none", "last", "all"]
Gap = Literal["run", "skip"]
Fold = Literal["first", "second", "both"]
Solar = Literal["dawn", "sunrise", "noon", "sunset", "dusk"]

NICKNAMES: Final = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
SHORTEST_EVERY_MS: Final = 100
MOST_CAUGHT_UP: Final = 100
"""The most missed ticks that `keep: all` starts."""
KINDS: Final = ("cron", "every", "solar", "at", "event")
KEYS: Final = (
    *KINDS, "anchor", "place", "offset", "timezone", "inputs", "overlap", "catch_up", "jitter", "exclude", "dst",
    "queue", "match",
)  # fmt: skip
OF_EVENTS: Final = ("event", "match", "inputs", "queue")
"""The keys of what is started by events; the others are about time."""


class ScheduleError(OptionError):
    """A schedule that cannot be; `key` is the part of it that is wrong (empty: the schedule as a whole)."""

    def __init__(self, key: str, message: str) -> None:
        super().__init__(f"{key}: {message}" if key else message)
        self.key, self.message = key, message


class ScheduleSpec(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """When a workflow runs, and what happens when that cannot be; made by `spec_of`. One of the first five is given.

    All instants are milliseconds since 1970 in UTC, all durations milliseconds.
    """

    cron: str | None = None
    every_ms: int | None = None
    """Ticks are this far apart, counted from `anchor_ms`."""
    solar: Solar | None = None
    at_ms: int | None = None
    event: str | None = None
    """The type of the events that start a run each; there are no ticks."""
    match: str | None = None
    """Which of them do: an expression over `event`."""
    anchor_ms: int = 0
    place: tuple[float, float] | None = None
    """Latitude and longitude in degrees, for `solar`."""
    offset_ms: int = 0
    """Added to each event of `solar`; may be negative."""
    timezone: str = "UTC"
    inputs: Mapping[str, Any] = {}
    """Inputs of each run: a template over `tick`, or over `event`."""
    overlap: Overlap = "skip"
    window_ms: int = 3_600_000
    """A tick that is seen later than this is missed."""
    keep: Keep = "last"
    """Which of the ticks that are late, but within the window, still start."""
    jitter_ms: int = 0
    exclude: tuple[str, ...] = ()
    gap: Gap = "run"
    fold: Fold = "first"
    queue: str = "default"
    """The queue of the tasks that make the ticks."""


def spec_of(given: Any) -> ScheduleSpec:
    """Read one schedule as users write it: `{"cron": "30 2 * * *", "timezone": "Europe/Berlin", ...}`.

    Raises:
        ScheduleError: Something in it cannot be; `key` says which part.
    """
    if not isinstance(given, Mapping):
        raise ScheduleError("", f"expected a mapping such as {{cron: '30 2 * * *'}}, got {given!r:.80}")
    for key in given:
        if key not in KEYS:
            raise ScheduleError(str(key), f"expected one of {', '.join(KEYS)}, got {key!r:.80}")
    kinds = [kind for kind in KINDS if given.get(kind) is not None]
    if len(kinds) != 1:
        got = "neither" if not kinds else " and ".join(kinds)
        raise ScheduleError(kinds[1] if kinds else "", f"expected one of cron, every, at, solar and event, got {got}")
    kind = kinds[0]
    if kind == "event" or given.get("match") is not None:
        return _of_event(given)
    for key, owner in (("anchor", "every"), ("place", "solar"), ("offset", "solar"), ("dst", "cron")):
        if given.get(key) is not None and kind != owner:
            raise ScheduleError(key, f"expected it together with {owner} only, got it with {kind}")
    values: dict[str, Any] = {"timezone": _timezone(given.get("timezone", "UTC"))}
    if kind == "cron":
        values["cron"] = cron_of("cron", given["cron"])
    elif kind == "every":
        values["every_ms"] = _duration("every", given["every"])
        if values["every_ms"] < SHORTEST_EVERY_MS:
            raise ScheduleError("every", f"expected at least {SHORTEST_EVERY_MS}ms, got {given['every']!r}")
        values["anchor_ms"] = instant_ms("anchor", given["anchor"]) if given.get("anchor") is not None else 0
    elif kind == "at":
        values["at_ms"] = instant_ms("at", given["at"])
    else:
        values.update(_solar(given))
    values.update(_catch_up(given.get("catch_up") or {}))
    values.update(_dst(given.get("dst") or {}))
    values["overlap"] = _choice("overlap", given.get("overlap", "skip"), get_args(Overlap))
    values["jitter_ms"] = _duration("jitter", given.get("jitter", 0))
    values["exclude"] = _exclude(given.get("exclude") or ())
    values.update(_inputs_and_queue(given))
    return ScheduleSpec(**values)


def _inputs_and_queue(given: Mapping[str, Any]) -> dict[str, Any]:
    inputs, queue = given.get("inputs") or {}, given.get("queue", "default")
    if not isinstance(inputs, Mapping):
        raise ScheduleError("inputs", f"expected a mapping of input names, got {inputs!r:.80}")
    if not isinstance(queue, str) or not queue:
        raise ScheduleError("queue", f"expected the name of a queue, got {queue!r:.80}")
    return {"inputs": dict(inputs), "queue": queue}


def _of_event(given: Mapping[str, Any]) -> ScheduleSpec:
    """What is started by events."""
    for key in given:
        if key not in OF_EVENTS:
            raise ScheduleError(key, f"expected {', '.join(OF_EVENTS)} for runs that events start, got {key}")
    try:
        event = expect_event_type(given.get("event"), "event")
    except OptionError as error:
        raise ScheduleError("event", str(error).removeprefix("event: ")) from None
    match = given.get("match")
    try:
        if match is not None:
            parse_condition(str(match), {"event"})
    except ExpressionError as error:
        raise ScheduleError("match", error.message) from None
    return ScheduleSpec(event=event, match=None if match is None else str(match), **_inputs_and_queue(given))


def cron_of(key: str, text: Any) -> str:
    """A cron expression of five fields, with nicknames such as `@daily` replaced. Raises ScheduleError."""
    if not isinstance(text, str) or len(text) > 200:
        raise ScheduleError(key, f"expected a cron expression such as '30 2 * * *', got {text!r:.80}")
    expression = NICKNAMES.get(text.strip().lower(), text.strip())
    fields = expression.split()
    if len(fields) != 5:
        hint = "; use every: 30s for less than a minute" if len(fields) == 6 else ""
        raise ScheduleError(
            key, f"expected five fields (minute, hour, day of month, month, day of week), got {len(fields)}{hint}"
        )
    try:
        next(cronsim.CronSim(expression, datetime(2026, 1, 1)))
    except cronsim.CronSimError as error:
        raise ScheduleError(key, f"expected a cron expression, got {text!r:.80}: {str(error).lower()}") from None
    except (StopIteration, ValueError, AssertionError, OverflowError):
        raise ScheduleError(key, f"expected an expression that some day fits, got {text!r:.80}") from None
    return " ".join(fields)


def instant_ms(key: str, value: Any) -> int:
    """Milliseconds of an instant with a zone, as text of ISO 8601 or as an aware datetime. Raises ScheduleError."""
    found = value
    if isinstance(value, str):
        try:
            found = datetime.fromisoformat(value)
        except ValueError:
            found = None
    if not isinstance(found, datetime) or found.tzinfo is None:
        raise ScheduleError(key, f"expected an instant with its zone such as 2026-12-31T23:00:00Z, got {value!r:.80}")
    return round(found.timestamp() * 1_000)


_DATE = re.compile(r"\d{4}-\d\d-\d\d")


def _exclude(given: Any) -> tuple[str, ...]:
    if isinstance(given, (str, bytes)) or not isinstance(given, Sequence):
        raise ScheduleError("exclude", f"expected a list of dates, instants and cron expressions, got {given!r:.80}")
    found = []
    for place, one in enumerate(given):
        key = f"exclude[{place}]"
        if isinstance(one, datetime) or (isinstance(one, str) and re.match(r"\d{4}-\d\d-\d\d[T ]", one)):
            found.append(datetime.fromtimestamp(instant_ms(key, one) / 1_000, UTC).isoformat())
        elif isinstance(one, date) or (isinstance(one, str) and _DATE.fullmatch(one)):
            try:
                found.append(date.fromisoformat(str(one)).isoformat())
            except ValueError:
                raise ScheduleError(key, f"expected a date that exists, got {one!r}") from None
        else:
            found.append(cron_of(key, one))
    return tuple(found)


def _timezone(name: Any) -> str:
    try:
        zoneinfo.ZoneInfo(name)
    except (TypeError, ValueError, OSError, zoneinfo.ZoneInfoNotFoundError):
        raise ScheduleError(
            "timezone", f"expected the name of a time zone such as Europe/Berlin, got {name!r:.80}"
        ) from None
    return str(name)


def _solar(given: Mapping[str, Any]) -> dict[str, Any]:
    solar = _choice("solar", given["solar"], get_args(Solar))
    place = given.get("place")
    if not (
        isinstance(place, Sequence)
        and not isinstance(place, str)
        and len(place) == 2
        and all(isinstance(one, (int, float)) and not isinstance(one, bool) for one in place)
        and abs(place[0]) <= 90
        and abs(place[1]) <= 180
    ):
        raise ScheduleError("place", f"expected [latitude, longitude] in degrees, got {place!r:.80}")
    offset = given.get("offset", 0)
    negative = isinstance(offset, str) and offset.startswith("-")
    offset_ms = _duration("offset", offset[1:] if isinstance(offset, str) and negative else offset)
    return {
        "solar": solar,
        "place": (float(place[0]), float(place[1])),
        "offset_ms": -offset_ms if negative else offset_ms,
    }


def _catch_up(given: Any) -> dict[str, Any]:
    _keys("catch_up", given, ("window", "keep"))
    return {
        "window_ms": _duration("catch_up.window", given.get("window", "1h")),
        "keep": _choice("catch_up.keep", given.get("keep", "last"), get_args(Keep)),
    }


def _dst(given: Any) -> dict[str, Any]:
    _keys("dst", given, ("gap", "fold"))
    return {
        "gap": _choice("dst.gap", given.get("gap", "run"), get_args(Gap)),
        "fold": _choice("dst.fold", given.get("fold", "first"), get_args(Fold)),
    }


def _keys(where: str, given: Any, known: tuple[str, ...]) -> None:
    if not isinstance(given, Mapping):
        raise ScheduleError(where, f"expected a mapping with {' and '.join(known)}, got {given!r:.80}")
    for key in given:
        if key not in known:
            raise ScheduleError(f"{where}.{key}", f"expected {' or '.join(known)}, got {key!r:.80}")


def _choice(key: str, value: Any, known: tuple[str, ...]) -> str:
    if value not in known or not isinstance(value, str):
        raise ScheduleError(key, f"expected one of {', '.join(known)}, got {value!r:.80}")
    return value


def _duration(key: str, value: Any) -> int:
    try:
        return parse_duration_ms(value)
    except UnitError as error:
        raise ScheduleError(key, str(error)) from None
