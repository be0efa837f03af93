"""Values at the border: strict JSON in and out, with the path of whatever is not JSON."""

from __future__ import annotations

import math
from typing import Any

import msgspec

from stemflow.errors import StemflowError

MAX_BYTES = 1_048_576
"""The largest value that is stored, in bytes."""
MAX_DEPTH = 64


class NotSerializable(StemflowError):
    """A value cannot be written as JSON, or is too large to be stored."""


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder()


def encode(value: Any, what: str, *, limit: int = MAX_BYTES) -> bytes:
    """JSON bytes of `value`; raises NotSerializable with the path of the value that is not JSON. `what` begins it."""
    kind = type(value)
    if kind is not int and kind is not bool and value is not None:
        _check(value, what, 0)
    try:
        encoded = _encoder.encode(value)
    except (OverflowError, ValueError, TypeError, UnicodeEncodeError) as error:
        raise NotSerializable(f"{what}: expected a JSON value, got {kind.__name__}: {error}") from error
    if len(encoded) > limit:
        raise NotSerializable(
            f"{what}: expected at most {limit} bytes of JSON, got {len(encoded)}; pass a reference instead"
        )
    return encoded


def decode(encoded: bytes | None) -> Any:
    """The value of stored JSON; None is null."""
    return None if encoded is None else _decoder.decode(encoded)


def _check(value: Any, path: str, depth: int) -> None:
    kind = type(value)
    if kind is str:
        if not value.isascii():
            _check_text(value, path)
    elif kind is float:
        if not math.isfinite(value):
            raise NotSerializable(f"{path}: expected a JSON number, got {value}; return null instead")
    elif kind is list or kind is tuple:
        _check_depth(path, depth)
        for i, item in enumerate(value):
            _check(item, f"{path}[{i}]", depth + 1) if type(item) is not int else None
    elif kind is dict:
        _check_depth(path, depth)
        for key, item in value.items():
            if type(key) is not str:
                raise NotSerializable(f"{path}: expected text as a key, got {key!r} ({type(key).__name__})")
            _check(item, f"{path}.{key}", depth + 1)
    elif value is not None and kind is not int and kind is not bool:
        raise NotSerializable(f"{path}: expected a JSON value, got {kind.__name__}; {_advice(kind)}")


def _check_text(value: str, path: str) -> None:
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise NotSerializable(f"{path}: expected text that UTF-8 can hold, got a lone surrogate") from error


def _check_depth(path: str, depth: int) -> None:
    if depth >= MAX_DEPTH:
        raise NotSerializable(f"{path[:80]}...: expected at most {MAX_DEPTH} levels of nesting, got more")


def _advice(kind: type) -> str:
    if kind in (set, frozenset):
        return "return sorted(...) or list(...)"
    if kind.__name__ == "coroutine":
        return "await it first"
    return "return plain dicts, lists, text, numbers, booleans or None"
