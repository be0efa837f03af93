"""The embedded worker and its companions: renewal and recovery, started and stopped together."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

from stemflow.errors import StemflowError
from stemflow.model.effects import Decision
from stemflow.model.records import FINAL, Node
from stemflow.runtime.attempt.process_pool import Processes
from stemflow.runtime.attempt.task_import import check_start
from stemflow.runtime.clock import SystemClock
from stemflow.runtime.commit.events import run_event
from stemflow.runtime.tasks.context import TaskCancelled, TaskContext
from stemflow.runtime.tasks.signals import RunEvent, Signal, WorkerEvent
from stemflow.runtime.worker.handler_services import EngineBackstage
from stemflow.runtime.worker.lease_recovery import recover
from stemflow.runtime.worker.lease_renewal import RenewTask, RenewThread, hear
from stemflow.runtime.worker.loop_watchdog import WatchThread
from stemflow.runtime.worker.presence import Presence
from stemflow.runtime.worker.retention import keep_pruned
from stemflow.runtime.worker.worker import Worker
from stemflow.store.base import Renewer, StoreError
from stemflow.store.process_owner import owner_id

if TYPE_CHECKING:
    from stemflow.runtime.engine import Stemflow

HEARTBEAT_S = 10.0
"""How often the signal `worker_heartbeat` is sent."""

log = logging.getLogger("stemflow.service")


class Service:
    """One worker with its pump, its renewal and its sweeper."""

    def __init__(
        self,
        app: Stemflow,
        concurrency: int,
        queues: tuple[str, ...] | None,
        only_run: str | None,
        processes: Processes | None,
        name: str | None,
        unroutable_after_ms: int,
    ) -> None:
        self.app = app
        channel = f"worker-{app.ids.run_id()}"
        self.worker = Worker(
            app.store,
            app.advance,
            app.registry,
            EngineBackstage(app),
            owner=owner_id(channel),
            channel=channel,
            concurrency=concurrency,
            queues=queues,
            only_run=only_run,
            processes=processes,
            elsewhere=app.preparer.elsewhere,
        )
        for commits in (app.commits, app.more_commits):
            commits.ride = self.worker.pump.ride
        self.presence = Presence(self.worker, name, unroutable_after_ms)
        self.worker.without = self.presence.without
        self.renewer: Renewer | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._thread: RenewThread | None = None
        self._watch: WatchThread | None = None
        self._pump: asyncio.Task[None] | None = None
        self._broken: asyncio.Future[None] | None = None
        """Has the error of the first companion that failed."""

    async def start(self) -> None:
        check_start(self.app.registry)
        self.presence.begin()
        self._tell(self.app.signals.worker_init)
        self.renewer = self.app.store.renewer()
        self._broken = asyncio.get_running_loop().create_future()
        if isinstance(self.app.clock, SystemClock):
            self._thread = RenewThread(self.worker, self.renewer, self._failed)
            self._thread.start()
            self._watch = WatchThread(self.worker, self._failed)
            self.worker.held_ms = self._watch.held_ms
            self._watch.start()
        else:
            renew = RenewTask(self.worker, self.renewer, 3_000)
            self._accompany("renew", renew.run())
        self._accompany("recover", recover(self.worker))
        if self.worker.only_run is None:
            self._accompany("presence", self.presence.run())
        self._accompany("prune", keep_pruned(self.app.store))
        self._pump = asyncio.create_task(self.worker.pump.run(), name="pump")
        self._pump.add_done_callback(self._ended)
        self._accompany("beat", self._beat())
        await self._tell_run(self.app.signals.run_resumed, self.worker.only_run)
        self._tell(self.app.signals.worker_ready)

    def _accompany(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        """Run `work` beside the pump; it ends only by being cancelled, else the worker cannot go on."""
        task = asyncio.create_task(work, name=name)
        self._tasks.append(task)
        task.add_done_callback(lambda task: None if task.cancelled() else self._failed(name, task.exception()))

    def _failed(self, name: str, error: BaseException | None) -> None:
        """A companion of the pump has ended though nobody told it to."""
        error = error or StemflowError(f"worker {self.worker.owner}: its {name} ended by itself; start the worker anew")
        log.critical("the worker cannot go on without its %s; it is to be started anew", name, exc_info=error)
        self.worker.trouble(error)
        if self._broken is not None and not self._broken.done():
            self._broken.set_exception(error)
            self._broken.exception()  # an embedded worker has nobody who asks for it

    def _tell(self, signal: Signal[WorkerEvent]) -> None:
        if signal:
            signal.send(self.worker.event(signal.name))

    async def _tell_run(self, signal: Signal[RunEvent], run: str | None) -> None:
        """Tell of a run that is there and has not ended."""
        if not signal or run is None:
            return
        try:
            (root,) = await self.app.store.read([(run, "")])
            if isinstance(root, Node) and root.state not in FINAL:
                signal.send(run_event(signal.name, await self.app.library.header(run), self.app.store.now_ms()))
        except StoreError as error:
            log.warning("%s; nobody is told of run %s (%s)", error, run, signal.name)

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(HEARTBEAT_S)
            self._tell(self.app.signals.worker_heartbeat)

    def _ended(self, pump: asyncio.Task[None]) -> None:
        if not pump.cancelled() and (error := pump.exception()) is not None:
            log.critical("the worker has stopped", exc_info=error)
            self.worker.trouble(error)

    async def stop(self, grace_ms: int) -> None:
        """Drain the worker and end its companions. A second call, while the first lets handlers end, hands them back
        now."""
        if self._pump is None:
            return
        if self.worker.draining:
            self.worker.hand_back()
            await asyncio.wait((self._pump,))
            return
        self._tell(self.app.signals.worker_stopping)
        at_work = {run for (run, _), _ in self.worker.running} | {self.worker.only_run}
        await self.worker.drain(grace_ms)
        await asyncio.wait((self._pump,))
        for run in sorted(filter(None, at_work)):
            await self._tell_run(self.app.signals.run_suspended, run)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._leave()
        if self._thread is not None:
            self._thread.stop()
            self._thread.join(5)
        if self._watch is not None:
            self._watch.stop()
            self._watch.join(5)
        await self.worker.processes.close()
        self.worker.pool.shutdown(wait=False, cancel_futures=True)
        self._pump = None
        self._tell(self.app.signals.worker_shutdown)

    async def _leave(self) -> None:
        """Take this worker off the list of those that live."""
        if self.worker.only_run is None:
            try:
                await self.presence.tell("stopped")
            except StoreError as error:
                log.warning("%s; this worker is listed as silent until its entry is past its time", error)

    async def ended(self) -> None:
        """Returns when the pump has stopped after `stop`; raises what broke it or one of its companions."""
        if self._pump is not None and self._broken is not None:
            done, _ = await asyncio.wait((self._pump, self._broken), return_when=asyncio.FIRST_COMPLETED)
            for one in done:
                one.result()

    def heard(self, decision: Decision) -> None:
        """A decision was committed beside the pump: tell running handlers."""
        self.worker.tell_stopped(decision)

    def renew_now(self, context: TaskContext, for_ms: int) -> None:
        """Renew the lease of one handler, for at least `for_ms`; raises TaskCancelled if it is gone or stopped."""
        running = self.worker.running.get(((context.run_id, context.node), context.delivery))
        if running is None or self.renewer is None:
            raise TaskCancelled(f"task {context.id}: its lease is gone; nothing that it reports counts any more")
        running.keep_for(for_ms)
        found = self.renewer.renew([running.held()])
        hear(self.worker, found)
        if found.gone or any(kill for _, kill in found.stopping):
            raise TaskCancelled(f"task {context.id}: its run was stopped")
