"""What a worker and its processes say to each other: pickled tuples, each after its length in four bytes."""

from __future__ import annotations

import copyreg
import io
import pickle
import struct
from types import MappingProxyType
from typing import Any

from msgspec import Struct

from stemflow.model.policy import Options
from stemflow.runtime.attempt.task_import import TaskSource
from stemflow.runtime.values.binding import Call

HEAD = struct.Struct(">I")

CALL, SOFT, CANCEL, ANSWER, BYE = "call", "soft", "cancel", "answer", "bye"
"""To the process: (CALL, job), (SOFT,), (CANCEL,), (ANSWER, number, well, value or exception), (BYE,)."""
READY, ASK, ENDED = "ready", "ask", "ended"
"""From it: (READY,), (ASK, number, what, arguments), (ENDED, outcome, bytes of memory)."""


class Job(Struct, frozen=True):
    """One call: where its task is, under which options, and what its context holds."""

    place: TaskSource
    options: Options
    context: dict[str, Any]
    calls: list[Call]
    chunked: bool


def read_only(content: dict[Any, Any]) -> MappingProxyType[Any, Any]:
    """What pickle makes a mapping proxy of, which it knows nothing of by itself."""
    return MappingProxyType(content)


class _Pickler(pickle.Pickler):
    dispatch_table = copyreg.dispatch_table | {MappingProxyType: lambda proxy: (read_only, (dict(proxy),))}


def framed(message: tuple[Any, ...]) -> bytes:
    """The bytes of a message; raises what pickle raises."""
    buffer = io.BytesIO()
    buffer.write(HEAD.pack(0))
    _Pickler(buffer, pickle.HIGHEST_PROTOCOL).dump(message)
    buffer.seek(0)
    buffer.write(HEAD.pack(buffer.getbuffer().nbytes - HEAD.size))
    return buffer.getvalue()


def opened(body: bytes) -> tuple[Any, ...]:
    """The message in the bytes that followed a length."""
    message: tuple[Any, ...] = pickle.loads(body)
    return message
