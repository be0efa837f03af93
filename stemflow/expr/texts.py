"""Functions of expressions on texts and on JSON as text."""

from __future__ import annotations

import json
import math
import re
from typing import TYPE_CHECKING, Any, NoReturn

from stemflow.expr.dates import iso
from stemflow.expr.errors import LimitRefusal, Refusal
from stemflow.expr.limits import CHARACTERS_PER_STEP, RESULT_BYTES, RESULT_DEPTH, Frame, check_result, number, walk
from stemflow.expr.operators import join_parts
from stemflow.expr.pattern import matches as found
from stemflow.expr.values import describe, gather
from stemflow.lazy_import import LazyModule

if TYPE_CHECKING:
    import hashlib
else:
    hashlib = LazyModule("hashlib")

FORMAT_WIDTH = 1000
FORMAT_PRECISION = 100
_FORMAT = re.compile(r"(?:.?[<>=^])?[-+ ]?z?#?0?(\d{0,9})[,_]?(?:\.(\d{1,9}))?[bdoxXeEfFgGs%]?", re.DOTALL)


def text(value: Any, what: str) -> str:
    """`value` if it is a text."""
    if isinstance(value, str):
        return value
    raise Refusal(f"expected a text as {what}, got {describe(value)}")


def check_format(spec: str) -> None:
    """Refuse a format that is not simple, or is wider than a line should be."""
    shape = _FORMAT.fullmatch(spec)
    if shape is None:
        raise Refusal("expected a simple format such as '.2f', '>10' or ','", "see Python's format specs")
    for size, limit in ((shape[1], FORMAT_WIDTH), (shape[2], FORMAT_PRECISION)):
        if size and int(size) > limit:
            raise LimitRefusal(f"the format asks for {int(size):,} characters, the limit is {limit:,}")


def formatted(frame: Frame, value: Any, spec: Any = "") -> str:
    """`format(value, spec)`: a text, number or boolean in Python's format."""
    check_format(text(spec, "the format"))
    if not isinstance(value, (str, int, float)):
        raise Refusal(f"expected a text, a number or a boolean to format, got {describe(value)}")
    shown = format(value, spec)
    frame.charge_text(len(shown))
    return shown


def matches(frame: Frame, value: Any, pattern: Any) -> bool:
    """`matches(text, pattern)`."""
    return found(frame, text(value, "the first argument"), text(pattern, "the pattern"))


def split(frame: Frame, value: Any, separator: Any = None, limit: Any = -1) -> list[str]:
    """`split(text, separator, most_splits)`; without a separator at runs of white space."""
    frame.charge_text(len(text(value, "the first argument")))
    if separator is None:
        parts: list[str] = value.split(None, limit)
        frame.charge(len(parts))
        return parts
    # Counted before the parts are made.
    count = value.count(text(separator, "the separator"))
    frame.charge(min(count, limit) + 1 if isinstance(limit, int) and limit >= 0 else count + 1)
    return list(value.split(separator, limit))


def join(frame: Frame, parts: Any, separator: Any = "") -> str:
    """`join(texts, separator)`."""
    if isinstance(parts, str):
        raise Refusal("expected a list of texts first, got a text", "write join(list, separator)")
    texts = [text(part, "an element to join") for part in gather(frame, parts)]
    between = len(text(separator, "the separator")) * max(0, len(texts) - 1)
    frame.charge_text(between + sum(map(len, texts)))
    return str(separator).join(texts)


def lower(frame: Frame, value: Any) -> str:
    """`lower(text)`."""
    return join_parts(frame, [text(value, "the argument").lower()])


def upper(frame: Frame, value: Any) -> str:
    """`upper(text)`."""
    return join_parts(frame, [text(value, "the argument").upper()])


def strip(frame: Frame, value: Any, characters: Any = None) -> str:
    """`strip(text, characters)`; without characters, white space."""
    frame.charge_text(len(text(value, "the first argument")))
    if characters is None:
        return str(value).strip()
    distinct = "".join(set(text(characters, "the characters")))
    # Each character of the text may be compared with each of these.
    frame.charge(len(characters) // CHARACTERS_PER_STEP + len(value) * len(distinct) // CHARACTERS_PER_STEP)
    return str(value).strip(distinct)


def replace(frame: Frame, value: Any, old: Any, new: Any) -> str:
    """`replace(text, old, new)`: every place."""
    for argument, what in ((value, "the first argument"), (old, "what to replace"), (new, "the replacement")):
        text(argument, what)
    frame.charge_text(len(value))
    frame.charge_text(len(value) + value.count(old) * (len(new) - len(old)))
    return str(value).replace(old, new)


def startswith(frame: Frame, value: Any, prefix: Any) -> bool:
    """`startswith(text, prefix)`."""
    frame.charge_text(len(text(prefix, "the prefix")))
    return text(value, "the first argument").startswith(prefix)


def endswith(frame: Frame, value: Any, suffix: Any) -> bool:
    """`endswith(text, suffix)`."""
    frame.charge_text(len(text(suffix, "the suffix")))
    return text(value, "the first argument").endswith(suffix)


def to_json(frame: Frame, value: Any) -> str:
    """`json(value)`: compact JSON, keys in their order."""
    return _written(frame, value, sort_keys=False)


def digest(frame: Frame, value: Any) -> str:
    """`hash(value)`: SHA-256 of the compact JSON with sorted keys, 64 hexadecimal digits."""
    return hashlib.sha256(_written(frame, value, sort_keys=True).encode()).hexdigest()


def _written(frame: Frame, value: Any, sort_keys: bool) -> str:
    frame.charge_value(value)
    check_result(value)
    shown = json.dumps(
        value, ensure_ascii=False, separators=(",", ":"), sort_keys=sort_keys, allow_nan=False, default=iso
    )
    frame.charge_text(len(shown))
    return shown


def from_json(frame: Frame, value: Any) -> Any:
    """`from_json(text)`: the value that a JSON text stands for."""
    source = text(value, "the argument")
    if len(source) > RESULT_BYTES:
        frame.charge_text(len(source))
    frame.charge(len(source) // 16)
    try:
        read = json.loads(source, parse_constant=_refuse_constant, parse_float=_float, parse_int=_integer)
    except json.JSONDecodeError as error:
        raise Refusal(f"the text is not JSON: {error.msg} at character {error.pos}") from None
    except RecursionError:
        raise LimitRefusal(f"the JSON is nested deeper than {RESULT_DEPTH} levels") from None
    for _ in walk(read):  # which refuses what is nested too deeply
        pass
    return read


def _refuse_constant(name: str) -> NoReturn:
    raise Refusal(f"the text is not JSON: it contains {name}")


def _float(digits: str) -> float:
    read = float(digits)
    if not math.isfinite(read):
        raise Refusal("the JSON contains a number too large for a 64-bit float")
    return read


def _integer(digits: str) -> int:
    if len(digits) > RESULT_DEPTH * 7:
        raise LimitRefusal(f"the JSON contains an integer of {len(digits):,} digits")
    return int(number(int(digits)))
