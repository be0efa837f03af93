"""Watchdog of the event loop: a thread that names the handler which blocks the loop, while it does."""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import traceback
from collections import Counter
from collections.abc import Callable

from stemflow.runtime.attempt.in_flight import Running
from stemflow.runtime.worker.slots import Slots

log = logging.getLogger("stemflow.watch")

PAUSE_S = 0.05
"""How often the loop is probed."""
HELD_MS = 100
"""How long the loop may be blocked before that is reported."""
AGAIN_S = 60.0
"""The shortest time between two warnings about one handler, however many of its tasks block the loop."""
FRAMES = 12
"""Stack frames in a warning."""


class LoopWatchdog(threading.Thread):
    """Probes the event loop while handlers run, and logs a warning with the stack when it does not answer in time.

    Create it on the loop. `failed` is called on the loop with a name and the error that ended the thread.
    """

    def __init__(self, slots: Slots, failed: Callable[[str, BaseException], None]) -> None:
        super().__init__(name="stemflow-watch", daemon=True)
        self._slots, self._failed = slots, failed
        self._loop = asyncio.get_running_loop()
        self._loop_thread = threading.get_ident()
        self._stopping = threading.Event()
        self._probed_at: float | None = None
        self._warned_at: dict[str, float] = {}
        """By handler, in seconds of the loop's clock."""
        self._unreported: Counter[str] = Counter()

    def run(self) -> None:
        try:
            self._probe()
        except Exception as error:
            self._loop.call_soon_threadsafe(self._failed, "watchdog of the event loop", error)

    def _probe(self) -> None:
        reported = False
        while not self._stopping.wait(PAUSE_S):
            if self._probed_at is None:
                reported = False
                if self._slots.running:
                    self._probed_at = self._loop.time()
                    self._loop.call_soon_threadsafe(self._answered)
            elif not reported and self.held_ms() > HELD_MS:
                reported = True
                self._report()

    def _answered(self) -> None:
        self._probed_at = None

    def held_ms(self) -> int:
        """For how many milliseconds the loop has been blocked; may be called from any thread."""
        probed_at = self._probed_at
        return 0 if probed_at is None else int((self._loop.time() - probed_at) * 1_000)

    def stop(self) -> None:
        """Tell the thread to end."""
        self._stopping.set()

    def _report(self) -> None:
        task = asyncio.current_task(self._loop)
        running = next((one for one in list(self._slots.running.values()) if one.task is task), None)
        frame = sys._current_frames().get(self._loop_thread)
        if task is None or frame is None:
            return
        name, handler = _names(running, task)
        now = self._loop.time()
        if now - self._warned_at.get(handler, -AGAIN_S) < AGAIN_S:
            self._unreported[handler] += 1
            return
        self._warned_at[handler] = now
        more = self._unreported.pop(handler, 0)
        log.warning(
            "%s has held the event loop for more than %d ms, at %s:%s, and everything else waits%s; let it await, or "
            "give it isolation='process' (a plain `def` runs in a thread)\n%s",
            name, HELD_MS, frame.f_code.co_filename, frame.f_lineno,
            f" ({handler} did so {more} more times since the last warning)" if more else "",
            "".join(traceback.format_stack(frame, limit=FRAMES)),
        )  # fmt: skip


def _names(running: Running | None, task: asyncio.Task[object]) -> tuple[str, str]:
    """The name of what blocks the loop, and of its handler, by which warnings are limited."""
    if running is None or running.context is None:
        code = getattr(task.get_coro(), "__qualname__", task.get_name())
        return f"asyncio task {task.get_name()}", f"{code}"
    return running.title, f"task {running.context.name}"
