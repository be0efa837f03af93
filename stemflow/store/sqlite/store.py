"""The store in an SQLite file: the embedded default. Several processes on one machine may share it."""

from __future__ import annotations

import asyncio
import os
import random
import sqlite3
from collections.abc import Callable, Sequence
from itertools import islice
from typing import TypeVar

import msgspec

from stemflow.model import wire
from stemflow.model.effects import DeadLetter, Decision
from stemflow.model.plan import Plan
from stemflow.model.records import FINAL, NO_RUN, Header, Key, Node, Record
from stemflow.ports import Clock
from stemflow.store.base import (
    ALL_DEAD_LETTERS,
    DeadLetterFilter,
    Exchange,
    ExpiredCounts,
    Inbox,
    Lease,
    Request,
    RunInfo,
    StoreError,
    Want,
)
from stemflow.store.health import HealthReport, Inventory
from stemflow.store.index_rules import changes_something, guarded
from stemflow.store.sqlite import health as sqlite_health
from stemflow.store.sqlite import inbox as sqlite_inbox
from stemflow.store.sqlite import lease as sqlite_lease
from stemflow.store.sqlite import retention as sqlite_prune
from stemflow.store.sqlite.commit import commit, put_note
from stemflow.store.sqlite.lease import NOTHING, revive
from stemflow.store.sqlite.renewer import SqliteRenewer
from stemflow.store.sqlite.schema import PATIENCE_MS, connect, is_busy, locked, prepare, refused, transaction
from stemflow.store.waiters import Changes, Watches

T = TypeVar("T")

_POLL_S = 0.010
"""How often other processes' commits are looked for while somebody waits."""

_Memo = tuple[tuple[bool, ...], tuple[tuple[int, int], ...]]
"""(committed, (row id, token) of each lease)"""
_memos: msgspec.msgpack.Decoder[_Memo] = msgspec.msgpack.Decoder(_Memo)


class SqliteStore:
    """Short synchronous transactions on the loop's thread; what waits, waits with `await`."""

    def __init__(self, url: str, path: str, clock: Clock) -> None:
        self.url = url
        self.address = ""
        self.concurrent_exchanges = False
        self.epoch = 0
        self._path = path
        self._clock = clock
        self._now_ms = 0
        self._connection: sqlite3.Connection | None = None
        self._jitter = random.Random(os.getpid())
        self._changes = Changes()
        self._watches = Watches()
        self._users = 0
        self._version = 0
        self._ended = 0
        self._poll: asyncio.TimerHandle | None = None

    async def open(self) -> None:
        self._users += 1
        if self._connection is not None:
            return
        db = connect(self.url, self._path)
        try:
            await self._patiently(lambda: prepare(self.url, db))
            await self._patiently(lambda: self._begin(db))
        except BaseException:
            self._users -= 1
            db.close()
            raise
        self._connection = db

    def _begin(self, db: sqlite3.Connection) -> None:
        self._version = db.execute("PRAGMA data_version").fetchone()[0]
        self._ended = db.execute("SELECT coalesce(max(ended), 0) FROM runs WHERE ended IS NOT NULL").fetchone()[0]

    async def close(self) -> None:
        self._users = max(0, self._users - 1)
        if self._users:
            return
        if self._poll is not None:
            self._poll.cancel()
            self._poll = None
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        self._watches.close(self.url)

    def now_ms(self) -> int:
        self._now_ms = max(self._now_ms, self._clock.now_ms())
        return self._now_ms

    # -- access

    @property
    def _db(self) -> sqlite3.Connection:
        if self._connection is None:
            raise StoreError(f"{self.url}: expected an open store, got one that is closed; call `await store.open()`")
        return self._connection

    async def _patiently(self, work: Callable[[], T]) -> T:
        """Do `work`, again and again for 5 s while another process is in the way."""
        loop = asyncio.get_running_loop()
        until = loop.time() + PATIENCE_MS / 1_000
        while True:
            try:
                return work()
            except sqlite3.Error as error:
                if not is_busy(error):
                    raise refused(self.url, self._path, error) from error
                if loop.time() >= until:
                    raise locked(self.url, self._path) from error
            await asyncio.sleep(self._jitter.uniform(0.001, 0.010))

    async def _write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        return await self._patiently(lambda: transaction(self._db, "BEGIN IMMEDIATE", work))

    async def _read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """`work` sees one state of the file, however many statements it takes."""
        return await self._patiently(lambda: transaction(self._db, "BEGIN", work))

    # -- exchange

    async def exchange(self, request: Request, decisions: Sequence[Decision], want: Want | None) -> Exchange:
        if not decisions:
            idle = await self._read(lambda db: self._idle(db, request, want))
            if idle is not None:
                return idle
        answer = await self._write(lambda db: self._exchange(db, request, decisions, want))
        for decision, committed in zip(decisions, answer.committed, strict=True):
            if committed and changes_something(decision):
                self._changes.note()
                for end in decision.ended:
                    self._watches.resolve(end.run, decision.root_of(end.run))
        return answer

    def _idle(self, db: sqlite3.Connection, request: Request, want: Want | None) -> Exchange | None:
        """The answer when there is nothing to write, so that an idle process does not wake the others."""
        now_ms = self.now_ms()
        if self._memo(db, request) is not None or (want is not None and sqlite_lease.has_work(db, want, now_ms)):
            return None
        if want is None:
            return Exchange(committed=(), leases=(), timers=(), next_at_ms=None, now_ms=now_ms)
        boxes = sqlite_inbox.look(db, want, now_ms)
        if boxes.free:
            return None
        timers, next_at_ms = sqlite_lease.due(db, want, now_ms)
        return Exchange(
            committed=(),
            leases=(),
            timers=timers,
            next_at_ms=_first(next_at_ms, boxes.next_at_ms),
            now_ms=now_ms,
            busy_inboxes=boxes.busy_inboxes,
        )

    def _exchange(
        self, db: sqlite3.Connection, request: Request, decisions: Sequence[Decision], want: Want | None
    ) -> Exchange:
        now_ms = self.now_ms()
        memo = self._memo(db, request)
        taken, boxes = NOTHING, sqlite_inbox.NONE
        inbox: tuple[Inbox, ...] = ()
        if memo is not None:
            committed, leases = memo[0], sqlite_lease.still_held(db, memo[1])
        else:
            committed = tuple([commit(db, decision, now_ms) for decision in decisions])
            if want is not None:
                taken = sqlite_lease.take(db, want, now_ms)
                boxes = sqlite_inbox.look(db, want, now_ms)
                inbox = tuple([sqlite_inbox.hand_out(db, run, _record, now_ms) for run in boxes.free])
            leases = tuple(taken.leases)
            if leases or any(ok and changes_something(one) for ok, one in zip(committed, decisions, strict=True)):
                tokens = zip(taken.ids, [lease.node.delivery for lease in leases], strict=True)
                self._remember(db, request, (committed, tuple(tokens)), now_ms)
        timers, next_at_ms = sqlite_lease.due(db, want, now_ms) if want is not None else ((), None)
        stale = () if all(committed) else guarded(decisions, committed)
        return Exchange(
            committed=committed,
            leases=leases,
            timers=timers,
            next_at_ms=_first(next_at_ms, taken.blocked_until_ms, boxes.next_at_ms),
            now_ms=now_ms,
            current=tuple([(key, _record(db, key)) for key in stale]),
            inbox=inbox,
            busy_inboxes=boxes.busy_inboxes,
        )

    def _memo(self, db: sqlite3.Connection, request: Request) -> _Memo | None:
        row = db.execute("SELECT sequence, body FROM memos WHERE channel = ?", (request.channel,)).fetchone()
        if row is None or row[0] < request.sequence:
            return None
        if row[0] > request.sequence:
            raise StoreError(
                f"{self.url}: channel {request.channel}: expected request {row[0]} or later, got {request.sequence}; "
                "give each caller a channel of its own"
            )
        return _memos.decode(row[1])

    def _remember(self, db: sqlite3.Connection, request: Request, memo: _Memo, now_ms: int) -> None:
        db.execute(
            "INSERT OR REPLACE INTO memos (channel, sequence, at_ms, body) VALUES (?, ?, ?, ?)",
            (request.channel, request.sequence, now_ms, msgspec.msgpack.encode(memo)),
        )

    # -- leases

    async def take_expired(self, owner: str, limit: int, run: str | None = None) -> list[Lease]:
        if not await self._read(lambda db: sqlite_lease.late(db, 1, self.now_ms(), run)):
            return []
        return await self._write(lambda db: sqlite_lease.transfer(db, owner, limit, self.now_ms(), run))

    def renewer(self) -> SqliteRenewer:
        return SqliteRenewer(self.url, self._path, self.now_ms)

    # -- reading

    def partition_of(self, run: str) -> int:
        return 0

    async def read(self, keys: Sequence[Key]) -> list[Record | None]:
        return await self._read(lambda db: [_record(db, key) for key in keys])

    async def nodes(self, run: str) -> list[Node]:
        found = "SELECT state, delivery, body FROM nodes WHERE run = ? ORDER BY id"
        return await self._read(lambda db: [revive(*row) for row in db.execute(found, (run,))])

    async def header(self, run: str) -> Header | None:
        body = await self._value("SELECT header FROM runs WHERE run = ?", run)
        return None if body is None else wire.decode_header(body)

    async def plan(self, digest: str) -> Plan | None:
        body = await self._value("SELECT body FROM plans WHERE digest = ?", digest)
        return None if body is None else wire.decode_plan(body)

    async def page(self, key: Key, number: int) -> bytes | None:
        return await self._value("SELECT body FROM pages WHERE run = ? AND path = ? AND number = ?", *key, number)

    async def _value(self, statement: str, *parameters: str | int) -> bytes | None:
        row = await self._patiently(lambda: self._db.execute(statement, parameters).fetchone())
        return None if row is None else row[0]

    async def runs(self, limit: int, prefix: str = "") -> list[RunInfo]:
        found = (
            "SELECT header, state, delivery, body FROM runs JOIN nodes ON nodes.run = runs.run AND nodes.path = ''"
            " WHERE substr(runs.run, 1, ?) = ? ORDER BY runs.id DESC LIMIT ?"
        )
        rows = await self._patiently(lambda: self._db.execute(found, (len(prefix), prefix, limit)).fetchall())
        return [RunInfo(wire.decode_header(header), revive(*root)) for header, *root in rows]

    async def dead_letters(
        self, run: str | None = None, which: DeadLetterFilter = ALL_DEAD_LETTERS
    ) -> list[DeadLetter]:
        asked = {"run": run, "queue": which.queue, "reason": which.reason}
        given = {column: value for column, value in asked.items() if value is not None}
        found = (
            f"SELECT body FROM dead WHERE until_ms > ? AND at_ms >= ? {' '.join(f'AND {one} = ?' for one in given)}"
            " ORDER BY at_ms DESC, id DESC LIMIT ?"
        )
        # The task stands in the body alone.
        parameters = (self.now_ms(), which.since_ms, *given.values(), -1 if which.task is not None else which.limit)
        rows = await self._patiently(lambda: self._db.execute(found, parameters).fetchall())
        letters = (wire.decode_dead_letter(body) for (body,) in rows)
        return list(islice((one for one in letters if which.fit(one)), which.limit))

    async def check_health(self) -> HealthReport:
        return sqlite_health.check_health(self.url, self._path)

    async def inventory(self) -> Inventory:
        now_ms = self.now_ms()
        return await self._read(lambda db: sqlite_health.inventory(db, now_ms))

    # -- deleting

    async def count_expired(self) -> ExpiredCounts:
        now_ms = self.now_ms()
        return await self._read(lambda db: sqlite_prune.past(db, now_ms))

    async def prune(self, limit: int) -> int:
        now_ms = self.now_ms()
        if not await self._read(lambda db: sqlite_prune.is_past(db, now_ms)):
            return 0
        gone = await self._write(lambda db: sqlite_prune.prune(db, limit, now_ms))
        shrink = f"PRAGMA incremental_vacuum({sqlite_prune.FREE_PAGES})"
        await self._patiently(lambda: self._db.execute(shrink).fetchall())
        return gone

    # -- hints

    async def put_hint(self, topic: str, name: str, body: bytes, ttl_ms: int) -> None:
        await self._write(lambda db: put_note(db, (topic, name, body), self.now_ms(), ttl_ms))
        self._changes.note()

    async def hints(self, topic: str) -> dict[str, bytes]:
        found = "SELECT name, body FROM notes WHERE topic = ? AND until_ms > ?"
        rows = await self._patiently(lambda: self._db.execute(found, (topic, self.now_ms())).fetchall())
        return dict(rows)

    # -- waiting

    def watch(self, run: str) -> asyncio.Future[Node | None]:
        try:
            row = self._db.execute("SELECT state FROM nodes WHERE run = ? AND path = ''", (run,)).fetchone()
        except sqlite3.Error as error:
            raise refused(self.url, self._path, error) from error
        future = self._watches.add(run, row is not None and row[0] in FINAL)
        self._arm()
        return future

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
        await self._patiently(self._look)
        self._arm()
        return await self._changes.wait(seen, timeout_ms)

    def _arm(self) -> None:
        """Poll while somebody waits."""
        if self._poll is None and self._connection is not None:
            self._poll = asyncio.get_running_loop().call_later(_POLL_S, self._tick)

    def _tick(self) -> None:
        self._poll = None
        if not self._changes.waiting and not self._watches:
            return
        try:
            self._look()
        except sqlite3.Error:
            # Whoever waits asks the store itself next, and is told then; until then it is looked at again.
            self._changes.note()
        self._arm()

    def _look(self) -> None:
        """Hear of what other processes, and other connections of this one, have committed."""
        version = self._db.execute("PRAGMA data_version").fetchone()[0]
        if version == self._version:
            return
        ended = "SELECT run, ended FROM runs WHERE ended > ? ORDER BY ended"
        for run, number in self._db.execute(ended, (self._ended,)).fetchall():
            self._watches.resolve(run)
            self._ended = number
        self._version = version
        self._changes.note()


def _first(*instants: int | None) -> int | None:
    return min((at_ms for at_ms in instants if at_ms is not None), default=None)


def _record(db: sqlite3.Connection, key: Key) -> Record | None:
    if key[0] == NO_RUN:
        row = db.execute("SELECT body FROM claims WHERE key = ?", (key[1],)).fetchone()
        return None if row is None else wire.decode_claim(row[0])
    row = db.execute("SELECT state, delivery, body FROM nodes WHERE run = ? AND path = ?", key).fetchone()
    return None if row is None else revive(*row)
