"""Deleting from SQLite what is past its time. Everything here runs inside the caller's transaction."""

from __future__ import annotations

import sqlite3
from typing import Final

from stemflow.store.base import MEMO_MS, ExpiredCounts
from stemflow.store.sqlite import inbox as sqlite_inbox

FREE_PAGES: Final = 1_000
"""Pages given back to the file system at a time."""

_PAST: Final = (
    ("dead", "id", "until_ms"),
    ("claims", "key", "until_ms"),
    ("windows", "key", "until_ms"),
    ("memos", "channel", "at_ms"),
)
"""(table, its key, the column that holds its instant)"""
_RUN = "SELECT run FROM runs WHERE until_ms <= ? ORDER BY until_ms LIMIT 1"
_MEMBERS = "DELETE FROM nodes WHERE id IN (SELECT id FROM nodes WHERE run = ? AND path != '' LIMIT ?)"
_PAGES = "DELETE FROM pages WHERE rowid IN (SELECT rowid FROM pages WHERE run = ? LIMIT ?)"
_PLANS = """DELETE FROM plans WHERE digest IN (SELECT digest FROM uses WHERE run = ?)
    AND NOT EXISTS (SELECT 1 FROM uses WHERE uses.digest = plans.digest AND uses.run != ?)"""
_EVERYTHING: Final = -1


def is_past(db: sqlite3.Connection, now_ms: int) -> bool:
    """Whether there is anything to delete, so that an idle process does not write."""
    if db.execute(_RUN, (now_ms,)).fetchone() is not None:
        return True
    return any(
        db.execute(f"SELECT 1 FROM {table} WHERE {instant} <= ? LIMIT 1", (_limit_of(instant, now_ms),)).fetchone()
        for table, _, instant in _PAST
    )


def past(db: sqlite3.Connection, now_ms: int) -> ExpiredCounts:
    """How much there is to delete."""
    runs = db.execute("SELECT count(*) FROM runs WHERE until_ms <= ?", (now_ms,)).fetchone()[0]
    letters, *others = (
        db.execute(f"SELECT count(*) FROM {table} WHERE {instant} <= ?", (_limit_of(instant, now_ms),)).fetchone()[0]
        for table, _, instant in _PAST
    )
    return ExpiredCounts(runs=runs, dead_letters=letters, others=sum(others))


def prune(db: sqlite3.Connection, limit: int, now_ms: int) -> int:
    """Delete at most about `limit` records that are past their time; answers how many."""
    gone = 0
    for table, key, instant in _PAST:
        past = f"DELETE FROM {table} WHERE {key} IN (SELECT {key} FROM {table} WHERE {instant} <= ? LIMIT ?)"
        gone += db.execute(past, (_limit_of(instant, now_ms), limit)).rowcount
    while gone < limit and (row := db.execute(_RUN, (now_ms,)).fetchone()) is not None:
        gone += drop_run(db, row[0], limit - gone)
    return gone


def _limit_of(instant: str, now_ms: int) -> int:
    return now_ms - MEMO_MS if instant == "at_ms" else now_ms


def drop_run(db: sqlite3.Connection, run: str, limit: int = _EVERYTHING) -> int:
    """Delete a run, or `limit` nodes and pages of it, the root last; answers how many."""
    gone = db.execute(_PAGES, (run, limit)).rowcount
    if limit == _EVERYTHING or gone < limit:
        gone += db.execute(_MEMBERS, (run, limit - gone if limit != _EVERYTHING else limit)).rowcount
    if limit != _EVERYTHING and gone >= limit:
        return gone
    db.execute("DELETE FROM nodes WHERE run = ?", (run,))
    db.execute(_PLANS, (run, run))
    sqlite_inbox.drop(db, run)
    for table in ("uses", "dead", "runs"):
        db.execute(f"DELETE FROM {table} WHERE run = ?", (run,))
    return gone + 1
