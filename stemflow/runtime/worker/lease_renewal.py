"""Keeping leases: renewal at a third of the lease from a thread, so that a handler that blocks the loop loses
nothing."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable

from stemflow.runtime.worker.worker import Worker
from stemflow.store.base import Renewed, Renewer, StoreError

log = logging.getLogger("stemflow.renew")

LONGEST_PAUSE_MS = 1_000
SHORTEST_PAUSE_MS = 50


class Plan:
    """When leases are renewed next: within a third of the shortest that is held, and at most `longest_ms` after the
    last time. `wake` is called when a lease begins that cannot wait so long."""

    def __init__(self, worker: Worker, wake: Callable[[], None], longest_ms: int) -> None:
        self.worker, self._wake, self._longest_ms = worker, wake, longest_ms
        self._pause_ms = longest_ms
        worker.leasing = self.leasing

    def pause_s(self) -> float:
        """How long the next renewal may wait from now on."""
        # A lease that begins while the others are looked through wakes whoever asks, who then asks again.
        self._pause_ms = self._longest_ms
        pauses = [_pause_ms(lease_ms) for _, _, lease_ms in _snapshot(self.worker)]
        self._pause_ms = min([self._longest_ms, *pauses])
        return self._pause_ms / 1_000

    def leasing(self, lease_ms: int) -> None:
        """A lease begins."""
        pause_ms = _pause_ms(lease_ms)
        if pause_ms < self._pause_ms:
            self._pause_ms = pause_ms
            self._wake()


def _pause_ms(lease_ms: int) -> int:
    return max(SHORTEST_PAUSE_MS, lease_ms // 3)


class RenewThread(threading.Thread):
    """Renews what the worker holds; tells it, on its loop, of leases that are gone and of nodes told to stop.

    `failed` is called on the loop with a name and the error that ended the thread.
    """

    def __init__(self, worker: Worker, renewer: Renewer, failed: Callable[[str, BaseException], None]) -> None:
        super().__init__(name="stemflow-renew", daemon=True)
        self.worker, self.renewer, self.failed = worker, renewer, failed
        self.loop = asyncio.get_running_loop()
        self._woken = threading.Event()
        self._stopping = False
        self._plan = Plan(worker, self._woken.set, LONGEST_PAUSE_MS)

    def run(self) -> None:
        try:
            while self._wait():
                self._renew()
        except Exception as error:
            self.loop.call_soon_threadsafe(self.failed, "renewal of leases", error)
        finally:
            self.renewer.close()

    def _wait(self) -> bool:
        """Until renewal is due; False if the thread is to end."""
        due = time.monotonic() + self._plan.pause_s()
        while not self._stopping and self._woken.wait(due - time.monotonic()):
            self._woken.clear()
            due = min(due, time.monotonic() + self._plan.pause_s())
        return not self._stopping

    def _renew(self) -> None:
        held = _snapshot(self.worker)
        if not held:
            return
        try:
            found = self.renewer.renew(held)
        except StoreError as error:
            log.warning("leases could not be renewed: %s", error)
            return
        if found.gone or found.stopping:
            self.loop.call_soon_threadsafe(hear, self.worker, found)

    def stop(self) -> None:
        self._stopping = True
        self._woken.set()


def _snapshot(worker: Worker) -> list[tuple[tuple[str, str], int, int]]:
    """What the worker holds, read from another thread than its own."""
    while True:
        try:
            return worker.held()
        except RuntimeError:  # the loop's thread changed the dict while it was read
            continue


def hear(worker: Worker, found: Renewed) -> None:
    """Pass what a renewal found on to the worker; runs on its loop."""
    tokens = {key: token for key, token, _ in worker.held()}
    for key, token in found.gone:
        worker.lose(key, token)
    for key, kill in found.stopping:
        if key in tokens:
            worker.tell(key, tokens[key], kill)


class RenewTask:
    """The same on the loop itself, for virtual time, where no thread may run."""

    def __init__(self, worker: Worker, renewer: Renewer, pause_ms: int) -> None:
        self.worker, self.renewer = worker, renewer
        self._woken = asyncio.Event()
        self._plan = Plan(worker, self._woken.set, pause_ms)

    async def run(self) -> None:
        time_of = asyncio.get_running_loop().time
        while True:
            due = time_of() + self._plan.pause_s()
            while await self._wake_by(due):
                due = min(due, time_of() + self._plan.pause_s())
            held = self.worker.held()
            if held:
                hear(self.worker, self.renewer.renew(held))

    async def _wake_by(self, due: float) -> bool:
        try:
            async with asyncio.timeout_at(due):
                await self._woken.wait()
        except TimeoutError:
            return False
        self._woken.clear()
        return True
