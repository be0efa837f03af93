"""The inboxes of runs in SQLite. Everything here runs inside the caller's transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from stemflow.model import wire
from stemflow.model.effects import Decision
from stemflow.model.records import Key, Node, Record
from stemflow.store.base import INBOX_MS, INBOX_POSTS, INBOX_RUNS, Inbox, Want

_ANY = "SELECT 1 FROM inboxes LIMIT 1"
_BOXES = "SELECT free_at_ms, run FROM inboxes WHERE ? IS NULL OR run = ? ORDER BY free_at_ms, run"


class Boxes(NamedTuple):
    """The runs whose inbox is free, those where it is not, and when the next one of these is."""

    free: Sequence[str]
    busy_inboxes: tuple[str, ...]
    next_at_ms: int | None


NONE: Final = Boxes((), (), None)


def commit(db: sqlite3.Connection, decision: Decision) -> None:
    for run, upto in decision.consumed:
        db.execute("DELETE FROM posts WHERE run = ? AND id <= ?", (run, upto))
        db.execute("UPDATE inboxes SET free_at_ms = 0 WHERE run = ?", (run,))
        db.execute("DELETE FROM inboxes WHERE run = ? AND NOT EXISTS (SELECT 1 FROM posts WHERE run = ?)", (run, run))
    for post in decision.posts:
        db.execute("INSERT INTO posts (run, body) VALUES (?, ?)", (post.run, wire.encode(post)))
        db.execute("INSERT OR IGNORE INTO inboxes (run, free_at_ms) VALUES (?, 0)", (post.run,))


def look(db: sqlite3.Connection, want: Want, now_ms: int) -> Boxes:
    if db.execute(_ANY).fetchone() is None:
        return NONE
    found = db.execute(_BOXES, (want.only_run, want.only_run)).fetchall()
    free = [run for at_ms, run in found if at_ms <= now_ms]
    later = [one for one in found if one[0] > now_ms]
    elsewhere = tuple([run for _, run in later[:INBOX_RUNS]])
    return Boxes(free[:INBOX_RUNS], elsewhere, later[0][0] if later else None)


def hand_out(
    db: sqlite3.Connection, run: str, record: Callable[[sqlite3.Connection, Key], Record | None], now_ms: int
) -> Inbox:
    db.execute("UPDATE inboxes SET free_at_ms = ? WHERE run = ?", (now_ms + INBOX_MS, run))
    rows = db.execute("SELECT id, body FROM posts WHERE run = ? ORDER BY id LIMIT ?", (run, INBOX_POSTS)).fetchall()
    posts = tuple([wire.decode_post(body) for _, body in rows])
    scopes = (record(db, key) for key in dict.fromkeys(post.scope for post in posts))
    return Inbox(run, rows[-1][0], posts, tuple([one for one in scopes if isinstance(one, Node)]))


def drop(db: sqlite3.Connection, run: str) -> None:
    db.execute("DELETE FROM posts WHERE run = ?", (run,))
    db.execute("DELETE FROM inboxes WHERE run = ?", (run,))
