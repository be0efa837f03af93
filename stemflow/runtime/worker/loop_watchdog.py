"""Watching the event loop from a thread: a handler that holds it is named while it does."""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import traceback
from collections import Counter
from collections.abc import Callable

from stemflow.runtime.attempt.in_flight import Running
from stemflow.runtime.worker.worker import Worker

log = logging.getLogger("stemflow.watch")

PAUSE_S = 0.05
HELD_MS = 100
"""How long the loop may be held before it is reported."""
AGAIN_S = 60.0
"""A handler is named no more often than this, however many of its tasks hold the loop."""
FRAMES = 12


class WatchThread(threading.Thread):
    """Asks the loop for a sign while handlers run, and reports whoever keeps it from answering.

    `failed` is called on the loop with a name and the error that ended the thread.
    """

    def __init__(self, worker: Worker, failed: Callable[[str, BaseException], None]) -> None:
        super().__init__(name="stemflow-watch", daemon=True)
        self.worker, self.failed = worker, failed
        self.loop = asyncio.get_running_loop()
        self.loop_thread = threading.get_ident()
        self.stopping = threading.Event()
        self._asked_at: float | None = None
        self._said_at: dict[str, float] = {}
        """By handler."""
        self._unsaid: Counter[str] = Counter()

    def run(self) -> None:
        try:
            self._ask()
        except Exception as error:
            self.loop.call_soon_threadsafe(self.failed, "watch over the event loop", error)

    def _ask(self) -> None:
        reported = False
        while not self.stopping.wait(PAUSE_S):
            if self._asked_at is None:
                reported = False
                if self.worker.running:
                    self._asked_at = self.loop.time()
                    self.loop.call_soon_threadsafe(self._answer)
            elif not reported and self.held_ms() > HELD_MS:
                reported = True
                self._report()

    def _answer(self) -> None:
        self._asked_at = None

    def held_ms(self) -> int:
        """For how long the loop has not answered."""
        asked_at = self._asked_at
        return 0 if asked_at is None else int((self.loop.time() - asked_at) * 1_000)

    def stop(self) -> None:
        self.stopping.set()

    def _report(self) -> None:
        task = asyncio.current_task(self.loop)
        running = next((one for one in list(self.worker.running.values()) if one.task is task), None)
        frame = sys._current_frames().get(self.loop_thread)
        if task is None or frame is None:
            return
        name, handler = _names(running, task)
        now = self.loop.time()
        if now - self._said_at.get(handler, -AGAIN_S) < AGAIN_S:
            self._unsaid[handler] += 1
            return
        self._said_at[handler] = now
        more = self._unsaid.pop(handler, 0)
        log.warning(
            "%s has held the event loop for more than %d ms, at %s:%d, and everything else waits%s; let it await, or "
            "give it isolation='process' (a plain `def` runs in a thread)\n%s",
            name, HELD_MS, frame.f_code.co_filename, frame.f_lineno,
            f" ({handler} did so {more} times since it was last told of)" if more else "",
            "".join(traceback.format_stack(frame, limit=FRAMES)),
        )  # fmt: skip


def _names(running: Running | None, task: asyncio.Task[object]) -> tuple[str, str]:
    """Who it is, and of which kind; the tasks of one handler are told of once in a while, however many there are."""
    if running is None or running.context is None:
        code = getattr(task.get_coro(), "__qualname__", task.get_name())
        return f"asyncio task {task.get_name()}", f"{code}"
    return running.title, f"task {running.context.name}"
