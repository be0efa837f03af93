"""Keys of calls: what makes two calls the same, and what may not run at the same time."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import structs

from stemflow.errors import OptionError
from stemflow.expr import parse_template
from stemflow.model.policy import Options
from stemflow.runtime.payloads.json_data import encode

Call = tuple[Sequence[Any], Mapping[str, Any]]
"""(positional arguments, keyword arguments)."""


def named(params: Sequence[str], call: Call) -> dict[str, Any]:
    """The arguments by the names of the handler's parameters; positional ones beyond those are left out."""
    return dict(zip(params, call[0], strict=False)) | dict(call[1])


def unique_key(task: str, options: Options, calls: Sequence[Call], texts: Sequence[Any] = ()) -> str:
    """The unique key of a task; `texts` are the values of its `unique_by`, one for each call.

    Without `unique_by`: SHA-256 of the canonical (name, queue, arguments); never headers, ids or times.
    """
    if options.unique_key is not None:
        return f"unique:{task}:{options.unique_key}"
    if options.unique_by is not None:
        return f"unique:{task}:{','.join(map(key_text, texts))}"
    plain = [[named(options.params, call), list(call[0][len(options.params) :])] for call in calls]
    canonical = encode([task, options.queue, _sorted(plain)], f"arguments of {task}", limit=1 << 40)
    return f"unique:{task}:{hashlib.sha256(canonical).hexdigest()}"


def lone_key(task: str, options: Options, call: Call) -> str:
    """The unique key of a task alone, whose arguments are all known."""
    texts = []
    if options.unique_by is not None:
        texts.append(parse_template(options.unique_by, {"args"})({"args": named(options.params, call)}))
    return unique_key(task, options, [call], texts)


def concurrency_key(text: Any, default: str) -> str:
    """The concurrency key that is written as `text`; all who write the same share it."""
    return f"concurrency:{key_text(text) or default}"


def key_text(value: Any) -> str:
    """A value as part of a key: text as it is, anything else as canonical JSON."""
    return value if isinstance(value, str) else encode(_sorted(value), "a key").decode()


def judged(task: str, options: Options, call: Call) -> Options:
    """The options with the answer of `unique_by` where that is a function of the arguments."""
    judge: Any = options.unique_by
    if not callable(judge):
        return options
    arguments = named(options.params, call)
    try:
        key = key_text(judge(arguments))
    except Exception as error:
        raise OptionError(
            f"task {task}: unique_by: the function raised {type(error).__name__}: {error}; it is called at submission, "
            f"with the arguments that are known then: {', '.join(arguments) or 'none'}; "
            "write an expression over `args` where the result of another step is one of them"
        ) from error
    return structs.replace(options, unique_by=None, unique_key=key)


def _sorted(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _sorted(value[key]) for key in sorted(value)}
    return [_sorted(item) for item in value] if isinstance(value, (list, tuple)) else value
