"""The worker: leases, runs, reports. One pump a process; each round is one exchange with the store."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import Any, TypeVar

from stemflow.model.effects import Decision
from stemflow.model.facts import Distrusted, Ended, Fact, Failed, HandedBack, Lost, Ok, Outcome
from stemflow.model.records import CANCELLED, STOPPING, ErrorInfo, Key, Node
from stemflow.runtime.advance import Advance
from stemflow.runtime.apart import Apart
from stemflow.runtime.attempts import Attempts, hand_back_unknown
from stemflow.runtime.context import Backstage
from stemflow.runtime.elsewhere import Elsewhere
from stemflow.runtime.isolate import Crashed, Pool, Processes
from stemflow.runtime.narrate import narrate
from stemflow.runtime.pause import Pauses
from stemflow.runtime.registry import TaskRegistry
from stemflow.runtime.running import Running
from stemflow.runtime.signals import WorkerEvent
from stemflow.runtime.signing import SignatureInvalid, UnknownKey
from stemflow.runtime.telling import tell_commit
from stemflow.runtime.verdict import describe
from stemflow.store.base import Exchange, Lease, Request, StateLost, Store, StoreError, StoreUnavailable, Want

T = TypeVar("T")

log = logging.getLogger("stemflow.worker")

YIELDS = 3
"""Turns of the loop that quick handlers are given before the worker rests; resting costs more than they do."""
STORE_PAUSE_S = 0.5
"""The pause after the store could not be read."""
LAST_TRIES_S = 5.0
"""How long a worker that is to end goes on trying to reach its store."""
IDLE_MS = 1_000
"""The longest an idle worker waits before it looks again."""
UNKNOWN_KEY_DELAY_MS = 5_000
"""A worker that lacks the key of a signature gives the task back for this long, that others may take it."""
class Ride:
    """What an exchange beside the pump asks for on behalf of the worker; `arrive` must be called when it is over."""

    __slots__ = ("_worker", "want")

    def __init__(self, worker: Worker, want: Want | None) -> None:
        self._worker, self.want = worker, want

    def arrive(self, answer: Exchange | None) -> None:
        """`answer`: None when there was none."""
        self._worker._arrived(self.want, answer)


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
        self.apart, self.attempts = Apart(self), Attempts(self)
        self.held_ms: Callable[[], int] = lambda: 0
        """For how long the event loop has been held."""
        self.running: dict[tuple[Key, int], Running] = {}
        self.facts: list[Fact] = []
        self.sequence = 0
        self.epoch = store.epoch
        self.draining = False
        self._ends_at = 0.0
        self.handing_back = False
        self.leaked: dict[asyncio.Future[Any], Running] = {}
        """Handlers that were given up and still work; each takes a slot."""
        self.stale_reports = 0
        self.stale_decisions = 0
        self._poked = asyncio.Event()
        self._impatient = asyncio.Event()
        self._seen = 0
        self._news: asyncio.Future[int] | None = None
        self._next_at_ms: int | None = None
        self._in_round = False
        self._asked = 0
        """Slots for which an exchange asks that is under way beside the pump, and whether a round had to leave them."""
        self._short = False

    # -- the pump

    async def run(self) -> None:
        """Exchange until `drain` was called and nothing is left to report."""
        try:
            while not (self.draining and not self.facts and not self.running):
                self._poked.clear()
                self._in_round = True
                try:
                    await self.round()
                finally:
                    self._in_round = False
                for _ in range(YIELDS):
                    await asyncio.sleep(0)
                    if self._poked.is_set():
                        break
                else:
                    await self._rest()
        finally:
            if self._news is not None:
                self._news.cancel()

    async def round(self) -> None:
        """One exchange: commit what has ended, start what is leased. It leased all that it could."""
        if self.epoch != self.store.epoch:
            self.void()
        batches, decisions = [], []
        for batch in self._batches():
            decision = await self._decided(batch)
            if decision is not None:
                batches.append(batch)
                decisions.append(decision)
        want = None if self.draining else self._want()
        try:
            answer = await self.exchange(decisions, want)
        except StateLost:
            return  # the store has said so; the next round begins anew
        for batch, decision, committed in zip(batches, decisions, answer.committed, strict=True):
            self._settle(batch, decision, committed, answer)
        if want is not None:
            self._take(want, answer)

    def _want(self) -> Want:
        """As many leases as there are slots that are free and not asked for already."""
        self._short = self._asked > 0
        free = self.concurrency - len(self.running) - len(self.leaked) - self._asked
        limit = self.apart.limit(max(0, free))
        return Want(owner=self.owner, limit=limit, queues=self.queues, only_run=self.only_run)

    def _take(self, want: Want, answer: Exchange) -> None:
        """Start what an exchange has leased, and note what has become due."""
        self.facts.extend(answer.timers)
        started, back = self.apart.sort(answer.leases, asked=want.limit > 0)
        for lease in started:
            self.start(lease)
        for lease in back:
            self.advance.leased(lease)
            self.facts.append(Ended(lease.node.key, lease.node.delivery, HandedBack()))
        self._next_at_ms = answer.next_at_ms

    def ride(self) -> Ride:
        """For an exchange beside the pump. Between two rounds it leases, too, so that what is submitted begins with the
        commit that stores it."""
        if self._in_round or self.draining or self.facts or self._asked:
            return Ride(self, None)
        want = self._want()
        self._asked = want.limit
        return Ride(self, want)

    def _arrived(self, want: Want | None, answer: Exchange | None) -> None:
        """An exchange beside the pump is over, or (None) failed."""
        if want is not None:
            self._asked = 0
            if answer is not None:
                self._take(want, answer)
        if want is None or answer is None or self.facts or self._short:
            self.poke()

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

    async def _decided(self, batch: list[Fact]) -> Decision | None:
        """None when the store could not be read (the facts wait) or the machine failed (they are set aside)."""
        try:
            return await self.advance.decide(batch)
        except StoreError as error:
            log.warning("%s; %d reports wait", error, len(batch))
            self.facts.extend(batch)
            await asyncio.sleep(STORE_PAUSE_S)
        except SignatureInvalid as error:
            log.critical("%s", error)
            # Runs that share the batch with the one in question go on; a record of nobody here concerns them all.
            mine = [fact for fact in batch if fact.key[0] == error.run] or batch
            self.facts += [fact for fact in batch if fact not in mine]
            batch[:] = [Distrusted(fact.key, str(error)) for fact in mine]
            return await self.advance.decide(batch)
        except UnknownKey as error:
            log.warning("%s; %d reports are left to a process that has it", error, len(batch))
            await asyncio.sleep(STORE_PAUSE_S)
        except Exception as error:
            log.critical("run %s: its reports are set aside, its leases will be lost", batch[0].key[0], exc_info=True)
            self.trouble(error)
        return None

    def _batches(self) -> list[list[Fact]]:
        """Facts of one run are decided together, and those of runs that meet in a concurrency key, which all change."""
        facts, self.facts = self.facts, []
        met: dict[str, str] = {}
        joined: dict[str, str] = {}

        def group(run: str) -> str:
            while run in joined:
                run = joined[run]
            return run

        for fact in facts:
            node = self.advance.records.get(fact.key)
            if isinstance(node, Node) and node.slot is not None:
                run, other = group(fact.key[0]), group(met.setdefault(node.slot, fact.key[0]))
                if run != other:
                    joined[run] = other
        groups: dict[tuple[str, bool], list[Fact]] = {}
        for fact in facts:
            groups.setdefault((group(fact.key[0]), isinstance(fact, Distrusted)), []).append(fact)
        return list(groups.values())

    def _settle(self, batch: list[Fact], decision: Decision, committed: bool, answer: Exchange) -> None:
        if not committed:
            self.stale_decisions += 1
            self.advance.stale(decision, batch, answer.current)
            self.facts.extend(batch)
            return
        tell_commit(self.signals, self.advance.library, decision, batch, self.store.now_ms())
        self.advance.committed(decision)
        narrate(batch, decision, answer.now_ms)
        self.stale_reports += sum(isinstance(fact, Ended) for fact in decision.refused)
        self.tell_stopped(decision)

    async def exchange(self, decisions: Sequence[Decision], want: Want | None) -> Exchange:
        """One exchange; the same request is sent again until the store answers, or, when the worker is to end, for
        LAST_TRIES_S."""
        self.sequence += 1
        request, pauses = Request(self.channel, self.sequence, self.epoch), Pauses(self.channel, 0.05, 5.0)
        while True:
            try:
                return await self.store.exchange(request, decisions, want)
            except StoreUnavailable as error:
                pause = pauses.next()
                if self.draining and self._out_of_time():
                    log.critical(
                        "%s; the worker ends without its last %d reports, whose tasks run again when their leases have "
                        "run out", error, len(decisions),
                    )  # fmt: skip
                    raise
                log.warning("%s; trying again in %.2f s", error, pause)
                await asyncio.sleep(pause)

    def _out_of_time(self) -> bool:
        now = asyncio.get_running_loop().time()
        self._ends_at = self._ends_at or now + LAST_TRIES_S
        return now >= self._ends_at

    async def _rest(self) -> None:
        """Wait for a report, a commit by somebody else, or the next instant at which something is due."""
        if self.draining and not self.running:
            return
        if self._news is None:
            self._news = asyncio.ensure_future(self.store.work(self.owner, self._seen, IDLE_MS))
            self._news.add_done_callback(lambda _: self.poke())
        alarm = None
        if self._next_at_ms is not None:
            left_ms = max(1, self._next_at_ms - self.store.now_ms())
            alarm = asyncio.get_running_loop().call_later(left_ms / 1_000, self.poke)
        try:
            # News that came while a round was under way has poked nobody who rests.
            if not self._news.done():
                await self._poked.wait()
        finally:
            if alarm is not None:
                alarm.cancel()
        if self._news.done():
            news, self._news = self._news, None
            try:
                self._seen = news.result()
            except StoreError as error:
                log.warning("%s; trying again in %.1f s", error, STORE_PAUSE_S)
                await asyncio.sleep(STORE_PAUSE_S)

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
        self._poked.set()

    # -- one lease

    def start(self, lease: Lease) -> None:
        node = lease.node
        self.advance.leased(lease)
        running = self.running[(node.key, node.delivery)] = Running(self, node)
        if self.handing_back:
            return running.report(HandedBack())
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
            return self._poked.set()
        if isinstance(outcome, Crashed):
            log.warning("%s: %s; this delivery is lost", running.title, outcome.how)
            self.facts.append(Lost(node.key, node.delivery, outcome.how))
        else:
            self.facts.append(Ended(node.key, node.delivery, outcome, running.started_at_ms))
        self._poked.set()

    def distrust(self, running: Running, error: SignatureInvalid) -> None:
        """A lease that nobody with a key has made: nothing is started, and its run ends."""
        log.critical("%s", error)
        node, running.reported = running.node, True
        self.running.pop((node.key, node.delivery), None)
        self.facts.append(Distrusted(node.key, str(error), node.delivery))
        self._poked.set()

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
        self._poked.set()

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
        self._poked.set()

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
