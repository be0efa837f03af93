"""The worker: what is leased is started, and what becomes of it is reported. Its pump speaks with the store."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import Any, TypeVar

from stemflow.model.effects import Decision
from stemflow.model.facts import Distrusted, Ended, Fact, Failed, HandedBack, Lost, Ok, Outcome
from stemflow.model.records import CANCELLED, STOPPING, ErrorInfo, Key, Node
from stemflow.runtime.attempt.in_flight import LeaseCallbacks, Running
from stemflow.runtime.attempt.process_pool import Crashed, Pool, Processes
from stemflow.runtime.attempt.runner import Attempts, hand_back_unknown
from stemflow.runtime.catalog.remote_tasks import Elsewhere
from stemflow.runtime.commit.decider import Advance
from stemflow.runtime.payloads.signing import SignatureInvalid, UnknownKey
from stemflow.runtime.tasks.context import Backstage
from stemflow.runtime.tasks.registry import TaskRegistry
from stemflow.runtime.tasks.retry_decision import describe
from stemflow.runtime.tasks.signals import WorkerEvent
from stemflow.runtime.worker.exchange_loop import STORE_PAUSE_S, Pump
from stemflow.store.base import Lease, StateLost, Store, StoreError

T = TypeVar("T")

log = logging.getLogger("stemflow.worker")

UNKNOWN_KEY_DELAY_MS = 5_000
"""A worker that lacks the key of a signature gives the task back for this long, that others may take it."""


class Worker:
    """Leases from one store, runs handlers of one registry, reports outcomes in batches."""

    def __init__(
        self,
        store: Store,
        advance: Advance,
        registry: TaskRegistry,
        backstage: Backstage,
        *,
        owner: str,
        channel: str,
        concurrency: int = 100,
        queues: tuple[str, ...] | None = None,
        only_run: str | None = None,
        pool: Executor | None = None,
        processes: Processes | None = None,
        elsewhere: Elsewhere | None = None,
    ) -> None:
        self.store, self.advance, self.registry, self.backstage = store, advance, registry, backstage
        self.elsewhere = elsewhere or Elsewhere(store, registry)
        self.owner, self.channel, self.concurrency = owner, channel, concurrency
        self.queues, self.only_run = queues, only_run
        self.signals, self.middleware = registry.signals, registry.middleware
        self.without: Callable[[str, Node], Awaitable[Failed | HandedBack]] = hand_back_unknown
        self.pool = pool or ThreadPoolExecutor(concurrency, thread_name_prefix="stemflow")
        self.processes = Pool(processes or Processes())
        self.attempts = Attempts(
            advance, registry, backstage, elsewhere=self.elsewhere, queues=queues, threads=self.pool,
            processes=self.processes, unregistered=self._unregistered,
        )  # fmt: skip
        self._callbacks = LeaseCallbacks(store, self.signals.timeout, self.report, self.leak)
        self.held_ms: Callable[[], int] = lambda: 0
        """For how long the event loop has been held."""
        self.leasing: Callable[[int], None] = lambda lease_ms: None
        """Told of each lease that begins here, in milliseconds: renewal may have to come sooner for it."""
        self.running: dict[tuple[Key, int], Running] = {}
        self.facts: list[Fact] = []
        self.epoch = store.epoch
        self.draining = False
        self.handing_back = False
        self.leaked: dict[asyncio.Future[Any], Running] = {}
        """Handlers that were given up and still work; each takes a slot."""
        self.stale_reports = 0
        self._impatient = asyncio.Event()
        self.pump = Pump(self, channel)

    async def _unregistered(self, task: str, node: Node) -> Failed | HandedBack:
        return await self.without(task, node)

    def void(self) -> None:
        """The store has lost some of its data, so nobody knows who has which lease: what runs here is cancelled, and
        nothing is reported."""
        self.epoch = self.store.epoch
        self.advance.void()
        given_up = f"{len(self.running)} handlers and {len(self.facts)} reports are given up"
        lost = StateLost(f"{self.store.url} has lost data that it had acknowledged: {given_up}; work goes on")
        log.critical("%s", lost)
        self.trouble(lost)
        self.facts.clear()
        for running in list(self.running.values()):
            running.void = True
            running.cancel(HandedBack())

    def trouble(self, error: BaseException) -> None:
        """Something of the worker itself went wrong."""
        if self.signals.worker_error:
            self.signals.worker_error.send(self.event("worker_error", describe(error)))

    def event(self, signal: str, error: ErrorInfo | None = None) -> WorkerEvent:
        return WorkerEvent(
            signal=signal, worker=self.owner, at_ms=self.store.now_ms(), running=len(self.running), error=error
        )

    def poke(self) -> None:
        """Something may be ready: do not rest."""
        self.pump.poke()

    # -- one lease

    def start(self, lease: Lease) -> None:
        node = lease.node
        self.advance.leased(lease)
        running = self.running[(node.key, node.delivery)] = Running(node, self._callbacks)
        if self.handing_back:
            return running.report(HandedBack())
        self.leasing(node.lease_ms)
        running.task = asyncio.get_running_loop().create_task(self._work(running))
        running.task.add_done_callback(running.ended)

    async def _work(self, running: Running) -> None:
        outcome: Outcome | Crashed
        try:
            outcome = await self.attempts.of(running)
        except asyncio.CancelledError as cancelled:
            # The engine always says why it cancels; a handler that cancelled itself has failed.
            outcome = running.reason or running.judge(cancelled)
        except SignatureInvalid as error:
            return self.distrust(running, error)
        except UnknownKey as error:
            log.warning("%s; the task is handed back", error)
            outcome = HandedBack(UNKNOWN_KEY_DELAY_MS)
        except StoreError as error:
            log.warning("task %s is handed back: %s", running.node.key, error)
            outcome = HandedBack(int(STORE_PAUSE_S * 1_000))
        except Exception as error:
            log.exception("task %s could not be started", running.node.key)
            self.trouble(error)
            outcome = Failed(describe(error), "final")
        ended_well = isinstance(outcome, Ok) and not running.timed_out
        running.report(running.reason if running.reason is not None and not ended_well else outcome)

    def report(self, running: Running, outcome: Outcome | Crashed) -> None:
        node = running.node
        self.running.pop((node.key, node.delivery), None)
        if running.void:
            return self.poke()
        if isinstance(outcome, Crashed):
            log.warning("%s: %s; this delivery is lost", running.title, outcome.how)
            self.facts.append(Lost(node.key, node.delivery, outcome.how))
        else:
            self.facts.append(Ended(node.key, node.delivery, outcome, running.started_at_ms))
        self.poke()

    def distrust(self, running: Running, error: SignatureInvalid) -> None:
        """A lease that nobody with a key has made: nothing is started, and its run ends."""
        log.critical("%s", error)
        node, running.reported = running.node, True
        self.running.pop((node.key, node.delivery), None)
        self.facts.append(Distrusted(node.key, str(error), node.delivery))
        self.poke()

    def leak(self, running: Running, work: asyncio.Future[Any]) -> None:
        """A handler was given up: it works on, nobody hears of it, and its slot is taken until it ends."""
        log.warning(
            "%s does not end although it was told to; it is disowned: its lease is given up and its slot stays "
            "taken until it ends",
            running.title,
        )
        self.leaked[work] = running
        work.add_done_callback(self._returned)
        if len(self.leaked) >= self.concurrency:
            names = sorted({one.context.name for one in self.leaked.values() if one.context is not None})
            log.critical(
                "all %d slots of this worker are taken by handlers that were given up (%s); it leases nothing until "
                "one ends: restart it, and give such tasks isolation='process'",
                self.concurrency, ", ".join(names),
            )  # fmt: skip

    def _returned(self, work: asyncio.Future[Any]) -> None:
        running = self.leaked.pop(work)
        log.warning("%s, which was disowned, has ended; its slot is free again", running.title)
        if not work.cancelled():
            work.exception()
        self.poke()

    def tell_stopped(self, decision: Decision) -> None:
        """Tell the handlers here of what a commit has told to end, or has ended by force."""
        for put in decision.puts:
            node = put.record
            if isinstance(node, Node) and node.tally is None and node.state in (STOPPING, CANCELLED):
                self.tell(node.key, node.delivery, node.kill or node.state == CANCELLED)

    def tell(self, key: Key, token: int, kill: bool) -> None:
        """The node was told to stop. Only `kill` cancels its handler; else it may end well."""
        running = self.running.get((key, token))
        if running is not None and kill:
            running.cancel(
                Failed(ErrorInfo("TaskCancelled", "its run was cancelled", "stemflow.TaskCancelled"), "final")
            )

    def lose(self, key: Key, token: int) -> None:
        """The lease is gone: whatever the handler reports would be refused."""
        running = self.running.get((key, token))
        if running is not None:
            log.warning("the lease of %s was lost; its handler is cancelled and its report will not count", key)
            running.cancel(HandedBack())

    def lost(self, lease: Lease) -> None:
        """A lease of somebody else was taken over: report its loss."""
        self.advance.leased(lease)
        self.facts.append(Lost(lease.node.key, lease.node.delivery))
        self.poke()

    def held(self) -> list[tuple[Key, int, int]]:
        """What is leased here and still to be renewed: (key, token, lease_ms)."""
        now_ms, loop_held_ms = self.store.now_ms(), self.held_ms()
        return [one.held() for one in self.running.values() if one.renewable(now_ms, loop_held_ms)]

    # -- going away

    async def drain(self, grace_ms: int) -> None:
        """Lease nothing more; after `grace_ms`, or when `hand_back` is called, hand back what still runs, uncharged."""
        self.draining = True
        self.poke()
        if self.running and grace_ms:
            ending = asyncio.gather(*(r.task for r in self.running.values() if r.task), return_exceptions=True)
            impatient = asyncio.ensure_future(self._impatient.wait())
            await asyncio.wait((ending, impatient), timeout=grace_ms / 1_000, return_when=asyncio.FIRST_COMPLETED)
            impatient.cancel()
        self.hand_back()

    def hand_back(self) -> None:
        """Cancel what runs and give it back now, uncharged."""
        self.handing_back = True
        self._impatient.set()
        for running in list(self.running.values()):
            running.cancel(HandedBack())
