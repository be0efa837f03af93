"""The limited lanes of SQLite's queues, and where they stand. Everything here runs inside the caller's transaction.

`lanes` has a row for each lane in which something may be ready: `behind` names the limit behind which it stands, or
nothing. `gates` has a row for each limit behind which lanes stand; it is shut until `until_ms`, or open (NULL).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from functools import lru_cache
from typing import Final

import msgspec

from stemflow.model.rates import Rate
from stemflow.store.lane_choice import Passing
from stemflow.store.rate_windows import Lane, Windows

OPEN: Final = ""

Row = tuple[int, int, int, bytes]
"""(rank, id, delivery, body)"""

RANK: Final = "((9 - priority) << 48) + id"
_READY: Final = f"""SELECT {RANK}, id, delivery, body FROM nodes INDEXED BY ready
    WHERE place = 'ready' AND queue = ? AND lane = ? AND (due_at_ms IS NULL OR due_at_ms > ?)
    ORDER BY priority DESC, id LIMIT ?"""
_OF_RUN: Final = f"""SELECT lane, {RANK}, id, delivery, body FROM nodes
    WHERE run = ? AND place = 'ready' AND queue = ? AND lane != '' AND (due_at_ms IS NULL OR due_at_ms > ?)
    ORDER BY priority DESC, id"""
_JOIN: Final = """INSERT INTO lanes (queue, lane, behind, rank) VALUES (?, ?, '', ?)
    ON CONFLICT DO UPDATE SET rank = min(rank, excluded.rank)"""
_BETTER: Final = """UPDATE gates SET rank = min(rank, ?) WHERE queue = ? AND until_ms IS NULL
    AND behind = (SELECT behind FROM lanes WHERE queue = ? AND lane = ?)"""
_UNSHUT: Final = """UPDATE gates SET until_ms = NULL, rank = coalesce((SELECT min(rank) FROM lanes
    WHERE lanes.queue = gates.queue AND lanes.behind = gates.behind), 0) WHERE queue = ? AND until_ms <= ?"""
_WAKING: Final = f"""SELECT lane, min({RANK}) FROM nodes WHERE place = 'delayed' AND queue = ? AND at_ms <= ?
    AND lane != '' GROUP BY lane"""


@lru_cache(maxsize=16_384)
def lane_name(limits: Lane) -> str:
    """The name of a lane in the index of ready leaves; leaves without limits stand in the lane of no name."""
    return msgspec.json.encode(limits).decode() if limits else ""


@lru_cache(maxsize=16_384)
def lane_of(name: str) -> Lane:
    return msgspec.json.decode(name, type=tuple[Rate, ...]) if name else ()


@lru_cache(maxsize=16_384)
def _gate_name(limit: Rate) -> str:
    return msgspec.json.encode(limit).decode()


def rank_of(priority: int, row: int) -> int:
    return ((9 - priority) << 48) + row


def join(db: sqlite3.Connection, queue: str, lane: str, rank: int) -> None:
    """Something became ready in a lane, at best of this rank."""
    db.execute(_JOIN, (queue, lane, rank))
    db.execute(_BETTER, (rank, queue, queue, lane))


def wake(db: sqlite3.Connection, queue: str, now_ms: int) -> None:
    """What was delayed and is due is ready."""
    for lane, rank in db.execute(_WAKING, (queue, now_ms)).fetchall():
        join(db, queue, lane, rank)
    db.execute("UPDATE nodes SET place = 'ready' WHERE place = 'delayed' AND queue = ? AND at_ms <= ?", (queue, now_ms))


def has_turn(db: sqlite3.Connection, queue: str, now_ms: int) -> bool:
    """Whether a lane is open, or behind a limit that is no longer shut."""
    if db.execute("SELECT 1 FROM lanes WHERE queue = ? AND behind = '' LIMIT 1", (queue,)).fetchone():
        return True
    ends = "SELECT 1 FROM gates WHERE queue = ? AND (until_ms IS NULL OR until_ms <= ?) LIMIT 1"
    return db.execute(ends, (queue, now_ms)).fetchone() is not None


def next_at_ms(db: sqlite3.Connection, queue: str) -> int | None:
    """When the first limit that is shut opens."""
    found = db.execute("SELECT min(until_ms) FROM gates WHERE queue = ? AND until_ms IS NOT NULL", (queue,)).fetchone()
    return None if found is None else found[0]


def of_run(db: sqlite3.Connection, queue: str, run: str, now_ms: int) -> Passing[Row]:
    """The lanes of one run in a queue."""
    lanes: dict[Lane, list[tuple[int, Row]]] = {}
    for lane, *row in db.execute(_OF_RUN, (run, queue, now_ms)).fetchall():
        lanes.setdefault(lane_of(lane), []).append((row[0], tuple(row)))
    return Passing({lane: rows[::-1] for lane, rows in lanes.items()})


class SqliteShelf:
    """As `turns.Shelf`, within one exchange. Of a lane the rows that may start are read, and the one after them."""

    def __init__(self, db: sqlite3.Connection, queue: str, windows: Windows, limit: int, now_ms: int) -> None:
        self._db, self._queue, self._windows, self._limit, self._now_ms = db, queue, windows, limit, now_ms
        self._rows: dict[Lane, list[Row]] = {}
        self._best: tuple[int, Lane] | None = None
        self._known = False
        db.execute(_UNSHUT, (queue, now_ms))

    def first(self) -> tuple[int, Lane] | None:
        if not self._known:
            self._best, self._known = self._find(), True
        return self._best

    def leave(self, lane: Lane) -> None:
        self._known = False
        self._db.execute("DELETE FROM lanes WHERE queue = ? AND lane = ?", (self._queue, lane_name(lane)))

    def stand(self, lane: Lane, rank: int, behind: Rate | None) -> None:
        self._known = False
        gate = OPEN if behind is None else _gate_name(behind)
        put = "INSERT OR REPLACE INTO lanes (queue, lane, behind, rank) VALUES (?, ?, ?, ?)"
        self._db.execute(put, (self._queue, lane_name(lane), gate, rank))

    def shut(self, limit: Rate, until_ms: int) -> None:
        put = "INSERT OR REPLACE INTO gates (queue, behind, until_ms, rank) VALUES (?, ?, ?, 0)"
        self._db.execute(put, (self._queue, _gate_name(limit), until_ms))

    def head(self, lane: Lane) -> int | None:
        rows = self._rows.get(lane)
        if rows is None:
            most = min(self._limit, self._windows.room(lane)) + 1
            found = self._db.execute(_READY, (self._queue, lane_name(lane), self._now_ms, most)).fetchall()
            rows = self._rows[lane] = found[::-1]
        return rows[-1][0] if rows else None

    def take(self, lane: Lane) -> Row:
        return self._rows[lane].pop()

    def _find(self) -> tuple[int, Lane] | None:
        found = self._best_behind(OPEN)
        while (gate := self._best_gate()) is not None and (found is None or gate[0] < found[0]):
            name = gate[1]
            behind = self._best_behind(name)
            if behind is None:
                self._db.execute("DELETE FROM gates WHERE queue = ? AND behind = ?", (self._queue, name))
            elif behind[0] > gate[0]:
                better = "UPDATE gates SET rank = ? WHERE queue = ? AND behind = ?"
                self._db.execute(better, (behind[0], self._queue, name))
            else:
                return behind
        return found

    def _best_gate(self) -> tuple[int, str] | None:
        best = "SELECT rank, behind FROM gates WHERE queue = ? AND until_ms IS NULL ORDER BY rank LIMIT 1"
        found: tuple[int, str] | None = self._db.execute(best, (self._queue,)).fetchone()
        return found

    def _best_behind(self, gate: str) -> tuple[int, Lane] | None:
        best = "SELECT rank, lane FROM lanes WHERE queue = ? AND behind = ? ORDER BY rank LIMIT 1"
        found = self._db.execute(best, (self._queue, gate)).fetchone()
        return None if found is None else (found[0], lane_of(found[1]))


class Rows:
    """As `turns.Plain`: rows that were read, the best last."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self._rows = list(rows)

    def first(self) -> int | None:
        return self._rows[-1][0] if self._rows else None

    def take(self) -> Row:
        return self._rows.pop()
