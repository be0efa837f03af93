"""The inboxes of runs in SQLite. Everything here runs inside the caller's transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from stemflow.model import wire
from stemflow.model.effects import Decision
from stemflow.model.records import Node
from stemflow.store.base import INBOX_MS, INBOX_POSTS, INBOX_RUNS, Inbox, Want
from stemflow.store.damaged import decoded_or_none
from stemflow.store.sqlite.knowledge import Knowledge
from stemflow.store.sqlite.rows import record_at, run_blob, run_id

_ANY = "SELECT 1 FROM inboxes LIMIT 1"
_INBOXES = "SELECT free_at_ms, run FROM inboxes WHERE ? IS NULL OR run = ? ORDER BY free_at_ms, run"


class Inboxes(NamedTuple):
    """Runs whose inbox may be leased, runs whose inbox another caller has, and when the first of these is free."""

    free: Sequence[str]
    busy: tuple[str, ...]
    next_at_ms: int | None


NONE: Final = Inboxes((), (), None)


def commit(db: sqlite3.Connection, decision: Decision) -> None:
    for run, upto in decision.consumed:
        name = run_blob(run)
        db.execute("DELETE FROM posts WHERE run = ? AND id <= ?", (name, upto))
        db.execute("UPDATE inboxes SET free_at_ms = 0 WHERE run = ?", (name,))
        empty = "DELETE FROM inboxes WHERE run = ? AND NOT EXISTS (SELECT 1 FROM posts WHERE run = ?)"
        db.execute(empty, (name, name))
    for post in decision.posts:
        name = run_blob(post.run)
        db.execute("INSERT INTO posts (run, body) VALUES (?, ?)", (name, wire.encode(post)))
        db.execute("INSERT OR IGNORE INTO inboxes (run, free_at_ms) VALUES (?, 0)", (name,))


def look(db: sqlite3.Connection, known: Knowledge, want: Want, now_ms: int) -> Inboxes:
    if not known.inboxes:
        return NONE
    if db.execute(_ANY).fetchone() is None:
        known.found_none("inboxes")
        return NONE
    only = None if want.only_run is None else run_blob(want.only_run)
    found = db.execute(_INBOXES, (only, only)).fetchall()
    free = [run_id(run) for at_ms, run in found if at_ms <= now_ms]
    later = [one for one in found if one[0] > now_ms]
    busy = tuple([run_id(run) for _, run in later[:INBOX_RUNS]])
    return Inboxes(free[:INBOX_RUNS], busy, later[0][0] if later else None)


def lease_all(db: sqlite3.Connection, runs: Iterable[str], now_ms: int) -> tuple[Inbox, ...]:
    """The first posts of each of these runs that has any."""
    return tuple([one for run in runs if (one := lease(db, run, now_ms)) is not None])


def lease(db: sqlite3.Connection, run: str, now_ms: int) -> Inbox | None:
    """The first posts of a run, which are given to nobody else for INBOX_MS; None, and no inbox, if it has none."""
    name = run_blob(run)
    db.execute("UPDATE inboxes SET free_at_ms = ? WHERE run = ?", (now_ms + INBOX_MS, name))
    rows = db.execute("SELECT id, body FROM posts WHERE run = ? ORDER BY id LIMIT ?", (name, INBOX_POSTS)).fetchall()
    if not rows:
        drop(db, run)
        return None
    found = [decoded_or_none(f"a post to run {run}", wire.decode_post, body) for _, body in rows]
    posts = tuple([post for post in found if post is not None and post.run == run])
    scopes = (record_at(db, key) for key in dict.fromkeys(post.scope for post in posts))
    nodes = tuple([one for one in scopes if isinstance(one, Node)])
    return Inbox(run, rows[-1][0], posts, nodes, damaged=len(posts) < len(rows))


def drop(db: sqlite3.Connection, run: str) -> None:
    db.execute("DELETE FROM posts WHERE run = ?", (run_blob(run),))
    db.execute("DELETE FROM inboxes WHERE run = ?", (run_blob(run),))
