"""What is in an SQLite store."""

from __future__ import annotations

import sqlite3

from stemflow.model.records import Node
from stemflow.store.health import Inventory, QueueInventory
from stemflow.store.sqlite.rows import NODE, node_of


def inventory(db: sqlite3.Connection, now_ms: int) -> Inventory:
    late, late_since = db.execute(
        "SELECT count(*), min(lease_until_ms) FROM nodes WHERE lease_until_ms <= ?", (now_ms,)
    ).fetchone()
    return Inventory(
        queues=tuple(_queues(db, now_ms)),
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
    later = "SELECT id FROM nodes WHERE stage = 2 AND queue = ? AND at_ms > ? ORDER BY at_ms, id LIMIT 1"
    found = []
    for queue, ready, delayed, oldest in counted:
        (first,) = db.execute(later, (queue, now_ms)).fetchone() or (None,)
        nodes = [_node(db, row) for row in (oldest, first)]
        found.append(QueueInventory(queue=queue, ready=ready, delayed=delayed, oldest=nodes[0], next=nodes[1]))
    return found


def _node(db: sqlite3.Connection, row: int | None) -> Node | None:
    found = db.execute(f"SELECT {NODE} FROM nodes WHERE id = ?", (row,)).fetchone()
    return None if found is None else node_of(*found)
