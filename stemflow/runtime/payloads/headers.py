"""Headers (text by name) and meta (JSON by name), which accompany the arguments of a task."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from stemflow.errors import OptionError
from stemflow.runtime.payloads.json_data import decode, encode

TRACE_HEADERS = ("traceparent", "tracestate")
"""W3C Trace Context; https://www.w3.org/TR/trace-context/"""


def checked_headers(headers: Mapping[str, str] | None, where: str) -> dict[str, str]:
    """The headers as given.

    Raises OptionError unless they are text by name, and NotSerializable for lone surrogates or more than 1 MiB in all.
    """
    if not headers:
        return {}
    if not isinstance(headers, Mapping):
        raise OptionError(f"{where}: headers: expected text by name, got {type(headers).__name__}")
    for name, value in headers.items():
        if not isinstance(name, str) or not isinstance(value, str):
            raise OptionError(f"{where}: headers: expected text under a name, got {name!r}: {value!r}")
    encode(dict(headers), f"{where}: headers")
    return dict(headers)


def checked_meta(meta: Mapping[str, Any] | None, where: str) -> dict[str, Any]:
    """The meta as JSON data.

    Raises OptionError for what is no mapping, and NotSerializable for what is not JSON or longer than 1 MiB.
    """
    if meta and not isinstance(meta, Mapping):
        raise OptionError(f"{where}: meta: expected JSON data by name, got {type(meta).__name__}")
    return dict(decode(encode(dict(meta), f"{where}: meta"))) if meta else {}


def merged(run: Mapping[str, Any], own: Mapping[str, Any]) -> Mapping[str, Any]:
    """The headers or meta of a run, overridden by those of one task."""
    if not own:
        return run
    return {**run, **own} if run else own


def inherited(headers: Mapping[str, str], names: Iterable[str], given: Mapping[str, str]) -> dict[str, str]:
    """The headers of a run that a task starts: those named in `names`, overridden by `given`."""
    return {name: headers[name] for name in names if name in headers} | dict(given)
