"""The store in memory: for tests, simulation and runs that nobody needs to find again. One process, one event loop."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from stemflow.model.effects import DeadLetter, Decision, Put
from stemflow.model.facts import Due
from stemflow.model.leaf_status import LeafStatus
from stemflow.model.plan import Plan
from stemflow.model.records import FINAL, NO_RUN, Claim, Header, Key, Node, Record
from stemflow.ports import Clock
from stemflow.store.base import (
    ALL_DEAD_LETTERS,
    LOSS_LEASE_MS,
    MEMO_MS,
    DeadLetterFilter,
    EndedBadly,
    Exchange,
    ExpiredCounts,
    Lease,
    Request,
    RunInfo,
    StoreError,
    Want,
)
from stemflow.store.health import Finding, HealthReport, Inventory
from stemflow.store.index_rules import changes_something, commit_each, guarded, may_hold_lease, timer_of, window_of
from stemflow.store.memory.hints import Hints
from stemflow.store.memory.inbox import Inboxes
from stemflow.store.memory.inventory import leaf_status, queues_of
from stemflow.store.memory.queue import Queues, Timers
from stemflow.store.memory.renewer import Held, MemoryRenewer
from stemflow.store.memory.retention import BadlyEnded, DeadLetters, Ends, Plans
from stemflow.store.places import place_of, split
from stemflow.store.rate_windows import Past, Windows
from stemflow.store.steady_clock import SteadyClock
from stemflow.store.waiters import Changes, Watches


class _Memo(NamedTuple):
    """The last request of a channel that changed something, with its answer: (key, token) of each lease."""

    sequence: int
    at_ms: int
    committed: tuple[bool, ...]
    held: tuple[tuple[Key, int], ...]


class MemoryStore:
    """All records in dicts; a method that changes something has no await in it, so each is atomic."""

    def __init__(self, url: str, clock: Clock) -> None:
        self.url = url
        self.address = ""
        self.concurrent_exchanges = False
        self.epoch = 0
        self._time = SteadyClock(clock)
        self.now_ms = self._time.now_ms
        self._records: dict[Key, Record] = {}
        self._order: dict[Key, int] = {}
        self._count = 0
        self._paths: dict[str, list[Key]] = {}
        self._headers: dict[str, Header] = {}
        self._plans = Plans()
        self._pages: dict[str, dict[tuple[str, int], bytes]] = {}
        self._dead = DeadLetters()
        self._ends = Ends()
        self._badly_ended = BadlyEnded()
        self._queues = Queues()
        self._timers = Timers()
        self._leases: dict[Key, Held] = {}
        self._windows: dict[Key, int] = {}
        self._past: dict[str, Past] = {}
        self._past_until: dict[str, int] = {}
        self._memos: dict[str, _Memo] = {}
        self._hints = Hints()
        self._inboxes = Inboxes()
        self._changes = Changes()
        self._watches = Watches()
        self._users = 0

    async def open(self) -> None:
        """Count one more user of the object."""
        self._users += 1

    async def close(self) -> None:
        """Count one user less; with the last one, those who wait get StoreClosed. What was stored stays."""
        self._users = max(0, self._users - 1)
        if not self._users:
            self._watches.close(self.url)

    # -- exchange

    async def exchange(self, request: Request, decisions: Sequence[Decision], want: Want | None) -> Exchange:
        now_ms = self.now_ms()
        memo = self._memos.get(request.channel)
        if memo is not None and request.sequence <= memo.sequence:
            return self._repeat(request, memo, decisions, want, now_ms)
        committed = commit_each(decisions, lambda one: self._commit(one, now_ms))
        leases, timers, next_at_ms = self._lease_wanted(want, now_ms) if want is not None else ((), (), None)
        if leases or any(ok and changes_something(one) for ok, one in zip(committed, decisions, strict=True)):
            held = tuple([(lease.node.key, lease.node.delivery) for lease in leases])
            self._memos[request.channel] = _Memo(request.sequence, now_ms, committed, held)
        inbox, busy = self._inboxes.take(want, self._records, now_ms)
        return Exchange(
            committed=committed,
            leases=leases,
            timers=timers,
            next_at_ms=next_at_ms,
            now_ms=now_ms,
            current=self._current(decisions, committed),
            inbox=inbox,
            busy_inboxes=busy,
        )

    def _current(
        self, decisions: Sequence[Decision], committed: Sequence[bool]
    ) -> tuple[tuple[Key, Record | None], ...]:
        if all(committed):
            return ()
        return tuple([(key, self._records.get(key)) for key in guarded(decisions, committed)])

    def _repeat(
        self, request: Request, memo: _Memo, decisions: Sequence[Decision], want: Want | None, now_ms: int
    ) -> Exchange:
        sequence, committed, held = memo.sequence, memo.committed, memo.held
        if request.sequence < sequence:
            raise StoreError(
                f"{self.url}: channel {request.channel}: expected request {sequence} or later, got {request.sequence}; "
                "give each caller a channel of its own"
            )
        leases = []
        for key, token in held:
            entry, node = self._leases.get(key), self._records.get(key)
            if entry is not None and entry.token == token and isinstance(node, Node):
                leases.append(self._granted(node, entry.until_ms))
        timers, next_at_ms = self._due(want, now_ms) if want is not None else ((), None)
        return Exchange(
            committed=committed,
            leases=tuple(leases),
            timers=timers,
            next_at_ms=next_at_ms,
            now_ms=now_ms,
            current=self._current(decisions, committed),
        )

    def _commit(self, decision: Decision, now_ms: int) -> bool:
        records, dropped = self._records, decision.dropped
        puts = (*decision.puts, *decision.twins()) if decision.also else decision.puts
        for put in puts:
            stored = None if put.key[0] in dropped else records.get(put.key)
            if (stored.rev if stored is not None else 0) != put.guard:
                return False
            if stored.__class__ is Node and stored.delivery != put.token:
                return False
        for key, rev, token in decision.seen:
            stored = records.get(key)
            if (stored.rev if stored is not None else 0) != rev:
                return False
            if stored.__class__ is Node and stored.delivery != token:
                return False
        for run in dropped:
            self._drop(run)
        for put in puts:
            if put.key[0] == NO_RUN:
                self._put_shared(put)
            else:
                self._put_node(put, now_ms)
        self._rest(decision, now_ms)
        if changes_something(decision):
            self._changes.note()
        return True

    def _rest(self, decision: Decision, now_ms: int) -> None:
        for header in (*decision.headers, *decision.also):
            if self._headers.setdefault(header.run, header) is header:
                self._plans.use(header.run, header.plan)
        for plan in decision.plans:
            self._plans.add(plan)
        for run, digest in decision.fragments:
            self._plans.use(run, digest)
        for some in decision.pages:
            run, path = some.key
            self._pages.setdefault(run, {}).update(((path, n), page) for n, page in enumerate(some.pages))
        self._inboxes.commit(decision)
        self._dead.drop(decision.purged)
        self._dead.add(decision.dead)
        for end in decision.ended:
            self._ends.set(end.run, max(now_ms + end.keep_ms, self._dead.until_ms(end.run)))
            root = self._root(end.run)
            if root is not None:
                self._badly_ended.add(root, self._order[root.key])
            self._watches.resolve(end.run, root)

    async def waiting_tasks(self) -> list[tuple[str, str]]:
        return [found for place in self._queues.places() if (found := split(place))[1]]

    def _put_shared(self, put: Put) -> None:
        self._windows.pop(put.key, None)
        if put.record is None:
            self._records.pop(put.key, None)
            return
        self._records[put.key] = put.record
        until_ms = None if isinstance(put.record, Node) else window_of(put.record)
        if until_ms is not None:
            self._windows[put.key] = until_ms

    def _put_node(self, put: Put, now_ms: int) -> None:
        key, node = put.key, put.record
        if not isinstance(node, Node):
            raise TypeError(f"put {key}: expected a Node, got {node!r}")
        if put.guard == 0:
            self._order[key] = self._count = self._count + 1
            self._paths.setdefault(key[0], []).append(key)
        elif key in self._leases and not may_hold_lease(node):
            del self._leases[key]
        self._records[key] = node
        if node.state == "ready":
            self._queues.add(node, place_of(node.queue, put.task), self._order[key], now_ms)
        if node.due_at_ms is not None or key in self._timers:
            self._timers.set(key, timer_of(node))

    # -- leasing

    def _lease_wanted(self, want: Want, now_ms: int) -> tuple[tuple[Lease, ...], tuple[Due, ...], int | None]:
        windows = Windows(now_ms, self._past.get)
        nodes, blocked = self._queues.take(want, self._records, windows, now_ms)
        for key, past in windows.started().items():
            self._past[key], self._past_until[key] = past, now_ms + past.span_ms
        leases = tuple([self._lease(node, now_ms) for node in nodes])
        timers, next_at_ms = self._due(want, now_ms)
        free_at_ms = self._inboxes.next_at_ms(want.only_run, now_ms)
        instants = [at_ms for at_ms in (next_at_ms, blocked, free_at_ms) if at_ms is not None]
        return leases, timers, min(instants, default=None)

    def _lease(self, ready: Node, now_ms: int) -> Lease:
        """READY x leased, the one cell of the table that a store carries out."""
        node = copy.copy(ready)
        node.state = "running"
        node.delivery += 1
        key = node.key
        until_ms = now_ms + node.lease_ms
        self._records[key] = node
        self._leases[key] = Held(node.delivery, until_ms)
        if key in self._timers:
            self._timers.set(key, timer_of(node))
        return self._granted(node, until_ms)

    def _granted(self, node: Node, until_ms: int) -> Lease:
        return Lease(node, until_ms, None if node.path else self._headers.get(node.run))

    def _due(self, want: Want, now_ms: int) -> tuple[tuple[Due, ...], int | None]:
        timers, timer_at_ms = self._timers.due(want.only_run, now_ms)
        delayed_at_ms = self._queues.next_at_ms(want, self._records, now_ms)
        instants = [at_ms for at_ms in (timer_at_ms, delayed_at_ms) if at_ms is not None]
        return timers, min(instants, default=None)

    # -- leases

    async def take_expired(self, owner: str, limit: int, run: str | None = None) -> list[Lease]:
        now_ms = self.now_ms()
        late = [
            (held.until_ms, self._order[key], key)
            for key, held in self._leases.items()
            if held.until_ms <= now_ms and run in (None, key[0])
        ]
        return [self._transfer(key, now_ms) for _, _, key in sorted(late)[:limit]]

    def _transfer(self, key: Key, now_ms: int) -> Lease:
        node = copy.copy(self._records[key])
        assert isinstance(node, Node)
        node.delivery += 1
        held = Held(node.delivery, now_ms + LOSS_LEASE_MS)
        self._records[key], self._leases[key] = node, held
        return self._granted(node, held.until_ms)

    def renewer(self) -> MemoryRenewer:
        return MemoryRenewer(self._leases, self._records, self.now_ms)

    # -- reading

    def partition_of(self, run: str) -> int:
        return 0

    async def read(self, keys: Sequence[Key]) -> list[Record | None]:
        return [self._records.get(key) for key in keys]

    def records(self) -> Iterable[Record]:
        """All records, for simulations that must know whether anything is due."""
        return self._records.values()

    async def nodes(self, run: str) -> list[Node]:
        return [node for key in self._paths.get(run, ()) if isinstance(node := self._records[key], Node)]

    async def leaf_status(self, keys: Sequence[Key]) -> list[LeafStatus | None]:
        return leaf_status(keys, self._records, self._order, self._leases, self._past.get, self.now_ms())

    async def leased(self, limit: int) -> list[Lease]:
        first = sorted(self._leases, key=lambda key: (self._leases[key].until_ms, self._order[key]))[:limit]
        nodes = [self._records[key] for key in first]
        return [Lease(one, self._leases[one.key].until_ms) for one in nodes if isinstance(one, Node)]

    async def claims(self, limit: int, after: str = "") -> list[Claim]:
        claims = (one for one in self._records.values() if isinstance(one, Claim))
        in_use = (one for one in claims if one.key > after and (NO_RUN, one.key) not in self._windows)
        return sorted(in_use, key=lambda one: one.key)[:limit]

    async def header(self, run: str) -> Header | None:
        return self._headers.get(run)

    async def plan(self, digest: str) -> Plan | None:
        return self._plans.get(digest)

    async def page(self, key: Key, number: int) -> bytes | None:
        run, path = key
        return self._pages.get(run, {}).get((path, number))

    async def runs(
        self, limit: int, prefix: str = "", after: str = "", state: EndedBadly | None = None
    ) -> list[RunInfo]:
        found: list[RunInfo] = []
        names: Iterable[str] = reversed(self._headers)
        if state is not None:
            before = self._order.get((after, ""), 0) if after else None
            names, after = self._badly_ended.of(state, before), ""
        seen = not after
        for run in names:
            root = self._records.get((run, ""))
            if seen and run.startswith(prefix) and isinstance(root, Node):
                found.append(RunInfo(self._headers[run], root))
            seen = seen or run == after
            if len(found) == limit:
                break
        return found

    async def dead_letters(
        self, run: str | None = None, which: DeadLetterFilter = ALL_DEAD_LETTERS
    ) -> list[DeadLetter]:
        return self._dead.fitting(run, which, self.now_ms())

    async def check_health(self) -> HealthReport:
        text = "everything is in the memory of this process and gone with it"
        return HealthReport((Finding("durability", "warning", text, "for runs that matter use `sqlite:` or a server"),))

    async def inventory(self) -> Inventory:
        now_ms = self.now_ms()
        late = [held.until_ms for held in self._leases.values() if held.until_ms <= now_ms]
        return Inventory(
            queues=queues_of(self._records, self._order, self._past.get, now_ms),
            leased=len(self._leases),
            late=len(late),
            late_since_ms=min(late, default=None),
            overdue_since_ms=self._timers.overdue_since_ms(now_ms),
            letters=len(self._dead.fitting(None, ALL_DEAD_LETTERS, now_ms)),
            runs=len(self._headers),
        )

    # -- deleting

    async def count_expired(self) -> ExpiredCounts:
        now_ms = self.now_ms()
        letters = len(self._dead.past(now_ms, ALL_DEAD_LETTERS.limit))
        claims, starts, memos = self._outlived(now_ms)
        others = len(claims) + len(starts) + len(memos)
        return ExpiredCounts(runs=self._ends.count(now_ms), dead_letters=letters, others=others)

    async def prune(self, limit: int) -> int:
        now_ms = self.now_ms()
        gone = self._dead.drop(self._dead.past(now_ms, limit))
        gone += self._prune_others(now_ms)
        while gone < limit and (run := self._ends.next(now_ms)) is not None:
            gone += self._drop(run, limit - gone)
        return gone

    def _prune_others(self, now_ms: int) -> int:
        """Windows of claims and of rate limits, and memos."""
        claims, starts, memos = self._outlived(now_ms)
        for place in claims:
            del self._records[place], self._windows[place]
        for key in starts:
            del self._past[key], self._past_until[key]
        for channel in memos:
            del self._memos[channel]
        return len(claims) + len(starts) + len(memos)

    def _outlived(self, now_ms: int) -> tuple[list[Key], list[str], list[str]]:
        """Expired windows of claims and of rate limits, and expired memos."""
        claims = [key for key, until_ms in self._windows.items() if until_ms <= now_ms]
        starts = [key for key, until_ms in self._past_until.items() if until_ms <= now_ms]
        memos = [channel for channel, memo in self._memos.items() if memo.at_ms <= now_ms - MEMO_MS]
        return claims, starts, memos

    def _drop(self, run: str, limit: int | None = None) -> int:
        """Delete a run, or `limit` nodes and pages of it, the root last; answers how many."""
        keys, pages, gone = self._paths.get(run, []), self._pages.get(run, {}), 0
        while (limit is None or gone < limit) and (pages or len(keys) > 1):
            gone += 1
            if pages:
                pages.popitem()
            else:
                self._drop_node(keys.pop())
        if pages or len(keys) > 1 or (limit is not None and gone >= limit):
            return gone
        for key in keys:
            self._drop_node(key)
        for table in (self._paths, self._pages, self._headers):
            table.pop(run, None)
        self._ends.forget(run)
        self._badly_ended.drop(run)
        self._inboxes.drop(run)
        self._dead.drop_run(run)
        self._plans.drop_run(run)
        return gone + 1

    def _drop_node(self, key: Key) -> None:
        del self._records[key], self._order[key]
        self._leases.pop(key, None)
        if key in self._timers:
            self._timers.set(key, None)

    # -- hints

    async def put_hint(self, topic: str, name: str, body: bytes, ttl_ms: int) -> None:
        self._hints.set(topic, name, body, self.now_ms(), ttl_ms)
        self._changes.note()

    async def hints(self, topic: str) -> dict[str, bytes]:
        return self._hints.of(topic, self.now_ms())

    # -- waiting

    def watch(self, run: str) -> asyncio.Future[Node | None]:
        root = self._root(run)
        return self._watches.add(run, root is not None and root.state in FINAL, root)

    def _root(self, run: str) -> Node | None:
        root = self._records.get((run, ""))
        return root if isinstance(root, Node) else None

    def unwatch(self, run: str, future: asyncio.Future[Node | None]) -> None:
        self._watches.drop(run, future)

    @property
    def watching(self) -> int:
        return len(self._watches)

    def pushed_leases(self, owner: str) -> list[Lease]:
        return []

    async def wait_for_work(self, owner: str, seen: int, timeout_ms: int | None) -> int:
        return await self.wait_for_change(seen, timeout_ms)

    async def wait_for_change(self, seen: int, timeout_ms: int | None, run: str | None = None) -> int:
        return await self._changes.wait(seen, timeout_ms)
