"""The store in an SQLite file: the embedded default. Several processes on one machine may share it."""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import compress, islice
from typing import Final, NamedTuple, TypeVar

from stemflow.model import wire
from stemflow.model.effects import DeadLetter, Decision
from stemflow.model.facts import Due
from stemflow.model.leaf_status import LeafStatus
from stemflow.model.plan import Plan
from stemflow.model.records import FINAL, Claim, Header, Key, Node, Record
from stemflow.ports import Clock
from stemflow.store import codec
from stemflow.store.base import (
    ALL_DEAD_LETTERS,
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
from stemflow.store.codec import NUMBER
from stemflow.store.damaged import decoded_or_none
from stemflow.store.health import HealthReport, Inventory
from stemflow.store.index_rules import changes_something, commit_each, guarded
from stemflow.store.places import split
from stemflow.store.sqlite import health as sqlite_health
from stemflow.store.sqlite import hints as sqlite_hints
from stemflow.store.sqlite import inbox as sqlite_inbox
from stemflow.store.sqlite import inventory as sqlite_inventory
from stemflow.store.sqlite import lease as sqlite_lease
from stemflow.store.sqlite import retention as sqlite_retention
from stemflow.store.sqlite.commit import commit
from stemflow.store.sqlite.knowledge import Knowledge
from stemflow.store.sqlite.lease import NOTHING
from stemflow.store.sqlite.renewer import SqliteRenewer
from stemflow.store.sqlite.rows import (
    HEADER,
    NODE,
    blob_ranges,
    header_of,
    letter_of,
    node_of,
    record_at,
    run_blob,
    run_id,
)
from stemflow.store.sqlite.schema import (
    PATIENCE_MS,
    Synchronous,
    connect,
    exchanged,
    identity,
    is_busy,
    locked,
    prepare,
    refused,
    transaction,
)
from stemflow.store.steady_clock import SteadyClock
from stemflow.store.waiters import Changes, Watches

T = TypeVar("T")

POLL_S: Final = 0.010
"""Seconds between two looks for commits of other processes, while somebody waits."""
QUIET_POLLS: Final = 100
QUIET_POLL_S: Final = 0.016
"""The same after QUIET_POLLS polls without a commit."""
CHECK_MS: Final = 300
"""How often it is checked that the files are still those that were opened."""
CHANGED_POLLS: Final = 4
"""Polls that ask the database after the time of its log has changed."""

_FINAL: Final = frozenset(number for state, number in codec.NUMBER.items() if state in FINAL)

MEMOS: Final = 1_024
"""Channels whose last request is remembered."""


class _Memo(NamedTuple):
    """The last request of a channel that changed something, with its answer: (key, token) of each lease."""

    sequence: int
    committed: tuple[bool, ...]
    held: tuple[tuple[Key, int], ...]


class _Stale(Exception):
    """A guard failed; nothing of the transaction is committed."""


class SqliteStore:
    """Short synchronous transactions on the loop's thread; what waits, waits with `await`."""

    def __init__(self, url: str, path: str, clock: Clock, synchronous: Synchronous = "normal") -> None:
        self.url = url
        self.address = ""
        self.concurrent_exchanges = False
        self.epoch = 0
        self._path, self._synchronous = path, synchronous
        self._clock = clock
        self._time = SteadyClock(clock)
        self.now_ms = self._time.now_ms
        self._connection: sqlite3.Connection | None = None
        self._jitter = random.Random(os.getpid())
        self._changes = Changes()
        self._watches = Watches()
        self._users = 0
        self._known = Knowledge()
        self._memos: dict[str, _Memo] = {}
        self._version = 0
        self._ended = 0
        self._poll: asyncio.TimerHandle | None = None
        self._files: tuple[tuple[int, int] | None, ...] = ()
        self._checked_ms = 0
        self._quiet = 0
        """Polls since the last commit of another process."""
        self._log_mark: tuple[int, int, int] | None = None
        self._log_polls = 0

    async def open(self) -> None:
        self._users += 1
        if self._connection is not None:
            return
        db = connect(self.url, self._path)
        try:
            await self._patiently(lambda: prepare(self.url, db, self._synchronous))
            await self._patiently(lambda: self._begin(db))
        except BaseException:
            self._users -= 1
            db.close()
            raise
        self._connection, self._known = db, Knowledge()
        self._files = self._identities()

    def _begin(self, db: sqlite3.Connection) -> None:
        self._version = db.execute("PRAGMA data_version").fetchone()[0]
        self._ended = db.execute("SELECT coalesce(max(ended), 0) FROM runs WHERE ended IS NOT NULL").fetchone()[0]
        self._time.not_before(self._ended // 1_000)

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

    # -- access

    @property
    def _db(self) -> sqlite3.Connection:
        if self._connection is None:
            raise StoreError(f"{self.url}: expected an open store, got one that is closed; call `await store.open()`")
        return self._connection

    async def _patiently(self, work: Callable[[], T]) -> T:
        """Do `work`, again and again for 5 s while another process is in the way."""
        until = None
        while True:
            try:
                return work()
            except sqlite3.Error as error:
                if not is_busy(error):
                    raise refused(self.url, self._path, error) from error
                now = asyncio.get_running_loop().time()
                until = now + PATIENCE_MS / 1_000 if until is None else until
                if now >= until:
                    raise locked(self.url, self._path) from error
            await asyncio.sleep(self._jitter.uniform(0.001, 0.010))

    async def _write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        return await self._patiently(partial(self._transaction, "BEGIN IMMEDIATE", work))

    async def _read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """`work` sees one state of the file, however many statements it takes."""
        return await self._patiently(partial(self._transaction, "BEGIN", work))

    def _identities(self) -> tuple[tuple[int, int] | None, ...]:
        """The database file and its log, as long as this process holds them open the same ones."""
        if os.name != "posix":
            return ()
        self._checked_ms = self._clock.monotonic_ms()
        return identity(self._path), identity(f"{self._path}-wal")

    def _check_files(self) -> None:
        """Raise StoreError when the files were deleted or replaced; they are looked at every CHECK_MS."""
        if self._clock.monotonic_ms() - self._checked_ms >= CHECK_MS and self._identities() != self._files:
            self._checked_ms -= CHECK_MS
            raise exchanged(self.url, self._path)

    def _transaction(self, begin: str, work: Callable[[sqlite3.Connection], T]) -> T:
        def known(db: sqlite3.Connection) -> T:
            self._check_files()
            self._known.refresh(db)
            return work(db)

        try:
            return transaction(self._db, begin, known)
        except BaseException:
            self._known.forget()
            raise

    # -- exchange

    async def exchange(self, request: Request, decisions: Sequence[Decision], want: Want | None) -> Exchange:
        if decisions:
            self._quiet = 0
        memo = self._memo(request)
        if memo is not None:
            return await self._read(lambda db: self._repeat(db, memo, decisions, want))
        if not decisions:
            idle = await self._idle(want)
            if idle is not None:
                return idle
        try:
            answer = await self._write(partial(self._exchange, decisions=decisions, want=want, alone=False))
        except _Stale:
            answer = await self._write(lambda db: self._exchange(db, decisions, want, alone=True))
        changed = [one for one in compress(decisions, answer.committed) if changes_something(one)]
        if answer.leases or changed:
            self._remember(request, answer)
        for decision in changed:
            self._changes.note()
            for end in decision.ended:
                self._watches.resolve(end.run, decision.root_of(end.run))
        return answer

    async def _idle(self, want: Want | None) -> Exchange | None:
        """The answer when there is nothing to write, so that an idle process does not wake the others."""
        if want is None:
            return Exchange(committed=(), leases=(), timers=(), next_at_ms=None, now_ms=self.now_ms())
        self._check_files()
        if await self._patiently(lambda: self._known.is_empty(self._db, want)):
            return Exchange(committed=(), leases=(), timers=(), next_at_ms=None, now_ms=self.now_ms())
        return await self._read(lambda db: self._look_for_work(db, want))

    def _look_for_work(self, db: sqlite3.Connection, want: Want) -> Exchange | None:
        now_ms, known = self.now_ms(), self._known
        if sqlite_lease.has_work(db, known, want, now_ms):
            return None
        inboxes = sqlite_inbox.look(db, known, want, now_ms)
        if inboxes.free:
            return None
        timers, next_at_ms = sqlite_lease.due(db, known, want, now_ms)
        return Exchange(
            committed=(),
            leases=(),
            timers=timers,
            next_at_ms=_first(next_at_ms, inboxes.next_at_ms),
            now_ms=now_ms,
            busy_inboxes=inboxes.busy,
        )

    def _exchange(
        self, db: sqlite3.Connection, decisions: Sequence[Decision], want: Want | None, *, alone: bool
    ) -> Exchange:
        """`alone`: each decision is undone alone when it is stale; without, the first one that is raises _Stale."""
        now_ms, known = self.now_ms(), self._known
        direct: dict[Key, sqlite_lease.Direct] = {}
        if want is not None and len(decisions) == 1:
            direct = sqlite_lease.direct(db, known, decisions[0], want, now_ms)
        committed = commit_each(decisions, lambda one: self._commit(db, one, now_ms, direct, alone))
        taken, inboxes = NOTHING, sqlite_inbox.NONE
        timers: tuple[Due, ...] = ()
        next_at_ms = None
        if want is not None:
            headers = {header.run: header for decision in decisions for header in (*decision.headers, *decision.also)}
            if direct and committed[0]:
                leases = [sqlite_lease.granted(db, one.node, one.until_ms, headers) for one in direct.values()]
                taken = sqlite_lease.Taken(leases, None)
            else:
                taken = sqlite_lease.take(db, known, want, headers, now_ms)
            inboxes = sqlite_inbox.look(db, known, want, now_ms)
            timers, next_at_ms = sqlite_lease.due(db, known, want, now_ms)
            next_at_ms = _first(next_at_ms, taken.blocked_until_ms, inboxes.next_at_ms)
        return Exchange(
            committed=committed,
            leases=tuple(taken.leases),
            timers=timers,
            next_at_ms=next_at_ms,
            now_ms=now_ms,
            current=() if all(committed) else self._current(db, decisions, committed),
            inbox=sqlite_inbox.lease_all(db, inboxes.free, now_ms) if inboxes.free else (),
            busy_inboxes=inboxes.busy,
        )

    def _commit(
        self,
        db: sqlite3.Connection,
        decision: Decision,
        now_ms: int,
        direct: Mapping[Key, sqlite_lease.Direct],
        alone: bool,
    ) -> bool:
        if not alone:
            if not commit(db, self._known, decision, now_ms, direct):
                raise _Stale
            return True
        db.execute("SAVEPOINT decision")
        committed = commit(db, self._known, decision, now_ms, direct)
        if not committed:
            db.execute("ROLLBACK TO decision")
            self._known.forget()
        db.execute("RELEASE decision")
        return committed

    def _current(
        self, db: sqlite3.Connection, decisions: Sequence[Decision], committed: Sequence[bool]
    ) -> tuple[tuple[Key, Record | None], ...]:
        return tuple([(key, record_at(db, key)) for key in guarded(decisions, committed)])

    # -- repeated requests

    def _memo(self, request: Request) -> _Memo | None:
        found = self._memos.get(request.channel)
        if found is None or found.sequence < request.sequence:
            return None
        if found.sequence > request.sequence:
            raise StoreError(
                f"{self.url}: channel {request.channel}: expected request {found.sequence} or later, "
                f"got {request.sequence}; give each caller a channel of its own"
            )
        return found

    def _remember(self, request: Request, answer: Exchange) -> None:
        """Nobody else repeats a request of this process: its answer cannot be lost but with the process itself."""
        self._memos.pop(request.channel, None)
        held = tuple([(lease.node.key, lease.node.delivery) for lease in answer.leases]) if answer.leases else ()
        self._memos[request.channel] = _Memo(request.sequence, answer.committed, held)
        if len(self._memos) > MEMOS:
            del self._memos[next(iter(self._memos))]

    def _repeat(
        self, db: sqlite3.Connection, memo: _Memo, decisions: Sequence[Decision], want: Want | None
    ) -> Exchange:
        now_ms = self.now_ms()
        timers, next_at_ms = sqlite_lease.due(db, self._known, want, now_ms) if want is not None else ((), None)
        return Exchange(
            committed=memo.committed,
            leases=sqlite_lease.still_held(db, memo.held),
            timers=timers,
            next_at_ms=next_at_ms,
            now_ms=now_ms,
            current=self._current(db, decisions, memo.committed),
        )

    # -- leases

    async def take_expired(self, owner: str, limit: int, run: str | None = None) -> list[Lease]:
        if not await self._read(lambda db: sqlite_lease.late(db, 1, self.now_ms(), run)):
            return []
        return await self._write(lambda db: sqlite_lease.transfer(db, self._known, owner, limit, self.now_ms(), run))

    def renewer(self) -> SqliteRenewer:
        return SqliteRenewer(self.url, self._path, self.now_ms)

    # -- reading

    def partition_of(self, run: str) -> int:
        return 0

    async def read(self, keys: Sequence[Key]) -> list[Record | None]:
        return await self._read(lambda db: [record_at(db, key) for key in keys])

    async def nodes(self, run: str) -> list[Node]:
        found = f"SELECT {NODE} FROM nodes WHERE run = ? ORDER BY id"
        return await self._read(lambda db: [node_of(*row) for row in db.execute(found, (run_blob(run),))])

    async def leaf_status(self, keys: Sequence[Key]) -> list[LeafStatus | None]:
        return await self._read(lambda db: sqlite_inventory.leaf_status(db, keys, self.now_ms()))

    async def leased(self, limit: int) -> list[Lease]:
        return await self._read(lambda db: sqlite_inventory.leased(db, limit))

    async def claims(self, limit: int, after: str = "") -> list[Claim]:
        return await self._read(lambda db: sqlite_inventory.claims(db, limit, after))

    async def header(self, run: str) -> Header | None:
        name, found = run_blob(run), f"SELECT {HEADER} FROM runs WHERE run = ?"
        row = await self._patiently(lambda: self._db.execute(found, (name,)).fetchone())
        return None if row is None else header_of(name, *row)

    async def plan(self, digest: str) -> Plan | None:
        body = await self._value("SELECT body FROM plans WHERE digest = ?", digest)
        return None if body is None else decoded_or_none(f"plan {digest}", wire.decode_plan, body)

    async def page(self, key: Key, number: int) -> bytes | None:
        return await self._value(
            "SELECT body FROM pages WHERE run = ? AND path = ? AND number = ?", run_blob(key[0]), key[1], number
        )

    async def _value(self, statement: str, *parameters: str | int | bytes) -> bytes | None:
        row = await self._patiently(lambda: self._db.execute(statement, parameters).fetchone())
        return None if row is None else row[0]

    async def runs(
        self, limit: int, prefix: str = "", after: str = "", state: EndedBadly | None = None
    ) -> list[RunInfo]:
        ranges = blob_ranges(prefix) if prefix else []
        where = " OR ".join("(runs.run >= ? AND runs.run < ?)" for _ in ranges) or "1"
        order, one = ("runs.id", "id FROM runs WHERE run = ?")
        source = "runs JOIN nodes ON nodes.run = runs.run AND nodes.path = ''"
        if state is not None:
            order, one = ("nodes.id", "id FROM nodes WHERE run = ? AND path = ''")
            source = f"nodes INDEXED BY {state}_runs CROSS JOIN runs ON runs.run = nodes.run"
            where = f"{where}) AND (nodes.path = '' AND nodes.state = {NUMBER[state]}"
        follows = f" AND {order} < (SELECT {one})" if after else ""
        found = (
            f"SELECT runs.run, {HEADER}, {NODE} FROM {source} WHERE ({where}){follows} ORDER BY {order} DESC LIMIT ?"
        )
        values = (*itertools.chain.from_iterable(ranges), *((run_blob(after),) if after else ()), limit)
        rows = await self._patiently(lambda: self._db.execute(found, values).fetchall())
        return [RunInfo(header_of(*row[:3]), node_of(*row[3:])) for row in rows]

    async def dead_letters(
        self, run: str | None = None, which: DeadLetterFilter = ALL_DEAD_LETTERS
    ) -> list[DeadLetter]:
        asked = {"run": None if run is None else run_blob(run), "queue": which.queue, "reason": which.reason}
        given = {column: value for column, value in asked.items() if value is not None}
        fits = "".join(f" AND {column} = ?" for column in given)
        found = (
            f"SELECT run, path, queue, reason, at_ms, body FROM dead_letters WHERE until_ms > ? AND at_ms >= ?{fits}"
            " ORDER BY at_ms DESC, id DESC LIMIT ?"
        )
        # The task is in the body alone.
        parameters = (self.now_ms(), which.since_ms, *given.values(), -1 if which.task is not None else which.limit)
        rows = await self._patiently(lambda: self._db.execute(found, parameters).fetchall())
        letters = (letter_of(*row) for row in rows)
        return list(islice((one for one in letters if which.fit(one)), which.limit))

    async def check_health(self) -> HealthReport:
        return sqlite_health.check_health(self.url, self._path, self._synchronous)

    async def inventory(self) -> Inventory:
        now_ms = self.now_ms()
        return await self._read(lambda db: sqlite_inventory.inventory(db, now_ms))

    async def waiting_tasks(self) -> list[tuple[str, str]]:
        places = await self._read(sqlite_inventory.places)
        return [found for place in places if (found := split(place))[1]]

    # -- deleting

    async def count_expired(self) -> ExpiredCounts:
        now_ms = self.now_ms()
        return await self._read(lambda db: sqlite_retention.count_expired(db, now_ms))

    async def prune(self, limit: int) -> int:
        now_ms = self.now_ms()
        if not await self._read(lambda db: sqlite_retention.is_anything_expired(db, now_ms)):
            return 0
        gone = await self._write(lambda db: sqlite_retention.prune(db, self._known, limit, now_ms))
        shrink = f"PRAGMA incremental_vacuum({sqlite_retention.FREE_PAGES})"
        await self._patiently(lambda: self._db.execute(shrink).fetchall())
        return gone

    # -- hints

    async def put_hint(self, topic: str, name: str, body: bytes, ttl_ms: int) -> None:
        await self._write(lambda db: sqlite_hints.put(db, (topic, name, body), self.now_ms(), ttl_ms))
        self._changes.note()

    async def hints(self, topic: str) -> dict[str, bytes]:
        return await self._patiently(lambda: sqlite_hints.of_topic(self._db, topic, self.now_ms()))

    # -- waiting

    def watch(self, run: str) -> asyncio.Future[Node | None]:
        try:
            row = self._db.execute("SELECT state FROM nodes WHERE run = ? AND path = ''", (run_blob(run),)).fetchone()
        except sqlite3.Error as error:
            raise refused(self.url, self._path, error) from error
        future = self._watches.add(run, row is not None and row[0] in _FINAL)
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
            delay_s = POLL_S if self._quiet < QUIET_POLLS else QUIET_POLL_S
            self._poll = asyncio.get_running_loop().call_later(delay_s, self._poll_once)

    def _poll_once(self) -> None:
        self._poll = None
        if not self._changes.waiting and not self._watches:
            return
        self._quiet += 1
        try:
            if self._log_changed():
                self._look()
            self._check_files()
        except (sqlite3.Error, StoreError):
            # A waiter asks the store next and gets the error then; until then the file is polled again.
            self._changes.note()
        self._arm()

    def _log_changed(self) -> bool:
        """Whether the write-ahead log may have changed since the last poll: one system call in place of five.

        Two commits within one tick of the system's clock leave the same time, so that a change counts for some polls.
        """
        if os.name != "posix":
            return True
        try:
            status = os.stat(f"{self._path}-wal")
        except OSError:
            return True
        mark = (status.st_mtime_ns, status.st_size, status.st_ino)
        if mark != self._log_mark:
            self._log_mark, self._log_polls = mark, CHANGED_POLLS
        self._log_polls -= 1
        return self._log_polls >= 0

    def _look(self) -> None:
        """Wake those who wait for what other processes, or other connections of this one, have committed."""
        version = self._db.execute("PRAGMA data_version").fetchone()[0]
        if version == self._version:
            return
        self._quiet = 0
        ended = "SELECT run, ended FROM runs WHERE ended > ? ORDER BY ended"
        for run, number in self._db.execute(ended, (self._ended,)).fetchall():
            self._watches.resolve(run_id(run))
            self._ended = number
        self._version = version
        self._changes.note()


def _first(*instants: int | None) -> int | None:
    return min([at_ms for at_ms in instants if at_ms is not None], default=None)
