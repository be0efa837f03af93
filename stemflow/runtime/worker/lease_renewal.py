"""Lease renewal at a third of the lease, from a thread: a handler that blocks the event loop loses no lease."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable

from stemflow.model.records import Key
from stemflow.runtime.tasks.context import TaskCancelled, TaskContext
from stemflow.runtime.worker.slots import Slots
from stemflow.store.base import Renewed, Renewer, Store, StoreError

log = logging.getLogger("stemflow.renew")

LONGEST_PAUSE_MS = 1_000
"""The longest time between two renewals, and so until a handler learns that its run was cancelled."""
VIRTUAL_PAUSE_MS = 3_000
"""The same in virtual time, where each renewal is a step of the simulation."""
SHORTEST_PAUSE_MS = 50
LONGEST_FAILURE_PAUSE_S = 5.0
"""The longest pause after a failure of renewal itself."""


class RenewalSchedule:
    """When leases are renewed next: within a third of the shortest that is held, at most `longest_ms` after the last.

    `wake` is called, on the event loop, when a new lease cannot wait for the renewal that is planned.
    """

    def __init__(self, slots: Slots, wake: Callable[[], None], longest_ms: int) -> None:
        self._slots, self._wake, self._longest_ms = slots, wake, longest_ms
        self._pause_ms = longest_ms

    def pause_s(self) -> float:
        """Seconds from now until the next renewal is due."""
        # A lease that starts while the others are looked through calls `wake`, and then this is asked again.
        self._pause_ms = self._longest_ms
        pauses = [_pause_ms(lease_ms) for _, _, lease_ms in _snapshot(self._slots, 0)]
        self._pause_ms = min([self._longest_ms, *pauses])
        return self._pause_ms / 1_000

    def lease_started(self, lease_ms: int) -> None:
        """Take note of a new lease of `lease_ms` milliseconds."""
        pause_ms = _pause_ms(lease_ms)
        if pause_ms < self._pause_ms:
            self._pause_ms = pause_ms
            self._wake()


def _pause_ms(lease_ms: int) -> int:
    return max(SHORTEST_PAUSE_MS, lease_ms // 3)


def _snapshot(slots: Slots, loop_held_ms: int) -> list[tuple[Key, int, int]]:
    """The leases to renew, read from another thread than the event loop's."""
    while True:
        try:
            return slots.held(loop_held_ms)
        except RuntimeError:  # the loop's thread changed the dict while it was read
            continue


def apply_renewal(slots: Slots, found: Renewed) -> None:
    """Cancel the handlers whose lease was lost, and forward stop requests to the others. Runs on the event loop."""
    tokens = dict(slots.running)
    for key, token in found.gone:
        slots.lose(key, token)
    for key, kill in found.stopping:
        for held, token in tokens:
            if held == key:
                slots.stop(key, token, kill)


class Renewals:
    """Renews single leases at once, when a handler asks for it."""

    def __init__(self, slots: Slots, store: Store) -> None:
        self._slots, self._store = slots, store
        self._renewer: Renewer | None = None

    def renewer(self) -> Renewer:
        """The store's connection for renewals; opened when it is first asked for. The store must be open."""
        if self._renewer is None:
            self._renewer = self._store.renewer()
        return self._renewer

    def renew_now(self, context: TaskContext, for_ms: int) -> None:
        """Renew the lease of one handler for at least `for_ms` milliseconds.

        Raises TaskCancelled if the lease is gone or the run was stopped, and StoreError.
        """
        running = self._slots.running.get(((context.run_id, context.node), context.delivery))
        if running is None:
            raise TaskCancelled(f"task {context.id}: its lease is gone; nothing that it reports counts any more")
        running.keep_for(for_ms)
        found = self.renewer().renew([running.held()])
        apply_renewal(self._slots, found)
        if found.gone or any(kill for _, kill in found.stopping):
            raise TaskCancelled(f"task {context.id}: its run was cancelled")


class RenewalThread(threading.Thread):
    """Renews all leases of a worker; applies on the event loop what it learns of lost leases and stopped nodes.

    `woken` is the event that the schedule sets. `loop_held_ms` gives how long the event loop has been blocked.
    A failure is logged, `on_error` is called with it on the event loop, and renewal goes on after a growing pause.
    """

    def __init__(
        self,
        slots: Slots,
        renewer: Renewer,
        schedule: RenewalSchedule,
        woken: threading.Event,
        loop_held_ms: Callable[[], int],
        on_error: Callable[[BaseException], None],
    ) -> None:
        super().__init__(name="stemflow-renew", daemon=True)
        self._slots, self._renewer, self._schedule, self._woken = slots, renewer, schedule, woken
        self._loop_held_ms, self._on_error = loop_held_ms, on_error
        self._failures = 0
        self._stopped = threading.Event()
        self._loop = asyncio.get_running_loop()
        self._stopping = False

    def run(self) -> None:
        try:
            while self._wait():
                self._renew_or_pause()
        finally:
            self._renewer.close()

    def _renew_or_pause(self) -> None:
        try:
            self._renew()
            self._failures = 0
        except Exception as error:
            pause_s = min(LONGEST_FAILURE_PAUSE_S, 0.1 * 2**self._failures)
            self._failures = min(self._failures + 1, 10)
            log.error("renewal of leases has failed; it goes on in %.1f s", pause_s, exc_info=error)
            if not self._loop.is_closed():
                self._loop.call_soon_threadsafe(self._on_error, error)
            self._stopped.wait(pause_s)

    def _wait(self) -> bool:
        """Wait until renewal is due; return False if the thread is to end."""
        due = time.monotonic() + self._schedule.pause_s()
        while not self._stopping and self._woken.wait(due - time.monotonic()):
            self._woken.clear()
            due = min(due, time.monotonic() + self._schedule.pause_s())
        return not self._stopping

    def _renew(self) -> None:
        held = _snapshot(self._slots, self._loop_held_ms())
        if not held:
            return
        try:
            found = self._renewer.renew(held)
        except StoreError as error:
            log.warning("leases could not be renewed: %s", error)
            return
        if found.gone or found.stopping:
            self._loop.call_soon_threadsafe(apply_renewal, self._slots, found)

    def stop(self) -> None:
        """Tell the thread to end; it closes its renewer."""
        self._stopping = True
        self._stopped.set()
        self._woken.set()


class RenewalTask:
    """The same on the event loop itself, for virtual time, where no thread may run."""

    def __init__(self, slots: Slots, renewer: Renewer, schedule: RenewalSchedule, woken: asyncio.Event) -> None:
        self._slots, self._renewer, self._schedule, self._woken = slots, renewer, schedule, woken

    async def run(self) -> None:
        """Renew until cancelled, and close the renewer then."""
        try:
            await self._run()
        except asyncio.CancelledError:
            self._renewer.close()
            raise

    async def _run(self) -> None:
        time_of = asyncio.get_running_loop().time
        while True:
            due = time_of() + self._schedule.pause_s()
            while await self._wake_by(due):
                due = min(due, time_of() + self._schedule.pause_s())
            held = self._slots.held()
            if held:
                apply_renewal(self._slots, self._renewer.renew(held))

    async def _wake_by(self, due: float) -> bool:
        try:
            async with asyncio.timeout_at(due):
                await self._woken.wait()
        except TimeoutError:
            return False
        self._woken.clear()
        return True
