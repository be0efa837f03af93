"""Leases and timers in SQLite: granting, transfer and renewal. Writes run inside the caller's transaction."""

from __future__ import annotations

import copy
import sqlite3
from collections.abc import Mapping, Sequence
from operator import itemgetter
from typing import Final, NamedTuple

import msgspec

from stemflow.model.effects import Decision, Put
from stemflow.model.facts import Due
from stemflow.model.records import READY, RUNNING, STOPPING, Header, Key, Node
from stemflow.store import codec
from stemflow.store.base import LOSS_LEASE_MS, TIMER_PAGE, Lease, Renewed, Want
from stemflow.store.damaged import decoded_or_none
from stemflow.store.index_rules import HIGHEST_LEVEL, level_of, timer_of
from stemflow.store.lane_choice import choose
from stemflow.store.places import place_of_put
from stemflow.store.process_owner import is_dead
from stemflow.store.rate_windows import Past, Windows
from stemflow.store.sqlite import lanes as sqlite_lanes
from stemflow.store.sqlite.knowledge import Knowledge
from stemflow.store.sqlite.lanes import COLUMNS, Row, Rows, SqliteLanes
from stemflow.store.sqlite.rows import HEADER, NODE, header_of, node_of, run_blob, run_id

_READY = f"""SELECT {COLUMNS} FROM nodes INDEXED BY ready
    WHERE stage = 1 AND queue = ? AND lane = '' AND (? IS NULL OR run = ?)
    AND (due_at_ms IS NULL OR due_at_ms > ?) ORDER BY priority DESC, id LIMIT ?"""
_NEXT_LEVEL = """SELECT max(priority) FROM nodes INDEXED BY ready
    WHERE stage = 1 AND queue = ? AND lane = '' AND priority < ?"""
_OF_LEVEL = f"""SELECT {COLUMNS} FROM nodes INDEXED BY ready WHERE stage = 1 AND queue = ? AND lane = ''
    AND priority = ? AND (due_at_ms IS NULL OR due_at_ms > ?) ORDER BY id LIMIT ?"""
_rank = itemgetter(0)
_LEASE = """UPDATE nodes SET state = ?, delivery = ?, stage = NULL, queue = NULL, lane = NULL, priority = NULL,
    at_ms = NULL, due_at_ms = ?, lease_until_ms = ?, owner = ? WHERE id = ?"""
_RENEW = """UPDATE nodes SET lease_until_ms = ? WHERE run = ? AND path = ? AND delivery = ?
    AND lease_until_ms IS NOT NULL RETURNING state, flags"""
_NEXT_DELAYED = "SELECT min(queue) FROM nodes INDEXED BY delayed_by_queue WHERE stage = 2 AND queue > ?"
_LATE = f"""SELECT id, {NODE} FROM nodes INDEXED BY leases
    WHERE lease_until_ms IS NOT NULL AND (lease_until_ms <= ?
        OR owner IN (SELECT id FROM owners WHERE name IN (SELECT value FROM json_each(?))))
    AND (? IS NULL OR run = ?)
    ORDER BY lease_until_ms, id LIMIT ?"""
_STARTED = "INSERT OR REPLACE INTO rate_windows (key, past, until_ms) VALUES (?, ?, ?)"
_RUNNING, _STOPPING = codec.NUMBER[RUNNING], codec.NUMBER[STOPPING]
_decode_past: Final[msgspec.msgpack.Decoder[Past]] = msgspec.msgpack.Decoder(Past)


class Direct(NamedTuple):
    """A leaf that is leased in the step that makes it ready: as it is then, to whom, and until when."""

    node: Node
    owner: int
    until_ms: int


class Taken(NamedTuple):
    """What one exchange leases, and when a lane that has to wait may go on."""

    leases: list[Lease]
    blocked_until_ms: int | None


NOTHING: Final = Taken([], None)


def direct(db: sqlite3.Connection, known: Knowledge, decision: Decision, want: Want, now_ms: int) -> dict[Key, Direct]:
    """The leaves that a decision makes ready and that can be leased at once, best first: all of them or none.

    Nothing else may compete with them: no leaf that is ready in the wanted queues, delayed, or rate limited.
    """
    if decision.also or want.limit <= 0 or known.delayed or known.lanes or known.ready_places(db, want):
        return {}
    found = [
        put
        for put in decision.puts
        if isinstance(put.record, Node) and put.record.state == READY and _is_wanted(put, want)
    ]
    if not found or len(found) > want.limit or (len(found) > 1 and any(put.guard for put in found)):
        return {}
    made = {}
    for put in sorted(found, key=lambda one: -level_of(one.record)):  # type: ignore[arg-type]
        node = copy.copy(put.record)
        assert isinstance(node, Node)
        if node.limits or node.at_ms > now_ms or (node.due_at_ms is not None and node.due_at_ms <= now_ms):
            return {}
        node.state = RUNNING
        node.delivery += 1
        made[put.key] = Direct(node, known.owner(db, want.owner), now_ms + node.lease_ms)
    return made


def _is_wanted(put: Put, want: Want) -> bool:
    return want.accepts(place_of_put(put)) and want.only_run in (None, put.key[0])


def has_work(db: sqlite3.Connection, known: Knowledge, want: Want, now_ms: int) -> bool:
    """Whether taking the write lock for a lease may be worth it."""
    if want.limit <= 0:
        return False
    some = "SELECT 1 FROM nodes INDEXED BY ready WHERE stage = 1 AND queue = ? AND lane = '' LIMIT 1"
    for queue in known.ready_places(db, want):
        if db.execute(some, (queue,)).fetchone():
            return True
        known.nothing_ready(queue)
    if known.delayed:
        first = sqlite_lanes.first_delayed_ms(db, known)
        if first is not None and first <= now_ms:
            return True
    named = sqlite_lanes.places(db, known, want)
    return any(sqlite_lanes.may_admit(db, queue, now_ms) for queue in named)


def take(db: sqlite3.Connection, known: Knowledge, want: Want, headers: Mapping[str, Header], now_ms: int) -> Taken:
    """Lease up to `want.limit` leaves, best first. `headers`: of runs that the same exchange creates."""
    windows = Windows(now_ms, lambda key: past_of(db, key))
    rows, blocked = _choose(db, known, want, windows, now_ms)
    if not rows:
        return Taken([], blocked)
    leases, updates, owner = [], [], known.owner(db, want.owner)
    for _, row, *columns in rows:
        node = node_of(*columns)
        node.state = RUNNING
        node.delivery += 1
        until_ms = now_ms + node.lease_ms
        leases.append(granted(db, node, until_ms, headers))
        timer = None if node.due_at_ms is None else timer_of(node)
        updates.append((_RUNNING, node.delivery, timer, until_ms, owner, row))
    db.executemany(_LEASE, updates)
    for key, past in windows.started().items():
        db.execute(_STARTED, (key, msgspec.msgpack.encode(past), now_ms + past.span_ms))
    return Taken(leases, blocked)


def granted(db: sqlite3.Connection, node: Node, until_ms: int, headers: Mapping[str, Header] = {}) -> Lease:
    """A lease as a worker gets it: with the header, for the root of a run."""
    if node.path:
        return Lease(node, until_ms)
    header = headers.get(node.run)
    if header is None:
        found = f"SELECT {HEADER} FROM runs WHERE run = ?"
        row = db.execute(found, (run_blob(node.run),)).fetchone()
        header = None if row is None else header_of(run_blob(node.run), *row)
    return Lease(node, until_ms, header)


def _choose(
    db: sqlite3.Connection, known: Knowledge, want: Want, windows: Windows, now_ms: int
) -> tuple[list[Row], int | None]:
    """The best rows of all lanes, in order; and when those of `want.only_run` that have to wait may go on."""
    if want.limit <= 0:
        return [], None
    sqlite_lanes.wake(db, known, now_ms)
    only = None if want.only_run is None else run_blob(want.only_run)
    read: dict[str, tuple[int, Rows]] = {}
    for queue in known.ready_places(db, want):
        rows = db.execute(_READY, (queue, only, only, now_ms, want.limit)).fetchall()
        old = _oldest(db, queue, want, now_ms) if len(rows) == want.limit else []
        read[queue] = len(rows), Rows(sorted({*rows, *old}, key=_rank, reverse=True) if old else rows[::-1])
    unlimited = [rows for _, rows in read.values()]
    named = sqlite_lanes.places(db, known, want)
    if want.only_run is not None:
        passing = [sqlite_lanes.of_run(db, queue, want.only_run, now_ms) for queue in named]
        taken = choose(unlimited, passing, windows, want.limit)
        return taken, min((one.next_at_ms for one in passing if one.next_at_ms is not None), default=None)
    limited = [
        SqliteLanes(db, queue, windows, want.limit, now_ms)
        for queue in named
        if sqlite_lanes.may_admit(db, queue, now_ms)
    ]
    taken = choose(unlimited, limited, windows, want.limit, want.oldest)
    for queue, (count, left) in read.items():
        if count < want.limit and not len(left):
            known.nothing_ready(queue)
    return taken, None


def _oldest(db: sqlite3.Connection, queue: str, want: Want, now_ms: int) -> list[Row]:
    """The first rows of each level of a place, among which are those that became ready first: `want.oldest` of each."""
    found: list[Row] = []
    level = HIGHEST_LEVEL + 1
    while want.oldest and want.only_run is None:
        level = db.execute(_NEXT_LEVEL, (queue, level)).fetchone()[0]
        if level is None:
            break
        found += db.execute(_OF_LEVEL, (queue, level, now_ms, want.oldest)).fetchall()
    return found


def past_of(db: sqlite3.Connection, key: str) -> Past | None:
    """What is remembered of starts under the key of a rate limit."""
    row = db.execute("SELECT past FROM rate_windows WHERE key = ?", (key,)).fetchone()
    return None if row is None else decoded_or_none(f"the rate window of {key}", _decode_past.decode, row[0])


def due(db: sqlite3.Connection, known: Knowledge, want: Want, now_ms: int) -> tuple[tuple[Due, ...], int | None]:
    """A page of timers that are due; and the instant of the next timer, delayed leaf or limit that opens."""
    timers, instants = _timers(db, known, want, now_ms) if known.timers else ((), [])
    if known.delayed:
        instants += _delayed(db, want, now_ms)
    if want.limit:
        instants += [sqlite_lanes.next_at_ms(db, queue) for queue in sqlite_lanes.places(db, known, want)]
    return timers, min((at_ms for at_ms in instants if at_ms is not None), default=None)


def _timers(
    db: sqlite3.Connection, known: Knowledge, want: Want, now_ms: int
) -> tuple[tuple[Due, ...], list[int | None]]:
    only = None if want.only_run is None else run_blob(want.only_run)
    rows = db.execute(
        "SELECT run, path, due_at_ms FROM nodes WHERE due_at_ms <= ? AND (? IS NULL OR run = ?)"
        " ORDER BY due_at_ms, run, path LIMIT ?",
        (now_ms, only, only, TIMER_PAGE + 1),
    ).fetchall()
    next_at_ms = db.execute("SELECT min(due_at_ms) FROM nodes WHERE due_at_ms > ?", (now_ms,)).fetchone()[0]
    if not rows and next_at_ms is None and only is None:
        known.found_none("timers")
    instants = [next_at_ms, now_ms] if len(rows) > TIMER_PAGE else [next_at_ms]
    return tuple(Due((run_id(run), path), at_ms) for run, path, at_ms in rows[:TIMER_PAGE]), instants


def _delayed(db: sqlite3.Connection, want: Want, now_ms: int) -> list[int | None]:
    """When the first delayed leaf that is wanted may be leased."""
    if not want.accepts_all:
        places = [place for place in delayed_places(db) if want.accepts(place)]
        first = "SELECT min(at_ms) FROM nodes INDEXED BY delayed_by_queue WHERE stage = 2 AND queue = ? AND at_ms > ?"
        return [db.execute(first, (place, now_ms)).fetchone()[0] for place in places]
    first = "SELECT min(at_ms) FROM nodes INDEXED BY delayed WHERE stage = 2 AND at_ms > ?"
    return [db.execute(first, (now_ms,)).fetchone()[0]]


def delayed_places(db: sqlite3.Connection) -> list[str]:
    """The places that hold delayed leaves."""
    found, place = [], ""
    while (place := db.execute(_NEXT_DELAYED, (place,)).fetchone()[0]) is not None:
        found.append(place)
    return found


def still_held(db: sqlite3.Connection, held: Sequence[tuple[Key, int]]) -> tuple[Lease, ...]:
    """The leases among (key, token) that hold, as they now are."""
    found = f"SELECT lease_until_ms, {NODE} FROM nodes WHERE run = ? AND path = ? AND delivery = ?"
    found += " AND lease_until_ms IS NOT NULL"
    rows = [db.execute(found, (run_blob(key[0]), key[1], token)).fetchone() for key, token in held]
    return tuple(granted(db, node_of(*row[1:]), row[0]) for row in rows if row is not None)


def late(db: sqlite3.Connection, limit: int, now_ms: int, run: str | None) -> list[Row]:
    """Rows, (id, node ...), whose lease has expired, or whose owner has died."""
    holding = "SELECT name FROM owners WHERE id IN (SELECT owner FROM nodes WHERE lease_until_ms IS NOT NULL)"
    owners = db.execute(holding).fetchall()
    dead = msgspec.json.encode([owner for (owner,) in owners if is_dead(owner)]).decode()
    only = None if run is None else run_blob(run)
    return db.execute(_LATE, (now_ms, dead, only, only, limit)).fetchall()


def transfer(
    db: sqlite3.Connection, known: Knowledge, owner: str, limit: int, now_ms: int, run: str | None
) -> list[Lease]:
    """Take expired leases over under new tokens."""
    until_ms = now_ms + LOSS_LEASE_MS
    leases = []
    for row, *columns in late(db, limit, now_ms, run):
        node = node_of(*columns)
        node.delivery += 1
        leases.append(granted(db, node, until_ms))
        taking = "UPDATE nodes SET delivery = delivery + 1, lease_until_ms = ?, owner = ? WHERE id = ?"
        db.execute(taking, (until_ms, known.owner(db, owner), row))
    return leases


def renew(db: sqlite3.Connection, held: Sequence[tuple[Key, int, int]], now_ms: int) -> Renewed:
    gone: list[tuple[Key, int]] = []
    stopping: list[tuple[Key, bool]] = []
    for key, token, lease_ms in held:
        row = db.execute(_RENEW, (now_ms + lease_ms, run_blob(key[0]), key[1], token)).fetchall()
        if not row:
            gone.append((key, token))
        elif row[0][0] == _STOPPING:
            stopping.append((key, bool(row[0][1] & codec.KILL)))
    return Renewed(tuple(gone), tuple(stopping))
