"""Rows as records: how runs, nodes, headers and plans are stored in SQLite."""

from __future__ import annotations

import sqlite3
from functools import lru_cache
from typing import Any, Final

from stemflow.model import wire
from stemflow.model.effects import DeadLetter
from stemflow.model.records import NO_RUN, Header, Key, Node, Record, Shared
from stemflow.store import codec
from stemflow.store.damaged import damaged_header, damaged_letter, damaged_node, damaged_shared
from stemflow.store.index_rules import level_of, timer_of
from stemflow.store.places import place_of
from stemflow.store.rate_windows import lane_name
from stemflow.store.sqlite.schema import DELAYED, READY

NODE: Final = "nodes.run, nodes.path, nodes.state, nodes.flags, nodes.rev, nodes.delivery, nodes.lease_ms, nodes.body"
"""The columns that `node_of` takes, in its order."""
HEADER: Final = "(SELECT digest FROM plans WHERE plans.id = runs.plan), runs.header"
"""The columns that `header_of` takes after the run, in its order."""

_RAW, _TEXT = b"r", b"t"


@lru_cache(maxsize=65_536)
def run_blob(run: str) -> bytes:
    """A run's id as it is stored: 16 bytes behind `r` for an id that the engine makes, else the text behind `t`."""
    if len(run) == 32:
        try:
            raw = bytes.fromhex(run)
        except ValueError:
            raw = b""
        if raw.hex() == run:
            return _RAW + raw
    return _TEXT + run.encode()


@lru_cache(maxsize=65_536)
def run_id(blob: bytes) -> str:
    return blob[1:].hex() if blob[:1] == _RAW else blob[1:].decode(errors="replace")


def blob_ranges(prefix: str) -> list[tuple[bytes, bytes]]:
    """Ranges [first, last) of the stored ids that begin with `prefix`."""
    text = _TEXT + prefix.encode()
    found = [(text, text + b"\xff")]  # no UTF-8 text has this byte
    if len(prefix) <= 32 and all(one in "0123456789abcdef" for one in prefix):
        first, last = (bytes.fromhex(prefix.ljust(32, digit)) for digit in "0f")
        found.append((_RAW + first, _RAW + last + b"\x00"))
    return found


def node_of(run: bytes, path: str, state: int, flags: int, rev: int, delivery: int, lease_ms: int, body: bytes) -> Node:
    """The node of a row, or its placeholder if it cannot be decoded."""
    try:
        return codec.node_of(run_id(run), path, state, flags, rev, delivery, lease_ms, body)
    except Exception as error:  # bytes that anybody may have written raise anything
        known = codec.STATES[state] if isinstance(state, int) and 0 <= state < len(codec.STATES) else None
        return damaged_node((run_id(run), path), error, known, rev, delivery)


def node_columns(node: Node, task: str, now_ms: int) -> tuple[Any, ...]:
    """state, flags, rev, delivery, lease_ms, body, stage, queue, lane, priority, at_ms, due_at_ms. `queue` holds the
    place: the queue and the task of a leaf that is ready."""
    waits: tuple[Any, ...] = (None, None, None, None, None)
    if node.state == "ready":
        stage = DELAYED if node.at_ms > now_ms else READY
        waits = (stage, place_of(node.queue, task), lane_name(node.limits), level_of(node), node.at_ms)
    due_at_ms = node.due_at_ms
    flags = (codec.KILL if node.kill else 0) | (codec.EXPIRES if due_at_ms is not None else 0)
    return (
        codec.NUMBER[node.state], flags, node.rev, node.delivery, node.lease_ms, codec.body_of(node), *waits,
        None if due_at_ms is None else timer_of(node),
    )  # fmt: skip


def header_of(run: bytes, plan: str | None, header: bytes) -> Header:
    """The header of a row, or its placeholder if it cannot be decoded."""
    try:
        if plan is None:
            raise ValueError("its plan is gone")
        return codec.header_of(run_id(run), header, plan)
    except Exception as error:
        return damaged_header(run_id(run), error)


def record_at(db: sqlite3.Connection, key: Key) -> Record | None:
    """The record with this key."""
    if key[0] == NO_RUN:
        return shared_at(db, key[1])
    found = f"SELECT {NODE} FROM nodes WHERE run = ? AND path = ?"
    row = db.execute(found, (run_blob(key[0]), key[1])).fetchone()
    return None if row is None else node_of(*row)


def shared_at(db: sqlite3.Connection, key: str) -> Shared | None:
    row = db.execute("SELECT rev, body FROM claims WHERE key = ?", (key,)).fetchone()
    if row is None:
        return None
    try:
        return wire.decode_shared(key, row[1])
    except Exception as error:
        return damaged_shared(key, row[0], error)


def letter_of(run: bytes, path: str, queue: str, reason: str, at_ms: int, body: bytes) -> DeadLetter:
    """The dead letter of a row; if it cannot be decoded, what its columns say of it."""
    try:
        return wire.decode_dead_letter(body)
    except Exception as error:
        return damaged_letter((run_id(run), path), error, queue=str(queue), reason=str(reason), at_ms=at_ms)
