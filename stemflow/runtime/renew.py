"""Keeping leases: renewal at a third of the lease from a thread, so that a handler that blocks the loop loses
nothing."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable

from stemflow.runtime.worker import Worker
from stemflow.store.base import Renewed, Renewer, StoreError

log = logging.getLogger("stemflow.renew")

SHORTEST_PAUSE_S = 0.05


class RenewThread(threading.Thread):
    """Renews what the worker holds; tells it, on its loop, of leases that are gone and of nodes told to stop.

    `failed` is called on the loop with a name and the error that ended the thread.
    """

    def __init__(self, worker: Worker, renewer: Renewer, failed: Callable[[str, BaseException], None]) -> None:
        super().__init__(name="stemflow-renew", daemon=True)
        self.worker, self.renewer, self.failed = worker, renewer, failed
        self.loop = asyncio.get_running_loop()
        self.stopping = threading.Event()

    def run(self) -> None:
        try:
            self._renew()
        except Exception as error:
            self.loop.call_soon_threadsafe(self.failed, "renewal of leases", error)
        finally:
            self.renewer.close()

    def _renew(self) -> None:
        while not self.stopping.wait(self._pause_s()):
            held = _snapshot(self.worker)
            if not held:
                continue
            try:
                found = self.renewer.renew(held)
            except StoreError as error:
                log.warning("leases could not be renewed: %s", error)
                continue
            if found.gone or found.stopping:
                self.loop.call_soon_threadsafe(hear, self.worker, found)

    def _pause_s(self) -> float:
        shortest = min((lease_ms for _, _, lease_ms in _snapshot(self.worker)), default=3_000)
        return min(1.0, max(SHORTEST_PAUSE_S, shortest / 3_000))

    def stop(self) -> None:
        self.stopping.set()


def _snapshot(worker: Worker) -> list[tuple[tuple[str, str], int, int]]:
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
        self.worker, self.renewer, self.pause_ms = worker, renewer, pause_ms

    async def run(self) -> None:
        while True:
            await asyncio.sleep(self.pause_ms / 1_000)
            held = self.worker.held()
            if held:
                hear(self.worker, self.renewer.renew(held))
