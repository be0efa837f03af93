"""What is in an SQLite store."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from stemflow.model.leaf_status import LeafStatus
from stemflow.model.records import READY, TOPIC, Claim, Key, Node
from stemflow.store.base import Lease
from stemflow.store.health import Inventory, QueueInventory, by_queue
from stemflow.store.index_rules import level_of
from stemflow.store.places import split
from stemflow.store.rate_windows import Lane, Windows, lane_name, lane_of, lanes_of
from stemflow.store.sqlite.knowledge import ready_places
from stemflow.store.sqlite.lease import delayed_places, past_of
from stemflow.store.sqlite.rows import NODE, node_of, run_blob, shared_at

_AHEAD = """SELECT count(*) FROM nodes INDEXED BY ready WHERE stage = 1 AND queue = ? AND lane = ?
    AND (priority > ? OR (priority = ? AND id < ?)) AND (due_at_ms IS NULL OR due_at_ms > ?)"""


def inventory(db: sqlite3.Connection, now_ms: int) -> Inventory:
    late, late_since = db.execute(
        "SELECT count(*), min(lease_until_ms) FROM nodes WHERE lease_until_ms <= ?", (now_ms,)
    ).fetchone()
    return Inventory(
        queues=by_queue(_queues(db, now_ms)),
        leased=_count(db, "nodes WHERE lease_until_ms IS NOT NULL"),
        late=late,
        late_since_ms=late_since,
        overdue_since_ms=db.execute("SELECT min(due_at_ms) FROM nodes WHERE due_at_ms <= ?", (now_ms,)).fetchone()[0],
        letters=_count(db, f"dead_letters WHERE until_ms > {now_ms:d}"),
        runs=_count(db, "runs"),
    )


def _count(db: sqlite3.Connection, what: str) -> int:
    count: int = db.execute(f"SELECT count(*) FROM {what}").fetchone()[0]
    return count


def _queues(db: sqlite3.Connection, now_ms: int) -> list[QueueInventory]:
    counted = db.execute(
        "SELECT queue, sum(at_ms <= ?), sum(at_ms > ?), min(CASE WHEN at_ms <= ? THEN id END) FROM nodes"
        " WHERE stage IN (1, 2) GROUP BY queue ORDER BY queue",
        (now_ms, now_ms, now_ms),
    ).fetchall()
    lanes = _lanes(db, now_ms)
    windows = Windows(now_ms, lambda key: past_of(db, key))
    later = "SELECT id FROM nodes WHERE stage = 2 AND queue = ? AND at_ms > ? ORDER BY at_ms, id LIMIT 1"
    found = []
    for queue, ready, delayed, oldest in counted:
        (first,) = db.execute(later, (queue, now_ms)).fetchone() or (None,)
        nodes = [_node(db, row) for row in (oldest, first)]
        limited = lanes_of(lanes.get(queue, {}), windows)
        oldest, later_one = nodes
        found.append(
            QueueInventory(queue=queue, ready=ready, delayed=delayed, oldest=oldest, next=later_one, lanes=limited)
        )
    return found


def _lanes(db: sqlite3.Connection, now_ms: int) -> dict[str, dict[Lane, int]]:
    """By queue and lane, how many leaves with rate limits are ready."""
    counted = (
        "SELECT queue, lane, count(*) FROM nodes WHERE stage IN (1, 2) AND lane != '' AND at_ms <= ?"
        " GROUP BY queue, lane"
    )
    found: dict[str, dict[Lane, int]] = {}
    for queue, lane, ready in db.execute(counted, (now_ms,)):
        found.setdefault(queue, {})[lane_of(lane)] = ready
    return found


def _node(db: sqlite3.Connection, row: int | None) -> Node | None:
    found = db.execute(f"SELECT {NODE} FROM nodes WHERE id = ?", (row,)).fetchone()
    return None if found is None else node_of(*found)


def leaf_status(db: sqlite3.Connection, keys: Sequence[Key], now_ms: int) -> list[LeafStatus | None]:
    """See `Store.leaf_status`."""
    windows = Windows(now_ms, lambda key: past_of(db, key))
    return [_leaf_status(db, key, windows, now_ms) for key in keys]


def _leaf_status(db: sqlite3.Connection, key: Key, windows: Windows, now_ms: int) -> LeafStatus | None:
    found = f"SELECT id, lease_until_ms, {NODE} FROM nodes WHERE run = ? AND path = ?"
    row = db.execute(found, (run_blob(key[0]), key[1])).fetchone()
    if row is None:
        return None
    number, until_ms, *columns = row
    node = node_of(*columns)
    expired = node.due_at_ms is not None and node.due_at_ms <= now_ms
    if node.state != READY or node.at_ms > now_ms or expired:
        return LeafStatus(lease_until_ms=until_ms)
    level = level_of(node)
    values = (lane_name(node.limits), level, level, number, now_ms)
    places = [place for place in ready_places(db) if split(place)[0] == node.queue]
    ahead = sum(db.execute(_AHEAD, (place, *values)).fetchone()[0] for place in places)
    limit, admits_at_ms = windows.closed(node.limits) or (None, None)
    return LeafStatus(ahead=ahead, limit=limit, admits_at_ms=admits_at_ms)


def leased(db: sqlite3.Connection, limit: int) -> list[Lease]:
    """See `Store.leased`."""
    found = (
        f"SELECT lease_until_ms, {NODE} FROM nodes INDEXED BY leases WHERE lease_until_ms IS NOT NULL"
        " ORDER BY lease_until_ms, id LIMIT ?"
    )
    return [Lease(node_of(*columns), until_ms) for until_ms, *columns in db.execute(found, (limit,))]


def claims(db: sqlite3.Connection, limit: int, after: str) -> list[Claim]:
    """See `Store.claims`."""
    found = (
        "SELECT key FROM claims INDEXED BY claims_in_use WHERE until_ms IS NULL AND key > ?"
        " AND substr(key, 1, ?) != ? ORDER BY key LIMIT ?"
    )
    keys = db.execute(found, (after, len(TOPIC), TOPIC, limit)).fetchall()
    return [claim for (key,) in keys if isinstance(claim := shared_at(db, key), Claim)]


def places(db: sqlite3.Connection) -> list[str]:
    """The places that may hold leaves which are ready or delayed."""
    limited = [place for (place,) in db.execute("SELECT DISTINCT queue FROM lanes").fetchall()]
    return list(dict.fromkeys((*ready_places(db), *limited, *delayed_places(db))))
