"""Writing decisions into SQLite. Everything here runs inside the caller's transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any

from stemflow.model import wire
from stemflow.model.effects import Decision, Put
from stemflow.model.records import NO_RUN, READY, Claim, Node
from stemflow.store.index_rules import may_hold_lease, timer_of, window_of
from stemflow.store.sqlite import inbox as sqlite_inbox
from stemflow.store.sqlite.lanes import join, lane_name, rank_of
from stemflow.store.sqlite.retention import drop_run

_INSERT = """INSERT INTO nodes (run, path, rev, delivery, state, place, queue, lane, priority, at_ms, due_at_ms, body)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"""
_UPDATE = """UPDATE nodes SET rev = ?, state = ?, place = ?, queue = ?, lane = ?, priority = ?, at_ms = ?,
    due_at_ms = ?, lease_until_ms = CASE WHEN ? THEN lease_until_ms END, owner = CASE WHEN ? THEN owner END, body = ?
    WHERE run = ? AND path = ? AND rev = ? AND delivery = ?"""
_END = """UPDATE runs SET ended = (SELECT max(coalesce(max(ended), 0) + 1, ?) FROM runs WHERE ended IS NOT NULL),
    until_ms = max(?, (SELECT coalesce(max(until_ms), 0) FROM dead WHERE run = ?)) WHERE run = ?"""
"""Numbers of ends grow, though those that were pruned are no longer there to be counted: they begin at the time."""
_LETTER = """INSERT INTO dead (run, path, queue, reason, at_ms, until_ms, body) VALUES (?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT DO NOTHING"""


def commit(db: sqlite3.Connection, decision: Decision, now_ms: int) -> bool:
    """Write all of a decision, or nothing when one of its guards fails."""
    db.execute("SAVEPOINT decision")
    if not _as_seen(db, decision) or not _written(db, decision, now_ms):
        db.execute("ROLLBACK TO decision")
        db.execute("RELEASE decision")
        return False
    if decision.headers or decision.plans or decision.pages or decision.dead or decision.purged or decision.ended:
        _rest(db, decision, now_ms)
    if decision.posts or decision.consumed:
        sqlite_inbox.commit(db, decision)
    db.execute("RELEASE decision")
    return True


def _written(db: sqlite3.Connection, decision: Decision, now_ms: int) -> bool:
    for run in decision.dropped:
        drop_run(db, run)
    return _put(db, (*decision.puts, *decision.twins()), now_ms)


def _as_seen(db: sqlite3.Connection, decision: Decision) -> bool:
    """Whether the records that were read, but are not written, are still as they were."""
    for (run, path), rev in decision.seen:
        if run == NO_RUN:
            row = db.execute("SELECT rev FROM claims WHERE key = ?", (path,)).fetchone()
        else:
            row = db.execute("SELECT rev FROM nodes WHERE run = ? AND path = ?", (run, path)).fetchone()
        if (0 if row is None else row[0]) != rev:
            return False
    return True


def put_note(db: sqlite3.Connection, note: tuple[str, str, bytes], now_ms: int, ttl_ms: int) -> None:
    """Write a hint, and drop those of anybody that are past their time."""
    db.execute("DELETE FROM notes WHERE until_ms <= ?", (now_ms,))
    statement = "INSERT OR REPLACE INTO notes (topic, name, body, until_ms) VALUES (?, ?, ?, ?)"
    db.execute(statement, (*note, now_ms + ttl_ms))


def _put(db: sqlite3.Connection, puts: Sequence[Put], now_ms: int) -> bool:
    new: list[tuple[Any, ...]] = []
    old: list[tuple[Any, ...]] = []
    limited: list[Put] = []
    for put in puts:
        node = put.record
        if put.key[0] == NO_RUN:
            if not _put_claim(db, put):
                return False
        elif not isinstance(node, Node):
            raise TypeError(f"put {put.key}: expected a Node, got {node!r}")
        elif put.guard:
            old.append(_changed(put, node, now_ms))
        else:
            new.append((*put.key, node.rev, node.delivery, *_columns(node, now_ms), wire.encode(node)))
        if isinstance(node, Node) and node.limits and node.state == READY and node.at_ms <= now_ms:
            limited.append(put)
    if limited:
        _join(db, limited)
    if old and db.executemany(_UPDATE, old).rowcount != len(old):
        return False
    return not new or db.executemany(_INSERT, new).rowcount == len(new)


def _join(db: sqlite3.Connection, limited: Sequence[Put]) -> None:
    """Tell the lanes of what will be ready; rows that are new come after all that there are."""
    last = db.execute("SELECT coalesce(max(id), 0) FROM nodes").fetchone()[0]
    best: dict[tuple[str, str], int] = {}
    for put in limited:
        node = put.record
        assert isinstance(node, Node)
        row = last + 1
        if put.guard:
            known = db.execute("SELECT id FROM nodes WHERE run = ? AND path = ?", put.key).fetchone()
            row = known[0] if known is not None else row
        place, rank = (node.queue, lane_name(node.limits)), rank_of(node.priority, row)
        best[place] = min(rank, best.get(place, rank))
    for (queue, lane), rank in best.items():
        join(db, queue, lane, rank)


def _changed(put: Put, node: Node, now_ms: int) -> tuple[Any, ...]:
    keep = may_hold_lease(node)
    return (node.rev, *_columns(node, now_ms), keep, keep, wire.encode(node), *put.key, put.guard, put.token)


def _columns(node: Node, now_ms: int) -> tuple[Any, ...]:
    place = None
    if node.state == READY:
        place = "delayed" if node.at_ms > now_ms else "ready"
    lane = lane_name(node.limits) if node.limits else ""
    return node.state, place, node.queue, lane, node.priority, node.at_ms, timer_of(node)


def _put_claim(db: sqlite3.Connection, put: Put) -> bool:
    key, claim = put.key[1], put.record
    if claim is None:
        return db.execute("DELETE FROM claims WHERE key = ? AND rev = ?", (key, put.guard)).rowcount == 1
    if not isinstance(claim, Claim):
        raise TypeError(f"put {put.key}: expected a Claim, got {claim!r}")
    values = (claim.rev, window_of(claim), wire.encode(claim), key)
    if put.guard == 0:
        statement = "INSERT INTO claims (rev, until_ms, body, key) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING"
        return db.execute(statement, values).rowcount == 1
    statement = "UPDATE claims SET rev = ?, until_ms = ?, body = ? WHERE key = ? AND rev = ?"
    return db.execute(statement, (*values, put.guard)).rowcount == 1


def _rest(db: sqlite3.Connection, decision: Decision, now_ms: int) -> None:
    uses = [*decision.fragments]
    for header in (*decision.headers, *decision.also):
        new = "INSERT OR IGNORE INTO runs (run, header) VALUES (?, ?)"
        if db.execute(new, (header.run, wire.encode(header))).rowcount:
            uses.append((header.run, header.plan))
    db.executemany("INSERT OR IGNORE INTO uses (run, digest) VALUES (?, ?)", uses)
    for plan in decision.plans:
        db.execute("INSERT OR IGNORE INTO plans (digest, body) VALUES (?, ?)", (plan.digest, wire.encode(plan)))
    for some in decision.pages:
        rows = ((*some.key, number, page) for number, page in enumerate(some.pages))
        db.executemany("INSERT OR REPLACE INTO pages (run, path, number, body) VALUES (?, ?, ?, ?)", rows)
    db.executemany("DELETE FROM dead WHERE run = ? AND path = ?", decision.purged)
    for letter in decision.dead:
        about = (*letter.key, letter.queue, letter.reason, letter.at_ms, letter.at_ms + letter.keep_ms)
        db.execute(_LETTER, (*about, wire.encode(letter)))
    for end in decision.ended:
        db.execute(_END, (now_ms * 1_000, now_ms + end.keep_ms, end.run, end.run))
