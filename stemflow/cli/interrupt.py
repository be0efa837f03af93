"""Ctrl-C: the first asks the command to stop, the second exits at once, even if a task blocks the event loop."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from stemflow.cli.exits import INTERRUPTED

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def interrupts(on_ask: Callable[[], None], on_leave: Callable[[], None]) -> Iterator[asyncio.Event]:
    """An event that is set by the first SIGINT or SIGTERM, after `on_ask`; the second calls `on_leave` and ends the
    process.

    Plain signal handlers, not the loop's: they run between two byte codes of a task that never awaits. So both
    callbacks may interrupt a write, and must not use a buffered stream.
    """
    loop = asyncio.get_running_loop()
    asked = asyncio.Event()
    count = 0

    def on_signal(number: int, frame: FrameType | None) -> None:
        nonlocal count
        count += 1
        if count > 1:
            on_leave()
            os._exit(INTERRUPTED)
        on_ask()
        loop.call_soon_threadsafe(asked.set)

    before = {number: signal.signal(number, on_signal) for number in _SIGNALS}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
