"""Deleting expired records from SQLite. Everything here runs inside the caller's transaction."""

from __future__ import annotations

import sqlite3
from typing import Final

from stemflow.store.base import ExpiredCounts
from stemflow.store.sqlite import inbox as sqlite_inbox
from stemflow.store.sqlite.knowledge import Knowledge
from stemflow.store.sqlite.rows import run_blob, run_id

FREE_PAGES: Final = 1_000
"""Pages given back to the file system at a time."""

_EXPIRING: Final = (("dead_letters", "id"), ("claims", "key"), ("rate_windows", "key"))
"""(table, its key) of what has an instant `until_ms`."""
_RUN = "SELECT run FROM runs WHERE until_ms <= ? ORDER BY until_ms LIMIT 1"
_MEMBERS = "DELETE FROM nodes WHERE id IN (SELECT id FROM nodes WHERE run = ? AND path != '' LIMIT ?)"
_PAGES = "DELETE FROM pages WHERE rowid IN (SELECT rowid FROM pages WHERE run = ? LIMIT ?)"
_PLANS_OF = "SELECT plan FROM runs WHERE run = ? UNION SELECT plan FROM fragments WHERE run = ?"
_DROP_PLAN = """DELETE FROM plans WHERE id = ? AND NOT EXISTS (SELECT 1 FROM runs WHERE plan = plans.id)
    AND NOT EXISTS (SELECT 1 FROM fragments WHERE plan = plans.id)"""
_DROP_OWNERS = "DELETE FROM owners WHERE id NOT IN (SELECT owner FROM nodes WHERE lease_until_ms IS NOT NULL)"
_EVERYTHING: Final = -1


def is_anything_expired(db: sqlite3.Connection, now_ms: int) -> bool:
    """Whether anything has expired, so that an idle process does not write."""
    if db.execute(_RUN, (now_ms,)).fetchone() is not None:
        return True
    return any(
        db.execute(f"SELECT 1 FROM {table} WHERE until_ms <= ? LIMIT 1", (now_ms,)).fetchone() for table, _ in _EXPIRING
    )


def count_expired(db: sqlite3.Connection, now_ms: int) -> ExpiredCounts:
    """How much there is to delete."""
    runs, letters, *others = (
        db.execute(f"SELECT count(*) FROM {table} WHERE until_ms <= ?", (now_ms,)).fetchone()[0]
        for table in ("runs", *(table for table, _ in _EXPIRING))
    )
    return ExpiredCounts(runs=runs, dead_letters=letters, others=sum(others))


def prune(db: sqlite3.Connection, known: Knowledge, limit: int, now_ms: int) -> int:
    """Delete at most about `limit` expired records and return how many."""
    gone = 0
    for table, key in _EXPIRING:
        expired = f"DELETE FROM {table} WHERE {key} IN (SELECT {key} FROM {table} WHERE until_ms <= ? LIMIT ?)"
        gone += db.execute(expired, (now_ms, limit)).rowcount
    db.execute(_DROP_OWNERS)
    known.owners.clear()
    while gone < limit and (row := db.execute(_RUN, (now_ms,)).fetchone()) is not None:
        gone += drop_run(db, known, run_id(row[0]), limit - gone)
    return gone


def drop_run(db: sqlite3.Connection, known: Knowledge, run: str, limit: int = _EVERYTHING) -> int:
    """Delete a run, or `limit` nodes and pages of it, the root last; answers how many."""
    name = run_blob(run)
    gone = db.execute(_PAGES, (name, limit)).rowcount
    if limit == _EVERYTHING or gone < limit:
        gone += db.execute(_MEMBERS, (name, limit - gone if limit != _EVERYTHING else limit)).rowcount
    if limit != _EVERYTHING and gone >= limit:
        return gone
    plans = db.execute(_PLANS_OF, (name, name)).fetchall()
    sqlite_inbox.drop(db, run)
    for table in ("nodes", "fragments", "dead_letters", "runs"):
        db.execute(f"DELETE FROM {table} WHERE run = ?", (name,))
    db.executemany(_DROP_PLAN, plans)
    known.plans.clear()
    known.stored_plans.clear()
    return gone + 1
