"""Handing out work from SQLite: leases, their loss and renewal, timers. Writes run inside the caller's transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Final, NamedTuple

import msgspec

from stemflow.model.facts import Due
from stemflow.model.records import RUNNING, STOPPING, Key, Node
from stemflow.model.wire import decode_header, decode_node
from stemflow.store.base import LOSS_LEASE_MS, TIMER_PAGE, Lease, Renewed, Want
from stemflow.store.index_rules import timer_of
from stemflow.store.lane_choice import choose
from stemflow.store.process_owner import is_dead
from stemflow.store.rate_windows import Past, Windows
from stemflow.store.sqlite.lanes import RANK, Row, Rows, SqliteShelf, has_turn, next_at_ms, of_run, wake

_READY = f"""SELECT {RANK}, id, delivery, body FROM nodes INDEXED BY ready
    WHERE place = 'ready' AND queue = ? AND lane = '' AND (? IS NULL OR run = ?)
    AND (due_at_ms IS NULL OR due_at_ms > ?) ORDER BY priority DESC, id LIMIT ?"""
_QUEUE = "SELECT min(queue) FROM nodes INDEXED BY {0} WHERE place = '{0}' AND queue > ?"
_LEASE = """UPDATE nodes SET state = ?, delivery = ?, place = NULL, due_at_ms = ?, lease_until_ms = ?, owner = ?
    WHERE id = ?"""
_RENEW = """UPDATE nodes SET lease_until_ms = ? WHERE run = ? AND path = ? AND delivery = ?
    AND lease_until_ms IS NOT NULL RETURNING CASE WHEN state = ? THEN body END"""
_LATE = """SELECT id, state, delivery, body FROM nodes INDEXED BY leases
    WHERE lease_until_ms IS NOT NULL AND (lease_until_ms <= ? OR owner IN (SELECT value FROM json_each(?)))
    AND (? IS NULL OR run = ?)
    ORDER BY lease_until_ms, id LIMIT ?"""

_STARTED = "INSERT OR REPLACE INTO windows (key, past, until_ms) VALUES (?, ?, ?)"
_past_of: Final[msgspec.msgpack.Decoder[Past]] = msgspec.msgpack.Decoder(Past)

class Taken(NamedTuple):
    """What one exchange leases: row ids beside the leases, and when a lane that had to wait may go on."""

    ids: list[int]
    leases: list[Lease]
    blocked_until_ms: int | None


NOTHING: Final = Taken([], [], None)


def revive(state: str, delivery: int, body: bytes) -> Node:
    """A record from its bytes; a lease changes only the columns."""
    node = decode_node(body)
    node.state, node.delivery = state, delivery  # type: ignore[assignment]
    return node


def has_work(db: sqlite3.Connection, want: Want, now_ms: int) -> bool:
    """Whether taking the write lock for a lease may be worth it."""
    for queue in _queues(db, want) if want.limit > 0 else ():
        plain = "SELECT 1 FROM nodes WHERE place = 'ready' AND queue = ? AND lane = '' LIMIT 1"
        if db.execute(plain, (queue,)).fetchone() or has_turn(db, queue, now_ms):
            return True
        delayed = "SELECT 1 FROM nodes WHERE place = 'delayed' AND queue = ? AND at_ms <= ? LIMIT 1"
        if db.execute(delayed, (queue, now_ms)).fetchone():
            return True
    return False


def take(db: sqlite3.Connection, want: Want, now_ms: int) -> Taken:
    """Lease up to `want.limit` leaves, best first."""
    windows = Windows(now_ms, lambda key: _past(db, key))
    rows, blocked = _choose(db, want, windows, now_ms)
    leases, updates = [], []
    for _, row, delivery, body in rows:
        node = revive(RUNNING, delivery + 1, body)
        until_ms = now_ms + node.lease_ms
        leases.append(granted(db, node, until_ms))
        updates.append((RUNNING, node.delivery, timer_of(node), until_ms, want.owner, row))
    db.executemany(_LEASE, updates)
    for key, past in windows.started().items():
        db.execute(_STARTED, (key, msgspec.msgpack.encode(past), now_ms + past.span_ms))
    return Taken([row[1] for row in rows], leases, blocked)


def granted(db: sqlite3.Connection, node: Node, until_ms: int) -> Lease:
    """A lease as it is handed out: with the header, for the root of a run."""
    row = None if node.path else db.execute("SELECT header FROM runs WHERE run = ?", (node.run,)).fetchone()
    return Lease(node, until_ms, None if row is None else decode_header(row[0]))


def _choose(db: sqlite3.Connection, want: Want, windows: Windows, now_ms: int) -> tuple[list[Row], int | None]:
    """The best rows of all lanes, in order; and when those of `want.only_run` that have to wait may go on."""
    plains, shelves, passing = [], [], []
    for queue in _queues(db, want) if want.limit else ():
        wake(db, queue, now_ms)
        rows = db.execute(_READY, (queue, want.only_run, want.only_run, now_ms, want.limit)).fetchall()
        plains.append(Rows(rows[::-1]))
        if want.only_run is not None:
            passing.append(of_run(db, queue, want.only_run, now_ms))
        elif has_turn(db, queue, now_ms):
            shelves.append(SqliteShelf(db, queue, windows, want.limit, now_ms))
    if want.only_run is None:
        return choose(plains, shelves, windows, want.limit), None
    taken = choose(plains, passing, windows, want.limit)
    return taken, min((one.next_at_ms for one in passing if one.next_at_ms is not None), default=None)


def _queues(db: sqlite3.Connection, want: Want) -> Sequence[str]:
    """The queues that are wanted: where none is named, those in which something is ready or delayed."""
    if want.queues is not None:
        return want.queues
    found: dict[str, None] = {}
    for place in ("ready", "delayed"):
        next_one, after = _QUEUE.format(place), ""
        while (name := db.execute(next_one, (after,)).fetchone()[0]) is not None:
            found[name] = None
            after = name
    return tuple(found)


def _past(db: sqlite3.Connection, key: str) -> Past | None:
    row = db.execute("SELECT past FROM windows WHERE key = ?", (key,)).fetchone()
    return None if row is None else _past_of.decode(row[0])


def due(db: sqlite3.Connection, want: Want, now_ms: int) -> tuple[tuple[Due, ...], int | None]:
    """A page of timers that are due; and the instant of the next timer, or of the next delayed leaf."""
    rows = db.execute(
        "SELECT run, path, due_at_ms FROM nodes WHERE due_at_ms <= ? AND (? IS NULL OR run = ?)"
        " ORDER BY due_at_ms, run, path LIMIT ?",
        (now_ms, want.only_run, want.only_run, TIMER_PAGE + 1),
    ).fetchall()
    instants = [db.execute("SELECT min(due_at_ms) FROM nodes WHERE due_at_ms > ?", (now_ms,)).fetchone()[0]]
    for queue in _queues(db, want):
        delayed = "SELECT min(at_ms) FROM nodes WHERE place = 'delayed' AND queue = ? AND at_ms > ?"
        instants.append(db.execute(delayed, (queue, now_ms)).fetchone()[0])
        if want.limit:
            instants.append(next_at_ms(db, queue))
    if len(rows) > TIMER_PAGE:
        instants.append(now_ms)
    timers = tuple(Due((run, path), at_ms) for run, path, at_ms in rows[:TIMER_PAGE])
    return timers, min((at_ms for at_ms in instants if at_ms is not None), default=None)


def still_held(db: sqlite3.Connection, ids: Sequence[tuple[int, int]]) -> tuple[Lease, ...]:
    """The leases among (row id, token) that hold, as they now are."""
    found = "SELECT state, delivery, body, lease_until_ms FROM nodes WHERE id = ? AND delivery = ?"
    found += " AND lease_until_ms IS NOT NULL"
    rows = [db.execute(found, pair).fetchone() for pair in ids]
    return tuple(granted(db, revive(*row[:3]), row[3]) for row in rows if row is not None)


def late(db: sqlite3.Connection, limit: int, now_ms: int, run: str | None) -> list[tuple[int, str, int, bytes]]:
    """Rows whose lease is past its time, or whose owner has died."""
    owners = db.execute("SELECT DISTINCT owner FROM nodes WHERE lease_until_ms IS NOT NULL").fetchall()
    dead = msgspec.json.encode([owner for (owner,) in owners if is_dead(owner)]).decode()
    return db.execute(_LATE, (now_ms, dead, run, run, limit)).fetchall()


def transfer(db: sqlite3.Connection, owner: str, limit: int, now_ms: int, run: str | None) -> list[Lease]:
    """Take late leases over under new tokens."""
    until_ms = now_ms + LOSS_LEASE_MS
    leases = []
    for row, state, delivery, body in late(db, limit, now_ms, run):
        leases.append(granted(db, revive(state, delivery + 1, body), until_ms))
        taking = "UPDATE nodes SET delivery = delivery + 1, lease_until_ms = ?, owner = ? WHERE id = ?"
        db.execute(taking, (until_ms, owner, row))
    return leases


def renew(db: sqlite3.Connection, held: Sequence[tuple[Key, int, int]], now_ms: int) -> Renewed:
    gone: list[tuple[Key, int]] = []
    stopping: list[tuple[Key, bool]] = []
    for key, token, lease_ms in held:
        row = db.execute(_RENEW, (now_ms + lease_ms, *key, token, STOPPING)).fetchall()
        if not row:
            gone.append((key, token))
        elif row[0][0] is not None:
            stopping.append((key, decode_node(row[0][0]).kill))
    return Renewed(tuple(gone), tuple(stopping))
