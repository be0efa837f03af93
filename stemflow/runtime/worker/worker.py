"""The worker: runs the handler of each lease and reports its outcome."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import Any

from stemflow.model.facts import Damaged, Distrusted, Ended, Failed, HandedBack, Lost, Ok, Outcome
from stemflow.model.records import ErrorInfo, Node, task_id
from stemflow.runtime.attempt.in_flight import LeaseCallbacks, Running
from stemflow.runtime.attempt.process_pool import Crashed, Processes, ProcessPool
from stemflow.runtime.attempt.runner import (
    Attempts,
    OwnTasks,
    PausedMs,
    Unregistered,
    hand_back_unknown,
    never_paused,
    no_own_tasks,
    no_state,
)
from stemflow.runtime.catalog.remote_tasks import RemoteTasks
from stemflow.runtime.commit.decider import Decider
from stemflow.runtime.payloads.signing import SignatureInvalid, UnknownKey
from stemflow.runtime.tasks.context import HandlerServices
from stemflow.runtime.tasks.registry import TaskRegistry
from stemflow.runtime.tasks.retry_decision import describe
from stemflow.runtime.tasks.signals import WorkerEvent
from stemflow.runtime.worker.released_slots import MOST_WAITING
from stemflow.runtime.worker.slots import Slots
from stemflow.store.base import Lease, StateLost, StoreError
from stemflow.store.damaged import DamagedNode, RecordsDamaged

log = logging.getLogger("stemflow.worker")

UNKNOWN_KEY_DELAY_MS = 5_000
"""How long a task is given back for when this worker lacks the key of its signature, so that another may take it."""
STORE_PAUSE_MS = 500
"""How long a task is given back for when the store cannot be read for it."""


def _no_renewal(lease_ms: int) -> None:
    """Nobody renews leases."""


class Worker:
    """Runs the handlers of one registry for the leases that its exchange loop brings.

    `lease_started` is called with the duration of each new lease in milliseconds; a short lease may have to be renewed
    sooner than planned. `unregistered` gives the outcome of an attempt at a task that is not registered here.
    """

    def __init__(
        self,
        slots: Slots,
        decider: Decider,
        registry: TaskRegistry,
        services: HandlerServices,
        *,
        remote_tasks: RemoteTasks,
        threads: Executor | None = None,
        processes: Processes | None = None,
        unregistered: Unregistered = hand_back_unknown,
        lease_started: Callable[[int], None] = _no_renewal,
        own_tasks: OwnTasks = no_own_tasks,
        paused_ms: PausedMs = never_paused,
        state: Callable[[], Any] = no_state,
    ) -> None:
        self.slots, self.store, self.signals = slots, slots.store, registry.signals
        self.decider = decider
        self.threads = threads or ThreadPoolExecutor(slots.concurrency + MOST_WAITING, thread_name_prefix="stemflow")
        self.processes = ProcessPool(processes or Processes())
        self.attempts = Attempts(
            decider,
            registry,
            services,
            remote_tasks=remote_tasks,
            queues=slots.queues,
            threads=self.threads,
            processes=self.processes,
            unregistered=unregistered,
            own_tasks=own_tasks,
            paused_ms=paused_ms,
            state=state,
        )
        self._callbacks = LeaseCallbacks(
            self.store, self.signals.timeout, self.report, self.leak, slots.wait_for_reports
        )
        self._lease_started = lease_started
        self._hurried = asyncio.Event()

    def void(self) -> None:
        """Cancel all handlers without a report: the store has lost data, so nobody knows who holds which lease."""
        slots = self.slots
        self.decider.void()
        given_up = f"{len(slots.running)} handlers and {len(slots.facts)} reports are given up"
        lost = StateLost(f"{self.store.url} has lost data that it had acknowledged: {given_up}; work goes on")
        log.critical("%s", lost)
        self.send_error(lost)
        slots.facts.clear()
        slots.unreported.clear()
        for running in list(slots.running.values()):
            running.give_up()

    def send_error(self, error: BaseException) -> None:
        """Send the signal `worker_error`: the worker itself failed, not a handler."""
        if self.signals.worker_error:
            self.signals.worker_error.send(self.event("worker_error", describe(error)))

    def event(self, signal: str, error: ErrorInfo | None = None) -> WorkerEvent:
        """An event of this worker for the signal of this name."""
        slots, now_ms = self.slots, self.store.now_ms()
        return WorkerEvent(signal=signal, worker=slots.owner, at_ms=now_ms, running=len(slots.running), error=error)

    # -- one lease

    def start(self, lease: Lease) -> None:
        """Start the handler of a lease, or give the lease back if the worker is shutting down."""
        node = lease.node
        if isinstance(node, DamagedNode):
            return self._refuse(node, node.why)
        self.decider.remember_lease(lease)
        slots, now_ms = self.slots, self.store.now_ms()
        running = slots.running[(node.run, node.path), node.delivery] = Running(node, self._callbacks, now_ms)
        if slots.handing_back:
            return running.report(HandedBack())
        slots.started.set()
        self.decider.counting.waited(node, now_ms)
        self._lease_started(node.lease_ms)
        running.start(self._work(running))

    async def _work(self, running: Running) -> None:
        outcome: Outcome | Crashed
        try:
            outcome = await self.attempts.of(running)
        except asyncio.CancelledError as cancelled:
            # The engine notes a reason before it cancels; a handler that cancelled itself has failed.
            outcome = running.reason or running.decide_retry(cancelled)
        except SignatureInvalid as error:
            return self._distrust(running, error)
        except RecordsDamaged as error:
            running.drop_report()
            return self._refuse(running.node, error.why)
        except UnknownKey as error:
            log.warning("%s; the task is handed back", error)
            outcome = HandedBack(UNKNOWN_KEY_DELAY_MS)
        except StoreError as error:
            log.warning("task %s is handed back: %s", running.node.key, error)
            outcome = HandedBack(STORE_PAUSE_MS)
        except Exception as error:
            log.exception("task %s could not be started", running.node.key)
            self.send_error(error)
            outcome = Failed(describe(error), "final")
        ended_well = isinstance(outcome, Ok) and not running.timed_out
        running.report(running.reason if running.reason is not None and not ended_well else outcome)

    def report(self, running: Running, outcome: Outcome | Crashed) -> None:
        """Queue the report of a lease and free its slot."""
        node, slots = running.node, self.slots
        key = node.run, node.path
        slots.running.pop((key, node.delivery), None)
        slots.released.forget((key, node.delivery))
        if running.void:
            return slots.wake()
        slots.await_commit(node)
        if isinstance(outcome, Crashed):
            log.warning("%s: %s; this delivery is lost", running.title, outcome.how)
            slots.report(Lost(key, node.delivery, outcome.how, slots.name, running.started_at_ms))
        else:
            slots.report(Ended(key, node.delivery, outcome, running.started_at_ms, slots.name))

    def _distrust(self, running: Running, error: SignatureInvalid) -> None:
        """Report a lease whose record has no valid signature: its handler does not start, and its run ends."""
        log.critical("%s", error)
        node = running.node
        running.drop_report()
        self.slots.running.pop((node.key, node.delivery), None)
        self.slots.report(Distrusted(node.key, str(error), node.delivery))

    def _refuse(self, node: Node, why: str) -> None:
        """Report a lease whose records cannot be read: no handler starts, and its run ends as damaged."""
        log.error("task %s: %s; its run is ended as damaged", task_id(node.key), why)
        self.slots.running.pop((node.key, node.delivery), None)
        self.slots.report(Damaged(node.key, why, node.delivery))

    def leak(self, running: Running, work: asyncio.Future[Any]) -> None:
        """Give up a handler that does not end: its lease is free, its slot is taken until `work` is done."""
        slots = self.slots
        log.warning(
            "%s does not end although it was cancelled; it is disowned: its lease is given up and its slot stays "
            "taken until it ends",
            running.title,
        )
        slots.leaked[work] = running
        work.add_done_callback(self._returned)
        if len(slots.leaked) >= slots.concurrency:
            names = sorted({one.context.name for one in slots.leaked.values() if one.context is not None})
            log.critical(
                "all %d slots of this worker are taken by handlers that were given up (%s); it leases nothing until "
                "one ends: restart it, and give such tasks isolation='process'",
                slots.concurrency, ", ".join(names),
            )  # fmt: skip

    def _returned(self, work: asyncio.Future[Any]) -> None:
        running = self.slots.leaked.pop(work)
        log.warning("%s, which was disowned, has ended; its slot is free again", running.title)
        if not work.cancelled():
            work.exception()
        self.slots.wake()

    def lost(self, lease: Lease, worker: str = "", started_at_ms: int = 0) -> None:
        """Report the loss of another worker's lease, which was taken over.

        `worker` and `started_at_ms`: which worker lost it, and when it had begun, if that is known."""
        node = lease.node
        if isinstance(node, DamagedNode):
            return self._refuse(node, node.why)
        self.decider.remember_lease(lease)
        self.slots.report(Lost(node.key, node.delivery, "", worker, started_at_ms))

    # -- shutting down

    async def drain(self, grace_ms: int) -> None:
        """Take no new leases; after `grace_ms`, or when `hand_back` is called, give back what still runs, uncharged."""
        slots = self.slots
        slots.drain()
        if slots.running and grace_ms:
            ending = asyncio.gather(*(r.task for r in slots.running.values() if r.task), return_exceptions=True)
            hurried = asyncio.ensure_future(self._hurried.wait())
            await asyncio.wait((ending, hurried), timeout=grace_ms / 1_000, return_when=asyncio.FIRST_COMPLETED)
            hurried.cancel()
        self.hand_back()

    def hand_back(self) -> None:
        """Cancel every handler and give its lease back now, uncharged."""
        self.slots.hand_back()
        self._hurried.set()
        for running in list(self.slots.running.values()):
            running.cancel(HandedBack())
