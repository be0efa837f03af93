"""What a worker does at this instant, as text: the stack of each handler, and of each thread."""

from __future__ import annotations

import sys
import threading
import traceback
from collections.abc import Iterable, Iterator
from types import FrameType
from typing import Any, Final

from stemflow.runtime.attempt.in_flight import Running

MOST_CHARS: Final = 200_000
"""The longest text; the rest is left out."""
MOST_HANDLERS: Final = 200
"""Of so many handlers the stack is given, of those that have run longest."""


def dump_of(running: Iterable[Running], now_ms: int) -> str:
    """The stacks of handlers, the longest-running first, and of all threads of this process.

    `now_ms`: the time of the store, in epoch ms.
    """
    lines: list[str] = []
    oldest = sorted(running, key=lambda one: one.started_at_ms)
    for one in oldest[:MOST_HANDLERS]:
        lines.append(f"{one.title}, attempt {one.node.attempt + 1}, for {(now_ms - one.started_at_ms) / 1_000:.1f} s")
        lines += _of_handler(one)
    if len(oldest) > MOST_HANDLERS:
        lines.append(f"and {len(oldest) - MOST_HANDLERS:,} more")
    if not oldest:
        lines.append("no handler runs")
    lines += _of_threads()
    text = "\n".join(lines)
    return text if len(text) <= MOST_CHARS else text[:MOST_CHARS] + "\n... (the rest is left out)"


def _of_handler(running: Running) -> list[str]:
    if running.pool_process is not None:
        return [f"  in process {running.pool_process.process.pid} of the pool"]
    if running.thread is not None:
        return ["  in a thread, see below"]
    if running.task is None:
        return []
    return [line.rstrip() for line in traceback.format_list(_summary(running.task.get_coro()))]


def _summary(coroutine: Any) -> traceback.StackSummary:
    """The frames from a coroutine down to what it awaits."""
    frames = []
    while coroutine is not None:
        frame = getattr(coroutine, "cr_frame", None) or getattr(coroutine, "gi_frame", None)
        if frame is not None:
            frames.append((frame, frame.f_lineno))
        coroutine = getattr(coroutine, "cr_await", None) or getattr(coroutine, "gi_yieldfrom", None)
    return traceback.StackSummary.extract(iter(frames))


def _of_threads() -> Iterator[str]:
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    for ident, frame in sys._current_frames().items():
        if not _is_idle(frame):
            yield f"thread {names.get(ident, ident)}"
            for line in traceback.format_stack(frame):
                yield line.rstrip()



def _is_idle(frame: FrameType) -> bool:
    """Whether a thread of the pool waits for its next call."""
    return frame.f_code.co_name == "_worker" and "concurrent" in frame.f_code.co_filename
