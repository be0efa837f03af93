"""Unique keys and concurrency keys of calls."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from msgspec import structs

from stemflow.errors import OptionError
from stemflow.expr import parse_template
from stemflow.model.policy import Options
from stemflow.runtime.payloads.json_data import decode, encode

Call = tuple[Sequence[Any], Mapping[str, Any]]
"""(positional arguments, keyword arguments)."""


def named(options: Options, call: Call) -> dict[str, Any]:
    """The arguments of a complete call by the names of the handler's parameters, with the defaults of those not given.

    Positional arguments beyond the named parameters are left out.
    """
    given = dict(zip(options.params, call[0], strict=False)) | dict(call[1])
    return {**_defaults(options.defaults), **given} if options.defaults else given


@lru_cache(1_024)
def _defaults(text: str) -> dict[str, Any]:
    return dict(decode(text.encode()))


def unique_key(task: str, options: Options, calls: Sequence[Call], texts: Sequence[Any] = ()) -> str:
    """The unique key of a task; `texts` are the values of its `unique_by`, one for each call.

    Without `unique_by`: SHA-256 of the canonical (name, queue, arguments); never headers, ids or times. Equal calls
    have one key: arguments by position or by name, defaults written out or not, 1 or 1.0.
    """
    if options.unique_key is not None:
        return f"unique:{task}:{options.unique_key}"
    if options.unique_by is not None:
        return f"unique:{task}:{','.join(map(key_text, texts))}"
    plain = [[named(options, call), list(call[0][len(options.params) :])] for call in calls]
    canonical = encode([task, options.queue, _canonical(plain)], f"arguments of {task}", limit=1 << 40)
    return f"unique:{task}:{hashlib.sha256(canonical).hexdigest()}"


def lone_key(task: str, options: Options, call: Call) -> str:
    """The unique key of a task alone, whose arguments are all known."""
    texts = []
    if options.unique_by is not None:
        texts.append(parse_template(options.unique_by, {"args"})({"args": named(options, call)}))
    return unique_key(task, options, [call], texts)


def concurrency_key(text: Any, default: str) -> str:
    """The concurrency key that is written as `text`; all who write the same share it."""
    return f"concurrency:{key_text(text) or default}"


def key_text(value: Any) -> str:
    """A value as part of a key: text as it is, anything else as canonical JSON."""
    return value if isinstance(value, str) else encode(_canonical(value), "a key").decode()


def with_evaluated_key(task: str, options: Options, call: Call) -> Options:
    """The options with the key in place of `unique_by`, if that is a function. Raises OptionError if it raises."""
    key_of: Any = options.unique_by
    if not callable(key_of):
        return options
    # Defaults are left out: a call in a canvas may get the value of another step in their place.
    arguments = dict(zip(options.params, call[0], strict=False)) | dict(call[1])
    try:
        key = key_text(key_of(arguments))
    except Exception as error:
        raise OptionError(
            f"task {task}: unique_by: the function raised {type(error).__name__}: {error}; it is called at submission, "
            f"with the arguments that are known then: {', '.join(arguments) or 'none'}; "
            "write an expression over `args` where the result of another step is one of them"
        ) from error
    return structs.replace(options, unique_by=None, unique_key=key)


def _canonical(value: Any) -> Any:
    """JSON data with sorted keys, and numbers that are whole as integers."""
    if isinstance(value, dict):
        return {key: _canonical(value[key]) for key in sorted(value)}
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return int(value)
    return [_canonical(item) for item in value] if isinstance(value, (list, tuple)) else value
