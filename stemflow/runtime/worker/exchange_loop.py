"""The exchange loop of a worker: each exchange with the store commits what ended and leases what is next."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from functools import partial

from stemflow.model.effects import Decision
from stemflow.model.facts import Ended, Fact, HandedBack
from stemflow.runtime.commit.ahead import Ahead
from stemflow.runtime.commit.batching import batches_of
from stemflow.runtime.commit.committer import Piggyback
from stemflow.runtime.commit.decider import Decider
from stemflow.runtime.commit.events import send_commit_signals
from stemflow.runtime.commit.log import log_commit
from stemflow.runtime.worker.ageing import Ageing
from stemflow.runtime.worker.batch_decider import STORE_PAUSE_S, BatchDecider
from stemflow.runtime.worker.quarantine import Quarantine
from stemflow.runtime.worker.reconnect_backoff import ReconnectBackoff
from stemflow.runtime.worker.slots import NO_OVERLAP, Slots
from stemflow.runtime.worker.worker import Worker
from stemflow.store.base import Exchange, Lease, Request, StateLost, StoreError, StoreUnavailable, Want

log = logging.getLogger("stemflow.worker")

YIELDS = 3
"""Iterations of the event loop that quick handlers get before the loop rests; resting costs more than they do."""
IDLE_MS = 1_000
"""The longest rest of an idle worker."""
WITHDRAW_S = 0.5
"""How long a worker that shuts down tries to tell the store that it takes no more pushed leases."""
LATE_PUSH_S = 0.02
"""How long after that a pushed lease may still arrive."""
LAST_TRIES_S = 5.0
"""How long a worker that shuts down tries to reach its store."""
OVERLAP_FROM = 32
"""The number of waiting reports for which a second exchange is worthwhile while the first is under way."""


class _Channel:
    """A channel to the store, and the runs and concurrency keys that the exchange under way on it changes."""

    __slots__ = ("busy", "name", "names", "sequence")

    def __init__(self, name: str) -> None:
        self.name, self.sequence = name, 0
        self.busy = False
        self.names: set[str] = set()


class ExchangeLoop:
    """Makes one exchange after the other, until the worker is drained.

    Where a store allows concurrent exchanges, a second one is made while the first is under way, when at least
    `overlap_from` reports wait: the worker then works while the store does.
    """

    def __init__(
        self, slots: Slots, worker: Worker, decider: Decider, channel: str, *, overlap_from: int = OVERLAP_FROM
    ) -> None:
        self.slots, self.worker, self.store, self.decider = slots, worker, slots.store, decider
        self._released, self._ageing = slots.released, Ageing()
        self.quarantine = Quarantine(slots, decider.library.shapes)
        self._batch_decider = BatchDecider(decider, slots.put_back, slots.settled, worker.send_error)
        self.stale_decisions = 0
        """Decisions that others' commits had overtaken."""
        self.stale_reports = 0
        """Reports that were refused because their lease had been lost."""
        self._overlap_from = overlap_from
        self._first, self._second = _Channel(channel), _Channel(f"{channel}+")
        self._epoch = self.store.epoch
        self._futile = False
        """Every waiting report concerns a run that the current exchange changes: a second one would commit nothing."""
        self._short = False
        """An exchange left free slots out of its request for leases, because another one had asked for them."""
        self._seen = 0
        """The count of notifications that were received."""
        self._pushed = 0
        """Leases that the store pushed between two exchanges."""
        self._offered = False
        """The store may push a lease now."""
        self._notified: asyncio.Future[int] | None = None
        self._next_at_ms: int | None = None
        """When the next timer or delayed task is due."""
        self._alarm: asyncio.TimerHandle | None = None
        """Ends the rest at that time; None between rests."""
        self._ends_at = 0.0

    async def run(self) -> None:
        """Exchange until the worker is drained and nothing is left to report. Raises StoreUnavailable."""
        overlapping = asyncio.ensure_future(self._overlap()) if self.store.concurrent_exchanges else None
        try:
            with self.decider.contention.inboxes_leased():
                await self._exchange_until_drained(overlapping)
                await self._withdraw()
        finally:
            if self._notified is not None:
                self._notified.cancel()
            if overlapping is not None:
                overlapping.cancel()

    async def _exchange_until_drained(self, overlapping: asyncio.Future[None] | None) -> None:
        slots = self.slots
        while not (slots.draining and not slots.facts and not slots.running and not self._second.busy):
            if overlapping is not None and overlapping.done():
                overlapping.result()
            slots.changed.clear()
            if not self._start_pushed():
                await self._exchange_on(self._first)
            for _ in range(YIELDS):
                await asyncio.sleep(0)
                if slots.changed.is_set():
                    break
            else:
                await self._rest()

    async def _overlap(self) -> None:
        """Make exchanges on the second channel, whenever enough reports wait."""
        try:
            while True:
                await self.slots.overlap.wait()
                self.slots.overlap.clear()
                await self._exchange_on(self._second)
        finally:
            self.slots.changed.set()

    def _watch_reports(self) -> None:
        """Ask the slots to signal when enough reports wait, if a second exchange is possible now."""
        may_overlap = self._first.busy and not self._second.busy and not self._futile
        self.slots.signal_overlap(self._overlap_from if may_overlap else NO_OVERLAP)

    # -- one exchange

    async def _exchange_on(self, channel: _Channel) -> None:
        """Commit what has ended and lease as much as there are free slots."""
        channel.busy = True
        if self.store.concurrent_exchanges:
            self._watch_reports()
        try:
            await self._commit_and_lease(channel)
        finally:
            channel.busy, channel.names = False, set()
            self._futile = False
            self._released.admit()
            if self.store.concurrent_exchanges:
                self._watch_reports()
            if channel is self._second:
                # The first channel left slots and reports to this one, and has to look again.
                self.slots.changed.set()

    async def _commit_and_lease(self, channel: _Channel) -> None:
        slots = self.slots
        if self._epoch != self.store.epoch:
            self._epoch = self.store.epoch
            self.worker.void()
        found = self._batches(channel)
        if channel is self._second and not found:
            self._futile = True
            self._watch_reports()
            return
        batches, decisions = [], []
        ahead = Ahead()
        for batch in found:
            for facts, decision in await self._batch_decider.decide(batch, ahead):
                batches.append(facts)
                decisions.append(decision)
        # A draining worker that posts to or consumes an inbox goes on leasing inboxes, so that no post waits for
        # INBOX_MS.
        inbox = slots.draining and any(one.posts or one.consumed for one in decisions)
        want = self._want() if inbox or not slots.draining else None
        requested = 0 if want is None else want.limit
        self._released.request(requested)
        try:
            answer = await self._exchange(channel, decisions, want)
        except StateLost:
            return  # the store has logged it; the next exchange starts afresh
        finally:
            self._released.answered(requested)
            slots.settled()
        for batch, decision, committed in zip(batches, decisions, answer.committed, strict=True):
            self.settle(batch, decision, committed, answer)
        done = [one for one, committed in zip(decisions, answer.committed, strict=True) if committed]
        self.decider.contention.answered(done, answer)
        if want is not None:
            self._take(want, answer)

    def _batches(self, channel: _Channel) -> list[list[Fact]]:
        """Take the facts for one exchange, in batches that are decided together.

        Facts of one run form a batch; so do those of runs that share a concurrency key, whose record all of them
        change. Facts that touch what is under way on the other channel wait; if there are many facts, half of them are
        left to the other channel.
        """
        slots = self.slots
        facts = slots.take_reports()
        other = self._second if channel is self._first else self._first
        groups = batches_of(facts, self.decider.records, self.decider.contention.runs())
        share = len(facts)
        if self.store.concurrent_exchanges and not other.busy and share >= 2 * self._overlap_from:
            share = (share + 1) // 2
            slots.overlap.set()
        taken: list[list[Fact]] = []
        for names, batch in groups:
            if share <= 0 or not other.names.isdisjoint(names):
                slots.put_back(batch)
            else:
                taken.append(batch)
                channel.names |= names
                share -= len(batch)
        return taken

    def _want(self) -> Want:
        """Ask for as many leases as there are free slots that no other exchange asks for."""
        slots = self.slots
        self._short = self._released.requested > 0
        if slots.draining:
            return slots.want(0)
        quarantined = self.quarantine.active
        limit = 0 if quarantined and self._released.requested else self.quarantine.limit(self._released.free)
        busy = slots.running or slots.leaked or quarantined
        idle = self.store.concurrent_exchanges and not busy and slots.only_run is None
        self._offered = idle and limit > 0
        pushes = self._pushed if idle else None
        return slots.want(limit, pushes, self._ageing.share(limit))

    async def _exchange(self, channel: _Channel, decisions: Sequence[Decision], want: Want | None) -> Exchange:
        """Send one request until the store answers; a worker that shuts down gives up after LAST_TRIES_S seconds."""
        channel.sequence += 1
        request = Request(channel.name, channel.sequence, self._epoch)
        backoff = ReconnectBackoff(channel.name, 0.05, 5.0)
        while True:
            try:
                return await self.store.exchange(request, decisions, want)
            except StoreUnavailable as error:
                slots, pause_s = self.slots, backoff.next_s()
                if slots.draining and not (decisions or slots.facts or slots.running):
                    self._leave_unreported(error)
                    now_ms = self.store.now_ms()
                    return Exchange(committed=(), leases=(), timers=(), next_at_ms=None, now_ms=now_ms)
                if slots.draining and self._out_of_time():
                    log.critical(
                        "%s; the worker ends without its last %d reports, whose tasks run again when their leases have "
                        "expired", error, len(decisions),
                    )  # fmt: skip
                    raise
                log.warning("%s; trying again in %.2f s", error, pause_s)
                await slots.pause(pause_s)

    def _leave_unreported(self, why: object) -> None:
        """Note that the store cannot be reached any more, and that this worker has nothing to report to it."""
        log.warning(
            "%s; the worker ends, and has nothing to report; a task that was pushed to it just now runs when its "
            "lease has expired", why,
        )  # fmt: skip
        self._offered = False

    def _out_of_time(self) -> bool:
        now = asyncio.get_running_loop().time()
        self._ends_at = self._ends_at or now + LAST_TRIES_S
        return now >= self._ends_at

    def settle(self, batch: list[Fact], decision: Decision, committed: bool, answer: Exchange) -> None:
        """Note what was committed; put a batch whose decision was stale back for the next exchange."""
        slots = self.slots
        if not committed:
            self.stale_decisions += 1
            self.decider.stale(decision, batch, answer.current)
            slots.facts.extend(batch)
            slots.changed.set()  # no other event announces these facts
            return
        self.decider.counting.count(self.decider.library, decision, batch, answer.now_ms)
        send_commit_signals(self.worker.signals, self.decider.library, decision, batch, answer.now_ms)
        self.decider.committed(decision)
        log_commit(batch, decision, answer.now_ms)
        if decision.refused:
            self.stale_reports += sum(isinstance(fact, Ended) for fact in decision.refused)
        slots.settled(batch)
        slots.stop_handlers(decision)

    # -- leases

    def _take(self, want: Want, answer: Exchange) -> None:
        """Start the leases of an exchange, and queue the timers and inboxes that it brought."""
        slots = self.slots
        self._ageing.answered(want.limit, len(answer.leases))
        slots.facts.extend(answer.timers)
        for inbox in answer.inbox:
            slots.facts.extend(self.decider.inbox_facts(inbox))
        if answer.timers or answer.inbox:
            slots.changed.set()
        started, returned = self.quarantine.admit(answer.leases, asked=want.limit > 0)
        for lease in started:
            self.worker.start(lease)
        self._return(returned)
        self._next_at_ms = answer.next_at_ms
        if self._alarm is not None:
            self._set_alarm()  # at rest: a submission carried this request

    def _return(self, leases: Sequence[Lease]) -> None:
        """Queue leases to be given back, uncharged."""
        for lease in leases:
            self.decider.remember_lease(lease)
            self.slots.facts.append(Ended(lease.node.key, lease.node.delivery, HandedBack(), 0, self.slots.name))

    def _start_pushed(self) -> bool:
        """Start the leases that the store pushed to this idle worker; return whether nothing else is to be done."""
        slots = self.slots
        leases = self.store.pushed_leases(slots.owner)
        if not leases:
            return False
        self._pushed += len(leases)
        taken = 0 if slots.draining else self._released.free
        started, returned = self.quarantine.admit(leases[:taken], asked=False)
        for lease in started:
            self.worker.start(lease)
        self._return([*returned, *leases[taken:]])
        return not slots.facts

    async def _withdraw(self) -> None:
        """Tell the store that this worker takes no more pushed leases, and give back those that arrive meanwhile."""
        if not self._offered:
            return
        want, late = self._want(), f"{self.store.url}: no answer within {WITHDRAW_S} s"
        try:
            async with asyncio.timeout(WITHDRAW_S):
                self._take(want, await self._exchange(self._first, [], want))
        except (TimeoutError, StoreError) as error:
            return self._leave_unreported(str(error) or late)
        await asyncio.sleep(LATE_PUSH_S)
        self._start_pushed()
        try:
            async with asyncio.timeout(WITHDRAW_S):
                while self.slots.facts:
                    await self._exchange_on(self._first)
        except (TimeoutError, StoreError) as error:
            log.warning(
                "%s; tasks that were pushed to this worker just now run when their leases have expired",
                str(error) or late,
            )

    def piggyback(self) -> Piggyback:
        """A request for leases that the exchange of a submission carries, if this loop is at rest with free slots.

        A task then starts with the commit that stores its run, and needs no exchange of its own.
        """
        slots = self.slots
        if self._first.busy or self._second.busy or slots.draining or slots.facts or self._released.requested:
            return Piggyback(None, partial(self._carried, None))
        want = self._want()
        self._released.request(want.limit)
        return Piggyback(want, partial(self._carried, want))

    def _carried(self, want: Want | None, answer: Exchange | None) -> None:
        """The exchange that carried `want` is done; `answer` is None if it failed."""
        if want is not None:
            self._released.answered(want.limit)
            if answer is not None:
                self._take(want, answer)
            self._released.admit()
        if want is None or answer is None or self.slots.facts or self._short:
            self.slots.changed.set()

    # -- rest

    def _set_alarm(self) -> None:
        """Let the rest end when something is due, or after IDLE_MS."""
        if self._alarm is not None:
            self._alarm.cancel()
        left_ms = IDLE_MS if self._next_at_ms is None else max(1, self._next_at_ms - self.store.now_ms())
        self._alarm = asyncio.get_running_loop().call_later(left_ms / 1_000, self.slots.changed.set)

    async def _rest(self) -> None:
        """Wait for a report, a notification of another's commit, or the time at which something is due."""
        slots = self.slots
        if slots.draining and not slots.running and not self._second.busy:
            return
        if self._notified is None:
            self._notified = asyncio.ensure_future(self.store.wait_for_work(slots.owner, self._seen, IDLE_MS))
            self._notified.add_done_callback(lambda _: slots.changed.set())
        self._set_alarm()
        try:
            # A notification that came during an exchange found nobody resting.
            if not self._notified.done():
                await slots.changed.wait()
        finally:
            if self._alarm is not None:
                self._alarm.cancel()
                self._alarm = None
        if self._notified.done():
            notified, self._notified = self._notified, None
            try:
                self._seen = notified.result()
            except StoreError as error:
                log.warning("%s; trying again in %.1f s", error, STORE_PAUSE_S)
                await asyncio.sleep(STORE_PAUSE_S)
