"""The embedded worker: its exchange loop and companion tasks (renewal, recovery, heartbeats, pruning), as one unit."""

from __future__ import annotations

import asyncio
import logging
import os
import platform
import threading
from collections.abc import Awaitable, Callable, Iterable
from contextlib import AbstractAsyncContextManager
from typing import Any

from msgspec import Struct

from stemflow.errors import StemflowError
from stemflow.model.records import FINAL, Node
from stemflow.ports import IdSource
from stemflow.runtime.attempt.process_pool import Processes
from stemflow.runtime.attempt.runner import OwnTasks, no_own_tasks
from stemflow.runtime.attempt.task_import import check_start
from stemflow.runtime.catalog.remote_tasks import RemoteTasks
from stemflow.runtime.client.stored_counts import StoredCounts
from stemflow.runtime.commit.decider import Decider
from stemflow.runtime.commit.events import run_event
from stemflow.runtime.tasks.registry import TaskRegistry
from stemflow.runtime.tasks.signals import RegistryEvent, RunEvent, Signal, WorkerEvent
from stemflow.runtime.worker.controls import Obedience
from stemflow.runtime.worker.exchange_loop import ExchangeLoop
from stemflow.runtime.worker.handler_services import Cancel, Submit, WorkerServices
from stemflow.runtime.worker.lease_recovery import recover
from stemflow.runtime.worker.lease_renewal import (
    LONGEST_PAUSE_MS,
    VIRTUAL_PAUSE_MS,
    Renewals,
    RenewalSchedule,
    RenewalTask,
    RenewalThread,
)
from stemflow.runtime.worker.loop_watchdog import LoopWatchdog
from stemflow.runtime.worker.orphans import LOOK_EVERY_MS, DeclaredTasks
from stemflow.runtime.worker.presence import Presence
from stemflow.runtime.worker.retention import keep_pruned
from stemflow.runtime.worker.slots import Slots
from stemflow.runtime.worker.supervised import supervised
from stemflow.runtime.worker.worker import Worker
from stemflow.store.base import StoreError
from stemflow.store.process_owner import owner_id

HEARTBEAT_S = 10.0
"""How often the signal `worker_heartbeat` is sent."""
JOIN_S = 5.0
"""How long a stopping worker waits for each of its threads."""

log = logging.getLogger("stemflow.service")


class WorkerSettings(Struct, frozen=True, kw_only=True):
    """How a worker works; see `Stemflow`. `real_time`: the clock is the machine's, so that threads may watch it."""

    concurrency: int
    queues: tuple[str, ...] | None
    only_run: str | None
    processes: Processes | None
    name: str | None
    unroutable_after_ms: int
    propagated_headers: tuple[str, ...]
    real_time: bool


class Service:
    """One worker with all its loops and services. `submit` stores the runs that its handlers start, `cancel` cancels
    those that they name, `own_tasks` gives the tasks of the engine itself, `own_names` their names.
    `stored_counts` stores what this process counts."""

    def __init__(
        self,
        decider: Decider,
        registry: TaskRegistry,
        remote_tasks: RemoteTasks,
        ids: IdSource,
        submit: Submit,
        cancel: Cancel,
        settings: WorkerSettings,
        stored_counts: StoredCounts,
        *,
        own_tasks: OwnTasks = no_own_tasks,
        own_names: Callable[[], Iterable[str]] = tuple,
    ) -> None:
        store, signals = decider.store, registry.signals
        channel = f"worker-{ids.run_id()}"
        self._stored_counts = stored_counts
        self._store, self._library, self._registry, self._signals = store, decider.library, registry, signals
        self._real_time = settings.real_time
        self._declared = DeclaredTasks(store, registry, own_names)
        self._look_every_ms = min(LOOK_EVERY_MS, max(1, settings.unroutable_after_ms))
        self.slots = slots = Slots(
            store, owner=owner_id(channel), name=settings.name or f"{platform.node()}-{os.getpid()}",
            concurrency=settings.concurrency, queues=settings.queues,
            only_run=settings.only_run, tasks=self._declared if settings.only_run is None else lambda: None,
        )  # fmt: skip
        self.renewals = Renewals(slots, store)
        self.presence = Presence(store, registry, slots, settings.unroutable_after_ms, decider.trust)
        self._woken = threading.Event() if self._real_time else asyncio.Event()
        longest_ms = LONGEST_PAUSE_MS if self._real_time else VIRTUAL_PAUSE_MS
        self._schedule = RenewalSchedule(slots, self._woken.set, longest_ms)
        self._services = WorkerServices(
            slots, signals, self.renewals.renew_now, submit, cancel, settings.propagated_headers
        )
        self.obedience = Obedience(slots, decider.library, self.presence)
        self.worker = Worker(
            slots,
            decider,
            registry,
            self._services,
            remote_tasks=remote_tasks,
            processes=settings.processes,
            unregistered=self.presence.unregistered,
            lease_started=self._schedule.lease_started,
            own_tasks=own_tasks,
            paused_ms=self.obedience.paused_ms,
            state=lambda: self._state,
        )
        self.exchange_loop = ExchangeLoop(slots, self.worker, decider, channel)
        self._tasks: list[asyncio.Task[None]] = []
        self._threads: list[RenewalThread | LoopWatchdog] = []
        self._exchanging: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._state: Any = None
        """What the lifespan of the registry yielded; handlers read it in their context."""
        self._lifespan: AbstractAsyncContextManager[Any] | None = None
        self._broken: asyncio.Future[None] | None = None
        """Has the error of the first companion that failed."""

    async def start(self) -> None:
        """Start to work. The store must be open. Raises OptionError for a registry whose tasks cannot run here."""
        check_start(self._registry)
        self.presence.begin()
        await self.obedience.begin()
        self._lifespan = self._registry.lifespans.of_worker()
        self._state = await self._lifespan.__aenter__()
        self._send(self._signals.worker_init)
        self._broken = asyncio.get_running_loop().create_future()
        self._services.begin()
        self._keep_leases()
        self._accompany("recover", lambda: recover(self.worker))
        self._accompany("presence", self.presence.run)
        self._accompany("control", self.obedience.watch)
        if self.slots.only_run is None:
            self._accompany("orphans", lambda: self._declared.watch(self.slots, self._look_every_ms))
            self._loop = asyncio.get_running_loop()
            self._signals.registered.connect(self._registered)
        self._accompany("prune", lambda: keep_pruned(self._store))
        self._accompany("counts", self._stored_counts.keep)
        self._exchanging = asyncio.create_task(self.exchange_loop.run(), name="exchange loop")
        self._exchanging.add_done_callback(self._ended)
        self._accompany("beat", self._beat)
        await self._send_of_run(self._signals.run_resumed, self.slots.only_run)
        self._send(self._signals.worker_ready)

    def _registered(self, event: RegistryEvent) -> None:
        """A task was registered while the worker runs, perhaps in another thread: it leases this one, too."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self.slots.wake)

    def _keep_leases(self) -> None:
        """Start renewal: in a thread, with the watchdog of the event loop, or on the loop where time is virtual."""
        renewer = self.renewals.renewer()
        if isinstance(self._woken, asyncio.Event):
            task = RenewalTask(self.slots, renewer, self._schedule, self._woken)
            return self._accompany("renew", task.run)
        watchdog = LoopWatchdog(self.slots, self._failed)
        renewal = RenewalThread(
            self.slots, renewer, self._schedule, self._woken, watchdog.held_ms, self.worker.send_error
        )
        self._threads = [renewal, watchdog]
        for thread in self._threads:
            thread.start()

    def _accompany(self, name: str, work: Callable[[], Awaitable[None]]) -> None:
        """Run `work()` until the worker stops; it is started again when it fails."""
        self._tasks.append(asyncio.create_task(supervised(name, work, self.worker.send_error), name=name))

    def _failed(self, name: str, error: BaseException | None) -> None:
        """A companion has ended although it was not cancelled."""
        error = error or StemflowError(f"worker {self.slots.owner}: its {name} ended by itself; restart the worker")
        log.critical("the worker cannot go on without its %s; restart it", name, exc_info=error)
        self.worker.send_error(error)
        if self._broken is not None and not self._broken.done():
            self._broken.set_exception(error)
            self._broken.exception()  # of an embedded worker nobody may ask for it

    def _send(self, signal: Signal[WorkerEvent]) -> None:
        if signal:
            signal.send(self.worker.event(signal.name))

    async def _send_of_run(self, signal: Signal[RunEvent], run: str | None) -> None:
        """Send a signal about a run, if the store has it and it has not ended."""
        if not signal or run is None:
            return
        try:
            (root,) = await self._store.read([(run, "")])
            if isinstance(root, Node) and root.state not in FINAL:
                signal.send(run_event(signal.name, await self._library.header(run), self._store.now_ms()))
        except StoreError as error:
            log.warning("%s; the signal %s of run %s is not sent", error, signal.name, run)

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(HEARTBEAT_S)
            self._send(self._signals.worker_heartbeat)

    def _ended(self, exchanging: asyncio.Task[None]) -> None:
        if not exchanging.cancelled() and (error := exchanging.exception()) is not None:
            known = isinstance(error, StoreError)  # its sentence says what to do
            log.critical("the worker has stopped: %s", error, exc_info=None if known else error)
            # Nothing is reported any more: leases run out, so that other workers take the tasks over; what companions
            # took over would be stuck here.
            self.slots.give_up_reports()
            for companion in self._tasks:
                companion.cancel()
            for running in list(self.slots.running.values()):
                running.give_up()
            self.worker.send_error(error)

    async def stop(self, grace_ms: int) -> None:
        """Drain the worker and end its companions.

        Handlers have `grace_ms` milliseconds to end, then their leases are given back. A second call during that time
        gives them back at once.
        """
        if self._exchanging is None:
            return
        if self.slots.draining:
            self.worker.hand_back()
            await asyncio.wait((self._exchanging,))
            return
        self._signals.registered.disconnect(self._registered)
        self._send(self._signals.worker_stopping)
        at_work = {run for (run, _), _ in self.slots.running} | {self.slots.only_run}
        await self.worker.drain(grace_ms)
        await asyncio.wait((self._exchanging,))
        for run in sorted(filter(None, at_work)):
            await self._send_of_run(self._signals.run_suspended, run)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._leave()
        for thread in self._threads:
            thread.stop()
            thread.join(JOIN_S)
        await self.worker.processes.close()
        self.worker.threads.shutdown(wait=False, cancel_futures=True)
        self._exchanging = None
        await self._leave_lifespan()
        self._send(self._signals.worker_shutdown)

    async def _leave_lifespan(self) -> None:
        """Take down what the program set up; what that raises is logged, since the work of the worker is done."""
        assert self._lifespan is not None
        try:
            await self._lifespan.__aexit__(None, None, None)
        except Exception as error:
            log.exception("a lifespan raised when it was left; the work of the worker is stored")
            self.worker.send_error(error)

    async def _leave(self) -> None:
        """Store that this worker has stopped."""
        if self.presence.published:
            try:
                await self.presence.publish("stopped")
            except StoreError as error:
                log.warning("%s; this worker is listed as silent until its entry expires", error)

    async def ended(self) -> None:
        """Return when the worker has stopped; raise the error that ended its exchange loop or a companion."""
        if self._exchanging is not None and self._broken is not None:
            done, _ = await asyncio.wait((self._exchanging, self._broken), return_when=asyncio.FIRST_COMPLETED)
            for one in done:
                one.result()
