"""Watching the event loop from a thread: a handler that holds it is named while it does."""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import traceback

from stemflow.runtime.running import Running
from stemflow.runtime.worker import Worker

log = logging.getLogger("stemflow.watch")

PAUSE_S = 0.05
HELD_MS = 100
"""How long the loop may be held before it is reported."""
AGAIN_S = 60.0
"""A task is named no more often than this."""
FRAMES = 12


class WatchThread(threading.Thread):
    """Asks the loop for a sign while handlers run, and reports whoever keeps it from answering."""

    def __init__(self, worker: Worker) -> None:
        super().__init__(name="stemflow-watch", daemon=True)
        self.worker = worker
        self.loop = asyncio.get_running_loop()
        self.loop_thread = threading.get_ident()
        self.stopping = threading.Event()
        self._asked_at: float | None = None
        self._said: dict[str, float] = {}

    def run(self) -> None:
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
        name = _name(running, task)
        if self.loop.time() - self._said.get(name, -AGAIN_S) < AGAIN_S:
            return
        self._said[name] = self.loop.time()
        log.warning(
            "%s has held the event loop for more than %d ms, at %s:%d, and everything else waits; let it await, or "
            "give it isolation='process' (a plain `def` runs in a thread)\n%s",
            name, HELD_MS, frame.f_code.co_filename, frame.f_lineno,
            "".join(traceback.format_stack(frame, limit=FRAMES)),
        )  # fmt: skip


def _name(running: Running | None, task: asyncio.Task[object]) -> str:
    if running is None or running.context is None:
        return f"asyncio task {task.get_name()}"
    return running.title
