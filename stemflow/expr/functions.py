"""The fixed table of functions that an expression may call."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from stemflow.expr import dates, texts
from stemflow.expr.errors import LimitRefusal, Refusal
from stemflow.expr.limits import Frame, number
from stemflow.expr.values import describe, elements, gather

ROUND_DIGITS = 300


@dataclass(frozen=True, slots=True)
class Function:
    """One row of the table: how to call it, and with how many arguments."""

    call: Callable[..., Any]
    usage: str
    least: int
    most: int | None
    keywords: frozenset[str] = frozenset()
    clock: bool = False
    """Whether it reads the run's clock: the instant comes after the frame."""


def _len(frame: Frame, value: Any) -> int:
    if isinstance(value, (str, list, Mapping)):
        return len(value)
    raise Refusal(f"expected a list, a text or an object, got {describe(value)}")


def _choices(frame: Frame, values: tuple[Any, ...]) -> list[Any]:
    """The candidates of `min` and `max`: one list, or the arguments themselves."""
    found = gather(frame, values[0]) if len(values) == 1 else list(values)
    frame.charge_value(found)
    return found


def _min(frame: Frame, *values: Any, **default: Any) -> Any:
    return min(_choices(frame, values), **default)


def _max(frame: Frame, *values: Any, **default: Any) -> Any:
    return max(_choices(frame, values), **default)


def _sum(frame: Frame, values: Any, start: Any = 0) -> Any:
    found = gather(frame, values)
    for value in (*found, start):
        if not isinstance(value, (int, float)):
            raise Refusal(f"expected numbers to sum, got {describe(value)}")
    return number(sum(found, start))


def _sorted(frame: Frame, values: Any, reverse: Any = False) -> list[Any]:
    found = gather(frame, values)
    frame.charge_value(found)
    return sorted(found, reverse=bool(reverse))


def _any(frame: Frame, values: Any) -> bool:
    return any(_visited(frame, values))


def _all(frame: Frame, values: Any) -> bool:
    return all(_visited(frame, values))


def _visited(frame: Frame, values: Any) -> Any:
    """The elements, charged for; a generator stays lazy, as it charges for itself."""
    found = elements(values)
    if isinstance(found, (list, str, Mapping)):
        frame.charge(len(found))
    return found


def _numeric(value: Any) -> Any:
    if isinstance(value, (int, float)):
        return value
    raise Refusal(f"expected a number, got {describe(value)}")


def _abs(frame: Frame, value: Any) -> Any:
    return abs(_numeric(value))


def _round(frame: Frame, value: Any, digits: Any = None) -> Any:
    if digits is not None and not (isinstance(digits, int) and -ROUND_DIGITS <= digits <= ROUND_DIGITS):
        raise Refusal(f"expected a whole number of digits between -{ROUND_DIGITS} and {ROUND_DIGITS}")
    return number(round(_numeric(value), digits))


def _range(frame: Frame, *bounds: Any) -> list[int]:
    numbers = range(*bounds)
    size = max(0, -((numbers.start - numbers.stop) // numbers.step))
    if size > frame.left:
        raise LimitRefusal(f"a range of {size:,} numbers needs more than {frame.steps:,} steps")
    frame.charge(size)
    return list(numbers)


def _zip(frame: Frame, *lists: Any) -> list[list[Any]]:
    return [list(row) for row in zip(*(gather(frame, values) for values in lists), strict=False)]


def _enumerate(frame: Frame, values: Any, start: Any = 0) -> list[list[Any]]:
    return [list(row) for row in enumerate(gather(frame, values), start)]


def _object(value: Any) -> Mapping[str, Any]:
    if isinstance(value, Mapping):
        return value
    raise Refusal(f"expected an object, got {describe(value)}")


def _keys(frame: Frame, value: Any) -> list[Any]:
    return gather(frame, list(_object(value)))


def _values(frame: Frame, value: Any) -> list[Any]:
    return gather(frame, list(_object(value).values()))


def _first(frame: Frame, values: Any, *default: Any) -> Any:
    for value in elements(values):
        return value
    if default:
        return default[0]
    raise Refusal("the list is empty", "write first(list, default)")


def _merge(frame: Frame, *objects: Any) -> dict[str, Any]:
    merged: dict[str, Any] = {}
    for value in objects:
        frame.charge(len(_object(value)))
        merged.update(value)
    return merged


FUNCTIONS: dict[str, Function] = {
    "len": Function(_len, "len(value)", 1, 1),
    "min": Function(_min, "min(list) or min(a, b, ...)", 1, None, frozenset({"default"})),
    "max": Function(_max, "max(list) or max(a, b, ...)", 1, None, frozenset({"default"})),
    "sum": Function(_sum, "sum(numbers, start)", 1, 2, frozenset({"start"})),
    "sorted": Function(_sorted, "sorted(list, reverse=true)", 1, 1, frozenset({"reverse"})),
    "any": Function(_any, "any(list)", 1, 1),
    "all": Function(_all, "all(list)", 1, 1),
    "abs": Function(_abs, "abs(number)", 1, 1),
    "round": Function(_round, "round(number, digits)", 1, 2),
    "range": Function(_range, "range(stop) or range(start, stop, step)", 1, 3),
    "zip": Function(_zip, "zip(list, list, ...)", 1, None),
    "enumerate": Function(_enumerate, "enumerate(list, start=1)", 1, 2, frozenset({"start"})),
    "keys": Function(_keys, "keys(object)", 1, 1),
    "values": Function(_values, "values(object)", 1, 1),
    "first": Function(_first, "first(list, default)", 1, 2),
    "merge": Function(_merge, "merge(object, object, ...)", 1, None),
    "matches": Function(texts.matches, "matches(text, pattern)", 2, 2),
    "split": Function(texts.split, "split(text, separator, most_splits)", 1, 3),
    "join": Function(texts.join, "join(list, separator)", 1, 2),
    "lower": Function(texts.lower, "lower(text)", 1, 1),
    "upper": Function(texts.upper, "upper(text)", 1, 1),
    "strip": Function(texts.strip, "strip(text, characters)", 1, 2),
    "replace": Function(texts.replace, "replace(text, old, new)", 3, 3),
    "startswith": Function(texts.startswith, "startswith(text, prefix)", 2, 2),
    "endswith": Function(texts.endswith, "endswith(text, suffix)", 2, 2),
    "format": Function(texts.formatted, "format(value, spec)", 1, 2),
    "now": Function(dates.now, "now()", 0, 0, clock=True),
    "today": Function(dates.today, "today(zone)", 0, 1, clock=True),
    "date": Function(dates.read_date, "date(text, zone)", 1, 2),
    "duration": Function(dates.duration, "duration(text)", 1, 1),
    "format_date": Function(dates.format_date, "format_date(date, format, zone)", 1, 3),
    "json": Function(texts.to_json, "json(value)", 1, 1),
    "from_json": Function(texts.from_json, "from_json(text)", 1, 1),
    "hash": Function(texts.digest, "hash(value)", 1, 1),
}

DATE_FUNCTIONS = frozenset({"now", "today", "date", "duration"})

# Compiled by hand because their first argument is read lazily.
LAZY = {"has": "has(path)", "get": "get(path, default)"}
FUNCTION_NAMES = frozenset(FUNCTIONS) | frozenset(LAZY)

# What to write instead of builtins that people reach for.
INSTEAD = {
    "str": 'write f"{value}"',
    "int": "write round(number), or from_json(text)",
    "float": "write from_json(text)",
    "bool": "write not not value",
    "list": "write [x for x in value]",
    "dict": "write {key: value for ...}",
    "map": "write [... for x in list]",
    "filter": "write [x for x in list if ...]",
    "reversed": "write list[::-1]",
    "exists": "write has(path)",
    "contains": "write part in whole",
    "length": "write len(value)",
    "size": "write len(value)",
    "items": "write [[key, value] for key, value in zip(keys(object), values(object))]",
    "to_json": "write json(value)",
    "toJSON": "write json(value)",
    "fromJSON": "write from_json(text)",
}
