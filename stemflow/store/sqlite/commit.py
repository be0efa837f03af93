"""Writing decisions into SQLite. Everything here runs inside the caller's transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any, Final

from stemflow.model import wire
from stemflow.model.effects import Decision, Put
from stemflow.model.records import NO_RUN, READY, Header, Key, Node
from stemflow.store import codec
from stemflow.store.index_rules import level_of, may_hold_lease, window_of
from stemflow.store.places import place_of_put
from stemflow.store.rate_windows import lane_name
from stemflow.store.sqlite import inbox as sqlite_inbox
from stemflow.store.sqlite.knowledge import Knowledge
from stemflow.store.sqlite.lanes import join, rank_of
from stemflow.store.sqlite.lease import Direct
from stemflow.store.sqlite.retention import drop_run
from stemflow.store.sqlite.rows import node_columns, run_blob

_INSERT = """INSERT INTO nodes (run, path, state, flags, rev, delivery, lease_ms, body, stage, queue, lane, priority,
    at_ms, due_at_ms, lease_until_ms, owner)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"""
_UPDATE = """UPDATE nodes SET state = ?, flags = ?, rev = ?, delivery = ?, lease_ms = ?, body = ?, stage = ?, queue = ?,
    lane = ?, priority = ?, at_ms = ?, due_at_ms = ?{lease} WHERE run = ? AND path = ? AND rev = ? AND delivery = ?"""
_UPDATE_LEASED: Final = _UPDATE.format(lease="")
_UPDATE_ENDED: Final = _UPDATE.format(lease=", lease_until_ms = NULL, owner = NULL")
_UPDATE_DIRECT: Final = _UPDATE.format(lease=", lease_until_ms = ?, owner = ?")
_NO_LEASE: Final = (None, None)
_END = """UPDATE runs SET ended = (SELECT max(coalesce(max(ended), 0) + 1, ?) FROM runs WHERE ended IS NOT NULL),
    until_ms = max(?, (SELECT coalesce(max(until_ms), 0) FROM dead_letters WHERE run = ?)) WHERE run = ?"""
"""Numbers of ends grow, though those that were pruned are no longer there to be counted: they begin at the time."""
_LETTER = """INSERT INTO dead_letters (run, path, queue, reason, at_ms, until_ms, body) VALUES (?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT DO NOTHING"""
_PLAN = """INSERT INTO plans (digest, body) VALUES (?, ?)
    ON CONFLICT (digest) DO UPDATE SET body = excluded.body WHERE body IS NULL"""


def commit(
    db: sqlite3.Connection, known: Knowledge, decision: Decision, now_ms: int, direct: Mapping[Key, Direct]
) -> bool:
    """Write a decision; False when one of its guards fails, and the caller has to roll back what was written.

    Leaves in `direct` are ready and leased in one step.
    """
    if decision.seen and not _as_seen(db, decision):
        return False
    for run in decision.dropped:
        drop_run(db, known, run)
    puts = (*decision.puts, *decision.twins()) if decision.also else decision.puts
    if not _put(db, known, puts, now_ms, direct):
        return False
    if decision.headers or decision.plans or decision.fragments:
        _begin_runs(db, known, decision)
    if decision.pages or decision.dead or decision.purged or decision.ended:
        _rest(db, decision, now_ms)
    if decision.posts or decision.consumed:
        known.saw("inboxes")
        sqlite_inbox.commit(db, decision)
    return True


def _as_seen(db: sqlite3.Connection, decision: Decision) -> bool:
    """Whether the records that were read, but are not written, are still as they were."""
    for (run, path), rev, token in decision.seen:
        if run == NO_RUN:
            row = db.execute("SELECT rev, 0 FROM claims WHERE key = ?", (path,)).fetchone()
        else:
            statement = "SELECT rev, delivery FROM nodes WHERE run = ? AND path = ?"
            row = db.execute(statement, (run_blob(run), path)).fetchone()
        if (row or (0, 0)) != (rev, token):
            return False
    return True


def _put(
    db: sqlite3.Connection, known: Knowledge, puts: Sequence[Put], now_ms: int, direct: Mapping[Key, Direct]
) -> bool:
    new: list[tuple[Any, ...]] = []
    ended: list[tuple[Any, ...]] = []
    leased: list[tuple[Any, ...]] = []
    limited: list[Put] = []
    for put in puts:
        node = put.record
        if put.key[0] == NO_RUN:
            if not _put_shared(db, put):
                return False
            continue
        if not isinstance(node, Node):
            raise TypeError(f"put {put.key}: expected a Node, got {node!r}")
        key = (run_blob(put.key[0]), put.key[1])
        if put.key in direct:
            lease = direct[put.key]
            columns = node_columns(lease.node, "", now_ms)
            if columns[11] is not None:
                known.saw("timers")
            if not put.guard:
                new.append((*key, *columns, lease.until_ms, lease.owner))
            elif db.execute(
                _UPDATE_DIRECT, (*columns, lease.until_ms, lease.owner, *key, put.guard, put.token)
            ).rowcount != 1:  # fmt: skip
                return False
            continue
        columns = node_columns(node, put.task, now_ms)
        if columns[11] is not None:
            known.saw("timers")
        if not put.guard:
            new.append((*key, *columns, *_NO_LEASE))
        else:
            (leased if may_hold_lease(node) else ended).append((*columns, *key, put.guard, put.token))
        if node.state == READY:
            if node.at_ms > now_ms:
                known.saw("delayed")
            elif node.limits:
                limited.append(put)
            else:
                known.became_ready(place_of_put(put))
    if limited:
        known.saw("lanes")
        _join(db, limited)
    for statement, rows in ((_UPDATE_ENDED, ended), (_UPDATE_LEASED, leased), (_INSERT, new)):
        if rows and db.executemany(statement, rows).rowcount != len(rows):
            return False
    return True


def _join(db: sqlite3.Connection, limited: Sequence[Put]) -> None:
    """Rank the lanes of leaves that become ready; rows that are new come after all that there are."""
    last = db.execute("SELECT coalesce(max(id), 0) FROM nodes").fetchone()[0]
    best: dict[tuple[str, str], int] = {}
    for put in limited:
        node = put.record
        assert isinstance(node, Node)
        row = last + 1
        if put.guard:
            own = (run_blob(put.key[0]), put.key[1])
            found = db.execute("SELECT id FROM nodes WHERE run = ? AND path = ?", own).fetchone()
            row = found[0] if found is not None else row
        lane, rank = (place_of_put(put), lane_name(node.limits)), rank_of(level_of(node), row)
        best[lane] = min(rank, best.get(lane, rank))
    for (queue, lane_of), rank in best.items():
        join(db, queue, lane_of, rank)


def _put_shared(db: sqlite3.Connection, put: Put) -> bool:
    key, record = put.key[1], put.record
    if record is None:
        return db.execute("DELETE FROM claims WHERE key = ? AND rev = ?", (key, put.guard)).rowcount == 1
    if isinstance(record, Node):
        raise TypeError(f"put {put.key}: expected a record that belongs to no run, got {record!r}")
    values = (record.rev, window_of(record), wire.encode(record), key)
    if put.guard == 0:
        statement = "INSERT INTO claims (rev, until_ms, body, key) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING"
        return db.execute(statement, values).rowcount == 1
    statement = "UPDATE claims SET rev = ?, until_ms = ?, body = ? WHERE key = ? AND rev = ?"
    return db.execute(statement, (*values, put.guard)).rowcount == 1


def _begin_runs(db: sqlite3.Connection, known: Knowledge, decision: Decision) -> None:
    """Headers of new runs, and the plans that runs use."""
    for plan in decision.plans:
        if plan.digest not in known.stored_plans:
            db.execute(_PLAN, (plan.digest, wire.encode(plan)))
            known.stored_plans.add(plan.digest)
    rows = [_run_row(db, known, header) for header in (*decision.headers, *decision.also)]
    db.executemany("INSERT OR IGNORE INTO runs (run, plan, header) VALUES (?, ?, ?)", rows)
    for run, digest in decision.fragments:
        used = (run_blob(run), _plan_row(db, known, digest))
        db.execute("INSERT OR IGNORE INTO fragments (run, plan) VALUES (?, ?)", used)


def _run_row(db: sqlite3.Connection, known: Knowledge, header: Header) -> tuple[bytes, int, bytes]:
    return run_blob(header.run), _plan_row(db, known, header.plan), codec.encode_header(header, header.plan)


def _plan_row(db: sqlite3.Connection, known: Knowledge, digest: str) -> int:
    """The row id of a plan; where it is not stored yet, of a row that waits for it."""
    found = known.plans.get(digest)
    if found is None:
        row = db.execute("SELECT id FROM plans WHERE digest = ?", (digest,)).fetchone()
        if row is None:
            row = db.execute("INSERT INTO plans (digest) VALUES (?) RETURNING id", (digest,)).fetchone()
        if len(known.plans) >= 4_096:
            known.plans.clear()
        found = known.plans[digest] = int(row[0])
    return found


def _rest(db: sqlite3.Connection, decision: Decision, now_ms: int) -> None:
    for some in decision.pages:
        run, path = run_blob(some.key[0]), some.key[1]
        rows = ((run, path, number, page) for number, page in enumerate(some.pages))
        db.executemany("INSERT OR REPLACE INTO pages (run, path, number, body) VALUES (?, ?, ?, ?)", rows)
    for run_of, path in decision.purged:
        db.execute("DELETE FROM dead_letters WHERE run = ? AND path = ?", (run_blob(run_of), path))
    for letter in decision.dead:
        about = (run_blob(letter.run), letter.path, letter.queue, letter.reason)
        db.execute(_LETTER, (*about, letter.at_ms, letter.at_ms + letter.keep_ms, wire.encode(letter)))
    for end in decision.ended:
        run = run_blob(end.run)
        db.execute(_END, (now_ms * 1_000, now_ms + end.keep_ms, run, run))
