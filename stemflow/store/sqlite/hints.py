"""Hints with a time to live in SQLite. Everything here runs inside the caller's transaction."""

from __future__ import annotations

import sqlite3

_PUT = "INSERT OR REPLACE INTO hints (topic, name, body, until_ms) VALUES (?, ?, ?, ?)"


def put(db: sqlite3.Connection, hint: tuple[str, str, bytes], now_ms: int, ttl_ms: int) -> None:
    """Write a hint, (topic, name, body), and delete all that have expired."""
    db.execute("DELETE FROM hints WHERE until_ms <= ?", (now_ms,))
    db.execute(_PUT, (*hint, now_ms + ttl_ms))


def of_topic(db: sqlite3.Connection, topic: str, now_ms: int) -> dict[str, bytes]:
    found = "SELECT name, body FROM hints WHERE topic = ? AND until_ms > ?"
    return dict(db.execute(found, (topic, now_ms)).fetchall())
