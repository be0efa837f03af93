"""Encoding and decoding of JSON data; errors have the path of the value that cannot be encoded."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from enum import Enum
from typing import Any

import msgspec

from stemflow.errors import StemflowError

MAX_BYTES = 1_048_576
"""The largest value that is stored, in bytes."""
MAX_DEPTH = 64


_AS_IS = frozenset((int, bool, type(None)))
"""Types whose values are JSON in any case."""


class NotSerializable(StemflowError):
    """A value cannot be written as JSON, or is too large to be stored."""


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder()


def encode(value: Any, what: str, *, limit: int = MAX_BYTES) -> bytes:
    """Encode `value` as JSON. `what` begins the path in an error. Raises NotSerializable."""
    return written(plain(value, what), what, limit=limit)


def written(value: Any, what: str, *, limit: int = MAX_BYTES) -> bytes:
    """Encode what `plain` has returned; otherwise as `encode`."""
    try:
        encoded = _encoder.encode(value)
    except (OverflowError, ValueError, TypeError, UnicodeEncodeError) as error:
        raise NotSerializable(f"{what}: expected a JSON value, got {type(value).__name__}: {error}") from error
    return within(encoded, what, limit)


def within(encoded: bytes, what: str, limit: int) -> bytes:
    """Return `encoded`. Raises NotSerializable if it is longer than `limit` bytes."""
    if len(encoded) > limit:
        raise NotSerializable(f"{what}: expected at most {limit} bytes, got {len(encoded)}; pass a reference instead")
    return encoded


def decode(encoded: bytes | None) -> Any:
    """Decode stored JSON; None stands for null."""
    return None if encoded is None else _decoder.decode(encoded)


def plain(value: Any, what: str) -> Any:
    """Convert dataclasses, Structs, models, dates, enums and the like to JSON data.

    JSON data is returned as it is, not copied. Raises NotSerializable with the path of what cannot be converted.
    """
    return value if type(value) in _AS_IS else _plain(value, what, 0)


def _plain(value: Any, path: str, depth: int) -> Any:
    kind = type(value)
    if kind in _AS_IS:
        return value
    if kind is str:
        if not value.isascii():
            _check_text(value, path)
        return value
    if kind is float:
        if not math.isfinite(value):
            raise NotSerializable(f"{path}: expected a JSON number, got {value}; return null instead")
        return value
    if depth >= MAX_DEPTH:
        raise NotSerializable(f"{path[:80]}...: expected at most {MAX_DEPTH} levels of nesting, got more")
    if kind is list or kind is tuple:
        return _plain_list(value, path, depth)
    if kind is dict:
        return _plain_dict(value, path, depth)
    return _rich(value, path, depth)


def _plain_list(items: list[Any] | tuple[Any, ...], path: str, depth: int) -> Any:
    changed: list[Any] | None = None
    for i, item in enumerate(items):
        if type(item) in _AS_IS:
            continue
        data = _plain(item, f"{path}[{i}]", depth + 1)
        if data is not item:
            changed = list(items) if changed is None else changed
            changed[i] = data
    return items if changed is None else changed


def _plain_dict(fields: dict[Any, Any], path: str, depth: int) -> Any:
    changed: dict[str, Any] | None = None
    for key, item in fields.items():
        if type(key) is not str:
            raise NotSerializable(f"{path}: expected text as a key, got {key!r} ({type(key).__name__})")
        data = _plain(item, f"{path}.{key}", depth + 1)
        if data is not item:
            changed = dict(fields) if changed is None else changed
            changed[key] = data
    return fields if changed is None else changed


def _rich(value: Any, path: str, depth: int) -> Any:
    """JSON data of an object that is not JSON itself, by its own type."""
    if isinstance(value, Enum):
        return _plain(value.value, path, depth + 1)
    if isinstance(value, str):
        return _plain(str.__str__(value), path, depth)
    if isinstance(value, (int, float)):
        return _plain(int(value) if isinstance(value, int) else float(value), path, depth)
    if hasattr(type(value), "__pydantic_serializer__"):
        try:
            data = _dumped(value)
        except ValueError as error:
            raise NotSerializable(f"{path}: expected a model that can become JSON, got {error}") from error
        return _plain(data, path, depth + 1)
    if isinstance(value, msgspec.Struct) or (dataclasses.is_dataclass(value) and not isinstance(value, type)):
        try:
            data = msgspec.to_builtins(value, enc_hook=_dumped, str_keys=True)
        except (TypeError, ValueError, RecursionError):
            data = {name: _plain(item, f"{path}.{name}", depth + 1) for name, item in _fields(value)}
        return _plain(data, path, depth + 1)
    if isinstance(value, (list, tuple)):
        return _plain_list(list(value), path, depth)
    if isinstance(value, Mapping):
        return _plain_dict(dict(value), path, depth)
    text = _as_text(value)
    if text is None:
        kind = type(value)
        raise NotSerializable(f"{path}: expected a JSON value, got {kind.__name__}; {_advice(kind)}")
    return text


def _as_text(value: Any) -> str | None:
    """Dates, durations (ISO 8601), UUIDs, Decimals and bytes (base64) as the text that they become, else None."""
    try:
        text = msgspec.to_builtins(value)
    except (TypeError, ValueError):
        return None
    return text if isinstance(text, str) else None


def _dumped(value: Any) -> Any:
    """The JSON data of a pydantic model. Raises TypeError for everything else."""
    serializer = getattr(type(value), "__pydantic_serializer__", None)
    if serializer is None:
        raise TypeError(type(value).__name__)
    return serializer.to_python(value, mode="json", by_alias=True)


def _fields(value: Any) -> list[tuple[str, Any]]:
    if isinstance(value, msgspec.Struct):
        return [(name, getattr(value, name)) for name in value.__struct_fields__]
    return [(field.name, getattr(value, field.name)) for field in dataclasses.fields(value)]


def _check_text(value: str, path: str) -> None:
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise NotSerializable(f"{path}: expected text that UTF-8 can hold, got a lone surrogate") from error


def _advice(kind: type) -> str:
    if kind in (set, frozenset):
        return "return sorted(...) or list(...)"
    if kind.__name__ == "coroutine":
        return "await it first"
    return "use dicts, lists, text, numbers, booleans, None, dataclasses, Structs, models, dates, UUIDs or enums"
