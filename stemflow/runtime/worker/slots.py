"""The state that a worker and its exchange loop share: leases in flight, reports to commit, free slots."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from stemflow.model.effects import Decision
from stemflow.model.facts import Ended, Fact, Failed, HandedBack, Lost
from stemflow.model.records import CANCELLED, STOPPING, ErrorInfo, Key, Node
from stemflow.runtime.attempt.in_flight import LEASES_HELD, Running
from stemflow.runtime.catalog.controls import NO_CONTROLS, Controls, WorkerOrder
from stemflow.runtime.worker.released_slots import ReleasedSlots
from stemflow.store.base import Store, Want

log = logging.getLogger("stemflow.worker")

BLOCKED_S = 0.1
"""After handlers have blocked the event loop for this long, their reports are committed before the next handler is
called."""
STORE_SLOW_S = 5.0
"""The longest that `wait_for_reports` waits, counted from the end of the last handler."""
NO_OVERLAP = sys.maxsize
"""The number of reports for `Slots.signal_overlap` with which none starts a second exchange."""


class Slots:
    """The slots of one worker: which leases it holds, which handlers still take a slot, which reports wait.

    `owner` names the worker in the store, `name` for people (default: `owner`). `concurrency` is the number of slots,
    `queues` those it serves (None: all), `only_run` the one run it serves (None: all), `tasks` gives the tasks that it
    leases (None: all).
    """

    def __init__(
        self,
        store: Store,
        *,
        owner: str,
        name: str | None = None,
        concurrency: int = 100,
        queues: tuple[str, ...] | None = None,
        only_run: str | None = None,
        tasks: Callable[[], frozenset[str] | None] = lambda: None,
    ) -> None:
        self.store = store
        self.owner, self.concurrency = owner, concurrency
        self.name = name or owner
        self.queues, self.only_run, self.tasks = queues, only_run, tasks
        self.running: dict[tuple[Key, int], Running] = {}
        """Leases in flight by node and fencing token."""
        self.leaked: dict[asyncio.Future[Any], Running] = {}
        """Handlers whose lease was given up and that have not returned; each takes a slot until it does."""
        self.released = ReleasedSlots(concurrency, self.running, self.leaked)
        """Slots of handlers that wait for runs; knows how many slots are free."""
        self.facts: list[Fact] = []
        """Reports for the next exchange."""
        self.unreported: dict[tuple[Key, int], int] = {}
        """Leases, by node and fencing token, of handlers that have ended and whose report is not committed yet, with
        their length in ms: they are renewed until then."""
        self._last_report_at = 0.0
        """When a handler ended last, in seconds of the loop's clock."""
        self._iteration_at: float | None = None
        """When the first handler of this iteration of the event loop was called, in seconds of the loop's clock."""
        self._has_blocked = False
        """One of the handlers in `unreported` has blocked the event loop."""
        self._settled = asyncio.Event()
        self.draining = False
        """The worker takes no new leases."""
        self._drained = asyncio.Event()
        self._handing_back = False
        self.changed = asyncio.Event()
        """There may be something to do: the exchange loop does not rest."""
        self.started = asyncio.Event()
        """A lease has begun since somebody waited for one."""
        self.overlap = asyncio.Event()
        """Enough reports wait for an exchange on the second channel."""
        self._reports_leave = True
        self.controls = NO_CONTROLS
        """What operators want, as it was last read."""
        self._started_with = concurrency
        self.on_hold = False
        """An operator wants that nothing new is leased."""
        self._overlap_from = NO_OVERLAP
        """The number of waiting reports that sets `overlap`."""

    @property
    def handing_back(self) -> bool:
        """The worker gives back every lease, uncharged."""
        return self._handing_back

    def hand_back(self) -> None:
        """Give back every lease from now on, uncharged."""
        self._handing_back = True

    def signal_overlap(self, reports: int) -> None:
        """Set `overlap` when so many reports wait; NO_OVERLAP: never."""
        self._overlap_from = reports

    def give_up_reports(self) -> None:
        """The exchange loop has ended with an error: no report is committed any more, and no lease renewed for one."""
        self._reports_leave = False

    def drain(self) -> None:
        """Take no new leases from now on."""
        self.draining = True
        self._drained.set()
        self.wake()

    async def pause(self, pause_s: float) -> None:
        """Wait for `pause_s` seconds before the store is tried again, or until the worker begins to drain."""
        if self.draining:
            return await asyncio.sleep(pause_s)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(pause_s):
                await self._drained.wait()

    def want(self, limit: int, pushes: int | None = None, oldest: int = 0) -> Want:
        """A request for up to `limit` leases, `oldest` of them by age, of what this worker serves and nobody paused."""
        tasks, paused = self.tasks(), False
        without: tuple[str, ...] = ()
        if self.controls.pauses:
            now_ms = self.store.now_ms()
            lasting = [one for one in self.controls.pauses if one.lasts(now_ms)]
            paused, without = bool(lasting), tuple([one.name for one in lasting if one.kind == "queue"])
            if tasks is not None:
                tasks = tasks.difference(one.name for one in lasting if one.kind == "task")
        return Want(
            owner=self.owner, limit=0 if self.on_hold else limit, queues=self.queues, only_run=self.only_run,
            tasks=tasks, pushes=None if paused or self.on_hold else pushes, without=without, oldest=oldest,
        )  # fmt: skip

    def obey(self, controls: Controls, order: WorkerOrder) -> None:
        """Apply what operators want, `order` of this worker, and look for work again."""
        self.controls = controls
        self.on_hold = order.drain
        self.concurrency = order.concurrency or self._started_with
        self.released.resize(self.concurrency)
        self.wake()

    def wake(self) -> None:
        """Something may have to be done: the exchange loop is not to rest."""
        self.released.admit()
        self.changed.set()
        if len(self.facts) >= self._overlap_from:
            self.overlap.set()

    def report(self, fact: Fact) -> None:
        """Queue a report for the next exchange."""
        self.facts.append(fact)
        self.wake()

    def put_back(self, facts: Iterable[Fact]) -> None:
        """Queue reports again, for a later exchange."""
        self.facts.extend(facts)

    def await_commit(self, node: Node) -> None:
        """The handler of this lease has ended; the lease is renewed until its report is committed."""
        self.unreported[(node.run, node.path), node.delivery] = node.lease_ms
        self._last_report_at = now_s = asyncio.get_running_loop().time()
        if self._iteration_at is not None and now_s - self._iteration_at > BLOCKED_S:
            self._has_blocked = True

    def take_reports(self) -> list[Fact]:
        """The reports for one exchange; `settled` is called when it is over."""
        facts, self.facts = self.facts, []
        return facts

    def settled(self, facts: Sequence[Fact] = ()) -> None:
        """An exchange is over; the reports `facts` are committed or given up, so that their leases need no renewal."""
        for fact in facts:
            if isinstance(fact, (Ended, Lost)):
                self.unreported.pop((fact.key, fact.token), None)
        if not self.unreported:
            self._has_blocked = False
            self._settled.set()

    async def wait_for_reports(self) -> None:
        """Wait, before a handler is called, until the reports of those that have just blocked the loop are committed.

        Else a worker that is killed while handlers block its loop in turn would take all their results with it. The
        wait ends STORE_SLOW_S after the last report for a store that does not answer; the time for which handlers
        block the loop meanwhile does not count.
        """
        while True:
            if self._iteration_at is None:
                loop = asyncio.get_running_loop()
                self._iteration_at = loop.time()
                loop.call_soon(self._next_iteration)
            if not self.unreported:
                return
            if not self._has_blocked and asyncio.get_running_loop().time() - self._iteration_at <= BLOCKED_S:
                return
            while self.unreported:
                left_s = self._last_report_at + STORE_SLOW_S - asyncio.get_running_loop().time()
                if left_s <= 0:
                    return
                self._settled.clear()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(left_s):
                        await self._settled.wait()

    def _next_iteration(self) -> None:
        self._iteration_at = None

    def held(self, loop_held_ms: int = 0) -> list[tuple[Key, int, int]]:
        """The leases to renew, as (key, fencing token, lease in ms).

        `loop_held_ms`: how long a handler has blocked the event loop; while it does, leases are renewed for a limited
        time only.
        """
        now_ms = self.store.now_ms()
        held = [one.held() for one in self.running.values() if one.renewable(now_ms, loop_held_ms)]
        waiting = self.unreported.items() if self._reports_leave else ()
        return held + [(*one, lease_ms) for one, lease_ms in waiting if loop_held_ms <= LEASES_HELD * lease_ms]

    def lose(self, key: Key, token: int) -> None:
        """Cancel the handler of a lease that is lost: the store would refuse its report."""
        running = self.running.get((key, token))
        if running is not None:
            log.warning("the lease of %s was lost; its handler is cancelled and its report will not count", key)
            running.cancel(HandedBack())

    def stop(self, key: Key, token: int, kill: bool) -> None:
        """Forward a stop request to a node. Only `kill` cancels its handler; otherwise the handler may finish."""
        running = self.running.get((key, token))
        if running is not None and kill:
            running.cancel(
                Failed(ErrorInfo("TaskCancelled", "its run was cancelled", "stemflow.TaskCancelled"), "final")
            )

    def stop_handlers(self, decision: Decision) -> None:
        """Stop the handlers here of the nodes that a committed decision stops or has cancelled by force."""
        for put in decision.puts:
            node = put.record
            if isinstance(node, Node) and node.tally is None and node.state in (STOPPING, CANCELLED):
                self.stop(node.key, node.delivery, node.kill or node.state == CANCELLED)
