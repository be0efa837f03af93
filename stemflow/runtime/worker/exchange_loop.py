"""The pump of a worker: each round is one exchange with the store; it commits what ended and leases what is next."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from stemflow.model.effects import Decision
from stemflow.model.facts import Distrusted, Ended, Fact, HandedBack
from stemflow.runtime.commit.batching import grouped
from stemflow.runtime.commit.events import tell_commit
from stemflow.runtime.commit.log import narrate
from stemflow.runtime.payloads.signing import SignatureInvalid, UnknownKey
from stemflow.runtime.worker.quarantine import Apart
from stemflow.runtime.worker.reconnect_backoff import Pauses
from stemflow.store.base import Exchange, Lease, Request, StateLost, StoreError, StoreUnavailable, Want

if TYPE_CHECKING:
    from stemflow.runtime.worker.worker import Worker

log = logging.getLogger("stemflow.worker")

YIELDS = 3
"""Turns of the loop that quick handlers are given before the worker rests; resting costs more than they do."""
STORE_PAUSE_S = 0.5
"""The pause after the store could not be read."""
IDLE_MS = 1_000
"""The longest an idle worker waits before it looks again."""
WITHDRAW_S = 0.5
"""How long a worker that is to end tries to say so to those who might hand it something."""
HEAR_S = 0.02
"""How long after that something may still come."""
LAST_TRIES_S = 5.0
"""How long a worker that is to end goes on trying to reach its store."""
PLENTY = 32
"""So many reports are worth an exchange of their own while another is under way."""


class _Lane:
    """A channel to the store, and what is under way on it: the runs and keys of concurrency that it changes."""

    __slots__ = ("busy", "channel", "names", "sequence")

    def __init__(self, channel: str) -> None:
        self.channel, self.sequence = channel, 0
        self.busy = False
        self.names: set[str] = set()


class Ride:
    """What an exchange beside the pump asks for on behalf of the worker; `arrive` must be called when it is over."""

    __slots__ = ("_pump", "want")

    def __init__(self, pump: Pump, want: Want | None) -> None:
        self._pump, self.want = pump, want

    def arrive(self, answer: Exchange | None) -> None:
        """`answer`: None when there was none."""
        self._pump.arrived(self.want, answer)


class Pump:
    """Rounds one after the other; and where a store lets exchanges overlap, a second one while the first is under way,
    as long as there is plenty to report: then the worker works while the store does."""

    def __init__(self, worker: Worker, channel: str) -> None:
        self.worker, self.store, self.advance = worker, worker.store, worker.advance
        self.apart = Apart(worker)
        self.plenty = PLENTY
        self.stale_decisions = 0
        self._first, self._second = _Lane(channel), _Lane(f"{channel}+")
        self._poked, self._much = asyncio.Event(), asyncio.Event()
        self._futile = False
        """Whether all that is left to report belongs to what is under way."""
        self._asked = 0
        """Slots for which exchanges ask that are under way."""
        self._short = False
        """Whether one of them had to leave slots to another."""
        self._seen = 0
        self._handed = 0
        """Leases that came between exchanges."""
        self._offered = False
        """Whether one may come now."""
        self._news: asyncio.Future[int] | None = None
        self._next_at_ms: int | None = None
        self._ends_at = 0.0

    async def run(self) -> None:
        """Exchange until the worker drains and nothing is left to report."""
        worker = self.worker
        self.advance.contention.hears = True
        beside = asyncio.ensure_future(self._beside()) if self.store.concurrent_exchanges else None
        try:
            while not (worker.draining and not worker.facts and not worker.running and not self._second.busy):
                if beside is not None and beside.done():
                    beside.result()
                self._poked.clear()
                if not self._receive():
                    await self._round(self._first)
                for _ in range(YIELDS):
                    await asyncio.sleep(0)
                    if self._poked.is_set():
                        break
                else:
                    await self._rest()
            await self._withdraw()
        finally:
            self.advance.contention.hears = False
            if self._news is not None:
                self._news.cancel()
            if beside is not None:
                beside.cancel()

    def poke(self) -> None:
        """Something may be ready: do not rest."""
        self._poked.set()
        if self._first.busy and not self._second.busy and not self._futile and len(self.worker.facts) >= self.plenty:
            self._much.set()

    async def _beside(self) -> None:
        try:
            while True:
                await self._much.wait()
                self._much.clear()
                await self._round(self._second)
        finally:
            self._poked.set()

    # -- a round

    async def _round(self, lane: _Lane) -> None:
        """One exchange: commit what has ended, start what is leased. It leases all that it can."""
        lane.busy = True
        try:
            await self._exchanged(lane)
        finally:
            lane.busy, lane.names = False, set()
            self._futile = False
            if lane is self._second:
                # What was left alone for its sake, slots and reports, is looked at again.
                self._poked.set()

    async def _exchanged(self, lane: _Lane) -> None:
        worker = self.worker
        if worker.epoch != self.store.epoch:
            worker.void()
        found = self._batches(lane)
        if lane is self._second and not found:
            self._futile = True
            return
        batches, decisions = [], []
        for batch in found:
            decision = await self._decided(batch)
            if decision is not None:
                batches.append(batch)
                decisions.append(decision)
        # Whoever leaves something in an inbox, or takes it out, is there for what else is in it, even while it drains.
        inbox = worker.draining and any(one.posts or one.consumed for one in decisions)
        want = self._want() if inbox or not worker.draining else None
        asked = 0 if want is None else want.limit
        self._asked += asked
        try:
            answer = await self._exchange(lane, decisions, want)
        except StateLost:
            return  # the store has said so; the next round begins anew
        finally:
            self._asked -= asked
        for batch, decision, committed in zip(batches, decisions, answer.committed, strict=True):
            self.settle(batch, decision, committed, answer)
        done = [one for one, committed in zip(decisions, answer.committed, strict=True) if committed]
        self.advance.contention.answered(done, answer)
        if want is not None:
            self._take(want, answer)

    def _batches(self, lane: _Lane) -> list[list[Fact]]:
        """Facts of one run are decided together, and those of runs that meet in a concurrency key, which all change.

        What belongs to something that is under way on the other lane waits; and where there is plenty, half of it is
        left to that lane.
        """
        facts, self.worker.facts = self.worker.facts, []
        other = self._second if lane is self._first else self._first
        groups = grouped(facts, self.advance.records, self.advance.contention.runs())
        share = len(facts)
        if self.store.concurrent_exchanges and not other.busy and share >= 2 * self.plenty:
            share = (share + 1) // 2
            self._much.set()
        taken: list[list[Fact]] = []
        for names, batch in groups:
            if share <= 0 or not other.names.isdisjoint(names):
                self.worker.facts += batch
            else:
                taken.append(batch)
                lane.names |= names
                share -= len(batch)
        return taken

    def _want(self) -> Want:
        """As many leases as there are slots that are free and not asked for already."""
        worker = self.worker
        self._short = self._asked > 0
        if worker.draining:
            return Want(owner=worker.owner, limit=0, queues=worker.queues, only_run=worker.only_run)
        limit = 0 if self.apart.wary and self._asked else self.apart.limit(self._free)
        busy = worker.running or worker.leaked or self.apart.wary
        waits = self.store.concurrent_exchanges and not busy and worker.only_run is None
        handed = self._handed if waits else None
        self._offered = waits and limit > 0
        return Want(owner=worker.owner, limit=limit, queues=worker.queues, only_run=worker.only_run, pushes=handed)

    async def _decided(self, batch: list[Fact]) -> Decision | None:
        """None when the store could not be read (the facts wait) or the machine failed (they are set aside)."""
        worker = self.worker
        try:
            return await self.advance.decide(batch)
        except StoreError as error:
            log.warning("%s; %d reports wait", error, len(batch))
            worker.facts.extend(batch)
            await asyncio.sleep(STORE_PAUSE_S)
        except SignatureInvalid as error:
            log.critical("%s", error)
            # Runs that share the batch with the one in question go on; a record of nobody here concerns them all.
            mine = [fact for fact in batch if fact.key[0] == error.run] or batch
            worker.facts += [fact for fact in batch if fact not in mine]
            batch[:] = [Distrusted(fact.key, str(error)) for fact in mine]
            return await self.advance.decide(batch)
        except UnknownKey as error:
            log.warning("%s; %d reports are left to a process that has it", error, len(batch))
            await asyncio.sleep(STORE_PAUSE_S)
        except Exception as error:
            log.critical("run %s: its reports are set aside, its leases will be lost", batch[0].key[0], exc_info=True)
            worker.trouble(error)
        return None

    async def _exchange(self, lane: _Lane, decisions: Sequence[Decision], want: Want | None) -> Exchange:
        """One exchange; the same request is sent again until the store answers, or, when the worker is to end, for
        LAST_TRIES_S."""
        lane.sequence += 1
        request = Request(lane.channel, lane.sequence, self.worker.epoch)
        pauses = Pauses(lane.channel, 0.05, 5.0)
        while True:
            try:
                return await self.store.exchange(request, decisions, want)
            except StoreUnavailable as error:
                worker, pause = self.worker, pauses.next()
                if worker.draining and not (decisions or worker.facts or worker.running):
                    log.warning("%s; the worker ends, and has nothing to report", error)
                    now_ms = self.store.now_ms()
                    return Exchange(committed=(), leases=(), timers=(), next_at_ms=None, now_ms=now_ms)
                if worker.draining and self._out_of_time():
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

    def settle(self, batch: list[Fact], decision: Decision, committed: bool, answer: Exchange) -> None:
        """Take over what was committed; what was stale is decided again in the next round."""
        worker = self.worker
        if not committed:
            self.stale_decisions += 1
            self.advance.stale(decision, batch, answer.current)
            worker.facts.extend(batch)
            self._poked.set()  # nobody else may say that there is something to do
            return
        tell_commit(worker.signals, self.advance.library, decision, batch, self.store.now_ms())
        self.advance.committed(decision)
        narrate(batch, decision, answer.now_ms)
        worker.stale_reports += sum(isinstance(fact, Ended) for fact in decision.refused)
        worker.tell_stopped(decision)

    def _take(self, want: Want, answer: Exchange) -> None:
        """Start what an exchange has leased, and note what has become due."""
        worker = self.worker
        worker.facts.extend(answer.timers)
        for inbox in answer.inbox:
            worker.facts.extend(self.advance.handed(inbox))
            self._poked.set()
        started, back = self.apart.sort(answer.leases, asked=want.limit > 0)
        for lease in started:
            worker.start(lease)
        self._return(back)
        self._next_at_ms = answer.next_at_ms

    def _return(self, leases: Sequence[Lease]) -> None:
        for lease in leases:
            self.advance.leased(lease)
            self.worker.facts.append(Ended(lease.node.key, lease.node.delivery, HandedBack()))

    def _receive(self) -> bool:
        """Start what was handed to this worker while it had nothing to do, and nothing else is to be done."""
        leases = self.store.pushed_leases(self.worker.owner)
        if not leases:
            return False
        self._handed += len(leases)
        worker = self.worker
        taken = 0 if worker.draining else self._free
        started, back = self.apart.sort(leases[:taken], asked=False)
        for lease in started:
            worker.start(lease)
        self._return([*back, *leases[taken:]])
        return not worker.facts

    async def _withdraw(self) -> None:
        """From now on nothing is handed to this worker; what was, while it was about to end, is handed back."""
        if not self._offered:
            return
        want = self._want()
        try:
            async with asyncio.timeout(WITHDRAW_S):
                self._take(want, await self._exchange(self._first, [], want))
                await asyncio.sleep(HEAR_S)
                self._receive()
                while self.worker.facts:
                    await self._round(self._first)
        except (TimeoutError, StoreError) as error:
            log.warning("%s: what was handed to this worker just now runs when its lease has run out", error)

    @property
    def _free(self) -> int:
        worker = self.worker
        return max(0, worker.concurrency - len(worker.running) - len(worker.leaked) - self._asked)

    # -- exchanges beside the pump

    def ride(self) -> Ride:
        """For an exchange beside the pump. Between two rounds it leases, too, so that what is submitted begins with the
        commit that stores it."""
        worker = self.worker
        if self._first.busy or self._second.busy or worker.draining or worker.facts or self._asked:
            return Ride(self, None)
        want = self._want()
        self._asked += want.limit
        return Ride(self, want)

    def arrived(self, want: Want | None, answer: Exchange | None) -> None:
        """An exchange beside the pump is over, or (None) failed."""
        if want is not None:
            self._asked -= want.limit
            if answer is not None:
                self._take(want, answer)
        if want is None or answer is None or self.worker.facts or self._short:
            self._poked.set()

    # -- rest

    async def _rest(self) -> None:
        """Wait for a report, a commit by somebody else, or the next instant at which something is due."""
        worker = self.worker
        if worker.draining and not worker.running and not self._second.busy:
            return
        if self._news is None:
            self._news = asyncio.ensure_future(self.store.wait_for_work(worker.owner, self._seen, IDLE_MS))
            self._news.add_done_callback(lambda _: self._poked.set())
        alarm = None
        if self._next_at_ms is not None:
            left_ms = max(1, self._next_at_ms - self.store.now_ms())
            alarm = asyncio.get_running_loop().call_later(left_ms / 1_000, self._poked.set)
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
