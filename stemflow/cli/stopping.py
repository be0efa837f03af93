"""Signals that stop a worker: warm, soft, hard."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any, Final

from stemflow.cli.exits import INTERRUPTED
from stemflow.cli.text import short_duration

_SIGNALS: Final = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGQUIT") if hasattr(signal, name))


class Stopping:
    """While it is entered: the first SIGINT or SIGTERM sets `warm`, the second `soft`; a third, or SIGQUIT, ends the
    process at once.

    Plain signal handlers, not the loop's, so that the last works while a task blocks the loop; they write to the file
    descriptor, since they may interrupt a write to the stream.
    """

    def __init__(self, grace_ms: int) -> None:
        self.warm, self.soft = asyncio.Event(), asyncio.Event()
        self.grace_ms = grace_ms
        self._count = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Stopping:
        self._loop = asyncio.get_running_loop()
        self._before = {number: signal.signal(number, self._on_signal) for number in _SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._count += 1
        name = signal.Signals(number).name
        if self._count > 2 or name == "SIGQUIT":
            self._say(f"{name}: exited at once; the tasks that ran here are leased again when their leases expire")
            os._exit(INTERRUPTED)
        if self._count == 1:
            self._say(f"{name}: nothing more is leased; running tasks may continue for {short_duration(self.grace_ms)}")
            return self._set(self.warm.set)
        self._say(f"{name}: running tasks are cancelled and returned to the queue, uncharged; once more exits at once")
        self._set(self.soft.set)

    def _set(self, event: Callable[[], None]) -> None:
        self._loop.call_soon_threadsafe(event)

    def _say(self, text: str) -> None:
        os.write(sys.stderr.fileno(), f"worker {os.getpid()}: {text}\n".encode())
