"""The messages between a worker and its processes: pickled tuples, each after its length in four bytes."""

from __future__ import annotations

import copyreg
import io
import pickle
import struct
from types import MappingProxyType
from typing import Any

from msgspec import Struct

from stemflow.model.policy import Options
from stemflow.runtime.values.binding import Call

HEAD = struct.Struct(">I")

LOAD, CALL, SOFT, CANCEL, ANSWER, EXIT = "load", "call", "soft", "cancel", "answer", "exit"
"""To the process: (LOAD, source), (CALL, job), (SOFT,), (CANCEL,), (ANSWER, number, success, value or exception),
(EXIT,)."""
READY, LOADED, ASK, ENDED = "ready", "loaded", "ask", "ended"
"""From it: (READY,), (LOADED, None or Failed), (ASK, number, method, arguments), (ENDED, outcome, bytes of memory)."""


class Job(Struct, frozen=True):
    """One call of the task that was loaded: its options, the fields of its context, and its arguments.

    `known` and `age_ms` are for the conditions of its retries, see `RetryDecider`.
    """

    options: Options
    context: dict[str, Any]
    calls: list[Call]
    chunked: bool
    known: dict[str, Any]
    age_ms: int


def read_only(content: dict[Any, Any]) -> MappingProxyType[Any, Any]:
    """Make a mapping proxy; how pickle restores one, which it cannot store by itself."""
    return MappingProxyType(content)


class _Pickler(pickle.Pickler):
    dispatch_table = copyreg.dispatch_table | {MappingProxyType: lambda proxy: (read_only, (dict(proxy),))}


def framed(message: tuple[Any, ...]) -> bytes:
    """Encode a message, with its length in front. Raises what pickle raises."""
    buffer = io.BytesIO()
    buffer.write(HEAD.pack(0))
    _Pickler(buffer, pickle.HIGHEST_PROTOCOL).dump(message)
    buffer.seek(0)
    buffer.write(HEAD.pack(buffer.getbuffer().nbytes - HEAD.size))
    return buffer.getvalue()


def opened(body: bytes) -> tuple[Any, ...]:
    """Decode the bytes that followed a length."""
    message: tuple[Any, ...] = pickle.loads(body)
    return message
