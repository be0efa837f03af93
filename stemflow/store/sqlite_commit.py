"""Writing decisions into SQLite. Everything here runs inside the caller's transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any

import msgspec

from stemflow.model import wire
from stemflow.model.effects import Decision, Put
from stemflow.model.policy import RateLimit
from stemflow.model.records import HOUSE, READY, Claim, Node
from stemflow.store.place import may_hold_lease, timer_of
from stemflow.store.windows import Lane

_INSERT = """INSERT INTO nodes (run, path, rev, delivery, state, place, queue, lane, priority, at_ms, due_at_ms, body)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"""
_UPDATE = """UPDATE nodes SET rev = ?, state = ?, place = ?, queue = ?, lane = ?, priority = ?, at_ms = ?,
    due_at_ms = ?, lease_until_ms = CASE WHEN ? THEN lease_until_ms END, owner = CASE WHEN ? THEN owner END, body = ?
    WHERE run = ? AND path = ? AND rev = ? AND delivery = ?"""
_END = "UPDATE runs SET ended = (SELECT coalesce(max(ended), 0) + 1 FROM runs WHERE ended IS NOT NULL) WHERE run = ?"


def commit(db: sqlite3.Connection, decision: Decision, now_ms: int) -> bool:
    """Write all of a decision, or nothing when one of its guards fails."""
    db.execute("SAVEPOINT decision")
    if not _as_seen(db, decision) or not _put(db, decision.puts, now_ms):
        db.execute("ROLLBACK TO decision")
        db.execute("RELEASE decision")
        return False
    if decision.headers or decision.plans or decision.pages or decision.dead or decision.ended:
        _rest(db, decision)
    db.execute("RELEASE decision")
    return True


def _as_seen(db: sqlite3.Connection, decision: Decision) -> bool:
    """Whether the records that were read, but are not written, are still as they were."""
    for (run, path), rev in decision.seen:
        if run == HOUSE:
            row = db.execute("SELECT rev FROM claims WHERE key = ?", (path,)).fetchone()
        else:
            row = db.execute("SELECT rev FROM nodes WHERE run = ? AND path = ?", (run, path)).fetchone()
        if (0 if row is None else row[0]) != rev:
            return False
    return True


def put_pages(db: sqlite3.Connection, run: str, path: str, pages: Iterable[tuple[int, bytes]]) -> None:
    db.executemany(
        "INSERT OR REPLACE INTO pages (run, path, number, body) VALUES (?, ?, ?, ?)",
        ((run, path, number, page) for number, page in pages),
    )


def put_note(db: sqlite3.Connection, note: tuple[str, str, bytes], now_ms: int, ttl_ms: int) -> None:
    """Write a hint, and drop those of anybody that are past their time."""
    db.execute("DELETE FROM notes WHERE until_ms <= ?", (now_ms,))
    statement = "INSERT OR REPLACE INTO notes (topic, name, body, until_ms) VALUES (?, ?, ?, ?)"
    db.execute(statement, (*note, now_ms + ttl_ms))


@lru_cache(maxsize=1_024)
def lane_name(limits: Lane) -> str:
    """The name of a lane in the index of ready leaves; leaves without limits stand in the lane of no name."""
    return msgspec.json.encode(limits).decode() if limits else ""


@lru_cache(maxsize=1_024)
def lane_of(name: str) -> Lane:
    return msgspec.json.decode(name, type=tuple[RateLimit, ...]) if name else ()


def _put(db: sqlite3.Connection, puts: Sequence[Put], now_ms: int) -> bool:
    new: list[tuple[Any, ...]] = []
    old: list[tuple[Any, ...]] = []
    for put in puts:
        node = put.record
        if put.key[0] == HOUSE:
            if not _put_claim(db, put):
                return False
        elif not isinstance(node, Node):
            raise TypeError(f"put {put.key}: expected a Node, got {node!r}")
        elif put.guard:
            old.append(_changed(put, node, now_ms))
        else:
            new.append((*put.key, node.rev, node.delivery, *_columns(node, now_ms), wire.encode(node)))
    if old and db.executemany(_UPDATE, old).rowcount != len(old):
        return False
    return not new or db.executemany(_INSERT, new).rowcount == len(new)


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
    body = wire.encode(claim)
    if put.guard == 0:
        statement = "INSERT INTO claims (rev, body, key) VALUES (?, ?, ?) ON CONFLICT DO NOTHING"
        return db.execute(statement, (claim.rev, body, key)).rowcount == 1
    statement = "UPDATE claims SET rev = ?, body = ? WHERE key = ? AND rev = ?"
    return db.execute(statement, (claim.rev, body, key, put.guard)).rowcount == 1


def _rest(db: sqlite3.Connection, decision: Decision) -> None:
    for header in decision.headers:
        db.execute("INSERT OR IGNORE INTO runs (run, header) VALUES (?, ?)", (header.run, wire.encode(header)))
    for plan in decision.plans:
        db.execute("INSERT OR IGNORE INTO plans (digest, body) VALUES (?, ?)", (plan.digest, wire.encode(plan)))
    for some in decision.pages:
        put_pages(db, *some.key, enumerate(some.pages))
    for letter in decision.dead:
        db.execute("INSERT INTO dead (run, body) VALUES (?, ?)", (letter.run, wire.encode(letter)))
    for run in decision.ended:
        db.execute(_END, (run,))
