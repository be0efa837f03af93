"""JSON values as expressions see them: their names in sentences, and access by field and index."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from heapq import nsmallest
from itertools import islice
from typing import TYPE_CHECKING, Any

from stemflow.expr import dates
from stemflow.expr.errors import Refusal
from stemflow.expr.limits import Frame
from stemflow.lazy_import import LazyModule

if TYPE_CHECKING:
    import difflib
else:
    difflib = LazyModule("difflib")

LISTED = 12
COMPARED, CANDIDATES = 60, 200
"""Characters of a name, and names, that are compared for a hint: comparing takes time by the product of lengths."""


class Missing:
    """The answer of a lazy path that leads nowhere; never leaves `get()` and `has()`."""


MISSING = Missing()


def describe(value: Any) -> str:
    """What `value` is, in a sentence, without showing it."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "a boolean"
    if isinstance(value, (int, float)):
        return "a number"
    if isinstance(value, str):
        return "a text"
    if isinstance(value, list):
        return "a list"
    if isinstance(value, Mapping):
        return "an object"
    if isinstance(value, Iterator):
        return "a generator"
    return dates.kind(value) or f"a {type(value).__name__}"


def listing(names: Iterable[Any]) -> str:
    """The names, sorted and cut to a readable number."""
    texts = [str(name)[:60] for name in names]
    shown = ", ".join(nsmallest(LISTED, texts))
    rest = len(texts) - LISTED
    return f"{shown} and {rest} more" if rest > 0 else shown or "nothing"


def did_you_mean(name: str, names: Collection[Any]) -> str | None:
    """A hint with the closest of `names`, if one is close."""
    candidates = [str(known)[:COMPARED] for known in islice(names, CANDIDATES)]
    near = difflib.get_close_matches(name[:COMPARED], candidates, 1)
    return f"did you mean '{near[0]}'?" if near and near[0] != name[:COMPARED] else None


def field(value: Any, name: str) -> Any:
    """`value.name`, which is the key `name` of an object."""
    if isinstance(value, Mapping):
        if name in value:
            return value[name]
        raise missing_key(value, name)
    raise Refusal(f"expected an object with the key '{name[:60]}', got {describe(value)}")


def missing_key(value: Mapping[str, Any], name: str) -> Refusal:
    """What to say of a key that is not there."""
    near = did_you_mean(name, value)
    return Refusal(
        f"there is no key '{name[:60]}'; the keys here are: {listing(value)}",
        near or "write get(path, default) where it may be missing",
    )


def index(value: Any, key: Any) -> Any:
    """`value[key]` of a list, a text or an object."""
    if isinstance(value, (list, str)):
        if not isinstance(key, int):
            raise Refusal(f"expected a whole number as the index of {describe(value)}, got {describe(key)}")
        if not -len(value) <= key < len(value):
            raise Refusal(f"index {key} is outside {describe(value)} of length {len(value)}")
        return value[key]
    if isinstance(value, Mapping):
        if not isinstance(key, str):
            raise Refusal(f"expected a text as the key of an object, got {describe(key)}")
        return field(value, key)
    raise Refusal(f"expected a list, a text or an object before '[...]', got {describe(value)}")


def soft_field(value: Any, name: str) -> Any:
    """`value.name`, or MISSING."""
    if isinstance(value, Mapping) and name in value:
        return value[name]
    return MISSING


def soft_index(value: Any, key: Any) -> Any:
    """`value[key]`, or MISSING."""
    if isinstance(value, (list, str)) and isinstance(key, int) and -len(value) <= key < len(value):
        return value[key]
    return soft_field(value, key) if isinstance(key, str) else MISSING


def cut(frame: Frame, value: Any, start: Any, stop: Any, step: Any) -> Any:
    """`value[start:stop:step]` of a list or a text."""
    if not isinstance(value, (list, str)):
        raise Refusal(f"expected a list or a text before '[a:b]', got {describe(value)}")
    bounds = slice(start, stop, step)
    if not all(part is None or isinstance(part, int) for part in (start, stop, step)):
        raise Refusal("expected whole numbers in '[a:b]'")
    length = len(range(*bounds.indices(len(value))))
    if isinstance(value, str):
        frame.charge_text(length)
    else:
        frame.charge(length)
    return value[bounds]


def elements(value: Any) -> Iterable[Any]:
    """What a loop over `value` visits: elements, keys of an object, characters of a text."""
    if isinstance(value, (list, str, Mapping, Iterator)):
        return value
    raise Refusal(f"expected a list, got {describe(value)}")


def gather(frame: Frame, value: Any) -> list[Any]:
    """`value` as a list that may be read at leisure: a generator is run, a list is not copied."""
    found = elements(value)
    if isinstance(found, Iterator):
        return list(found)  # a generator charges for itself
    listed = found if isinstance(found, list) else list(found)
    frame.charge(len(listed))
    return listed
