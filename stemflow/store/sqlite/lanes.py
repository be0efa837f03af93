"""The rate limited lanes of SQLite's queues. Everything here runs inside the caller's transaction.

`lanes` has a row for each lane in which something may be ready: `blocked_by` names the limit that it waits for, or is
empty. `limits` has a row for each limit that lanes wait for: it admits nothing until `until_ms`, or is open (NULL).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from functools import lru_cache
from operator import itemgetter
from typing import Any, Final

import msgspec

from stemflow.model.rates import Rate
from stemflow.store.base import Want
from stemflow.store.index_rules import HIGHEST_LEVEL
from stemflow.store.lane_choice import LanesOfRun
from stemflow.store.rate_windows import Lane, Windows, lane_name, lane_of
from stemflow.store.sqlite.knowledge import Knowledge
from stemflow.store.sqlite.rows import NODE, run_blob

OPEN: Final = ""

Row = tuple[Any, ...]
"""(rank, id), then the columns of `rows.NODE`."""

RANK: Final = f"(({HIGHEST_LEVEL} - priority) << 48) + id"
COLUMNS: Final = f"{RANK}, id, {NODE}"
_READY: Final = f"""SELECT {COLUMNS} FROM nodes INDEXED BY ready
    WHERE stage = 1 AND queue = ? AND lane = ? AND (due_at_ms IS NULL OR due_at_ms > ?)
    ORDER BY priority DESC, id LIMIT ?"""
_OF_RUN: Final = f"""SELECT lane, {COLUMNS} FROM nodes
    WHERE run = ? AND stage = 1 AND queue = ? AND lane != '' AND (due_at_ms IS NULL OR due_at_ms > ?)
    ORDER BY priority DESC, id"""
_JOIN: Final = """INSERT INTO lanes (queue, lane, blocked_by, rank) VALUES (?, ?, '', ?)
    ON CONFLICT DO UPDATE SET rank = min(rank, excluded.rank)"""
_BETTER: Final = """UPDATE limits SET rank = min(rank, ?) WHERE queue = ? AND until_ms IS NULL
    AND name = (SELECT blocked_by FROM lanes WHERE queue = ? AND lane = ?)"""
_OPEN_LIMITS: Final = """UPDATE limits SET until_ms = NULL, rank = coalesce((SELECT min(rank) FROM lanes
    WHERE lanes.queue = limits.queue AND lanes.blocked_by = limits.name), 0) WHERE queue = ? AND until_ms <= ?"""
_WAKING: Final = f"""SELECT queue, lane, min({RANK}) FROM nodes INDEXED BY delayed WHERE stage = 2 AND at_ms <= ?
    GROUP BY queue, lane"""


@lru_cache(maxsize=16_384)
def _limit_name(limit: Rate) -> str:
    return msgspec.json.encode(limit).decode()


def rank_of(level: int, row: int) -> int:
    return ((HIGHEST_LEVEL - level) << 48) + row


def join(db: sqlite3.Connection, queue: str, lane: str, rank: int) -> None:
    """Something became ready in a lane, at best of this rank."""
    db.execute(_JOIN, (queue, lane, rank))
    db.execute(_BETTER, (rank, queue, queue, lane))


def wake(db: sqlite3.Connection, known: Knowledge, now_ms: int) -> None:
    """Make delayed leaves of all queues ready whose instant has come."""
    if not known.delayed:
        return
    first = first_delayed_ms(db, known)
    if first is not None and first <= now_ms:
        for queue, lane, rank in db.execute(_WAKING, (now_ms,)).fetchall():
            if lane:
                known.saw("lanes")
                join(db, queue, lane, rank)
            else:
                known.became_ready(queue)
        db.execute("UPDATE nodes INDEXED BY delayed SET stage = 1 WHERE stage = 2 AND at_ms <= ?", (now_ms,))


def first_delayed_ms(db: sqlite3.Connection, known: Knowledge) -> int | None:
    """When the first delayed leaf of all queues may be leased."""
    first: int | None = db.execute("SELECT min(at_ms) FROM nodes INDEXED BY delayed WHERE stage = 2").fetchone()[0]
    known.saw("delayed") if first is not None else known.found_none("delayed")
    return first


def places(db: sqlite3.Connection, known: Knowledge, want: Want) -> Sequence[str]:
    """The wanted places that may have lanes."""
    if not known.lanes:
        return ()
    found = [queue for (queue,) in db.execute("SELECT DISTINCT queue FROM lanes").fetchall()]
    if not found:
        known.found_none("lanes")
    return [place for place in found if want.accepts(place)]


def may_admit(db: sqlite3.Connection, queue: str, now_ms: int) -> bool:
    """Whether a lane of this queue waits for no limit, or for one that is open again."""
    if db.execute("SELECT 1 FROM lanes WHERE queue = ? AND blocked_by = '' LIMIT 1", (queue,)).fetchone():
        return True
    ends = "SELECT 1 FROM limits WHERE queue = ? AND (until_ms IS NULL OR until_ms <= ?) LIMIT 1"
    return db.execute(ends, (queue, now_ms)).fetchone() is not None


def next_at_ms(db: sqlite3.Connection, queue: str) -> int | None:
    """When the first limit of this queue opens."""
    found = db.execute("SELECT min(until_ms) FROM limits WHERE queue = ? AND until_ms IS NOT NULL", (queue,)).fetchone()
    return None if found is None else found[0]


def of_run(db: sqlite3.Connection, queue: str, run: str, now_ms: int) -> LanesOfRun[Row]:
    """The lanes of one run in a queue."""
    lanes: dict[Lane, list[tuple[int, Row]]] = {}
    for lane, *row in db.execute(_OF_RUN, (run_blob(run), queue, now_ms)).fetchall():
        lanes.setdefault(lane_of(lane), []).append((row[0], tuple(row)))
    return LanesOfRun({lane: rows[::-1] for lane, rows in lanes.items()})


class SqliteLanes:
    """As `lane_choice.LaneIndex`, within one exchange. Of a lane the rows that may start are read, and one more."""

    def __init__(self, db: sqlite3.Connection, queue: str, windows: Windows, limit: int, now_ms: int) -> None:
        self._db, self._queue, self._windows, self._limit, self._now_ms = db, queue, windows, limit, now_ms
        self._rows: dict[Lane, list[Row]] = {}
        self._best: tuple[int, Lane] | None = None
        self._is_known = False
        db.execute(_OPEN_LIMITS, (queue, now_ms))

    def first(self) -> tuple[int, Lane] | None:
        if not self._is_known:
            self._best, self._is_known = self._find(), True
        return self._best

    def remove(self, lane: Lane) -> None:
        self._is_known = False
        self._db.execute("DELETE FROM lanes WHERE queue = ? AND lane = ?", (self._queue, lane_name(lane)))

    def put(self, lane: Lane, rank: int, blocked_by: Rate | None) -> None:
        self._is_known = False
        limit = OPEN if blocked_by is None else _limit_name(blocked_by)
        put = "INSERT OR REPLACE INTO lanes (queue, lane, blocked_by, rank) VALUES (?, ?, ?, ?)"
        self._db.execute(put, (self._queue, lane_name(lane), limit, rank))

    def block(self, limit: Rate, until_ms: int) -> None:
        put = "INSERT OR REPLACE INTO limits (queue, name, until_ms, rank) VALUES (?, ?, ?, 0)"
        self._db.execute(put, (self._queue, _limit_name(limit), until_ms))

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
        found = self._best_waiting_for(OPEN)
        while (limit := self._best_limit()) is not None and (found is None or limit[0] < found[0]):
            rank, name = limit
            lane = self._best_waiting_for(name)
            if lane is None:
                self._db.execute("DELETE FROM limits WHERE queue = ? AND name = ?", (self._queue, name))
            elif lane[0] > rank:
                better = "UPDATE limits SET rank = ? WHERE queue = ? AND name = ?"
                self._db.execute(better, (lane[0], self._queue, name))
            else:
                return lane
        return found

    def _best_limit(self) -> tuple[int, str] | None:
        best = "SELECT rank, name FROM limits WHERE queue = ? AND until_ms IS NULL ORDER BY rank LIMIT 1"
        found: tuple[int, str] | None = self._db.execute(best, (self._queue,)).fetchone()
        return found

    def _best_waiting_for(self, limit: str) -> tuple[int, Lane] | None:
        best = "SELECT rank, lane FROM lanes WHERE queue = ? AND blocked_by = ? ORDER BY rank LIMIT 1"
        found = self._db.execute(best, (self._queue, limit)).fetchone()
        return None if found is None else (found[0], lane_of(found[1]))


_age = itemgetter(1)


class Rows:
    """As `lane_choice.Unlimited`: rows that were read, the best last. Those by age are taken before any other."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self._rows = list(rows)
        self._by_age: list[Row] = []
        """The same, the oldest last; empty until it is asked for."""

    def __len__(self) -> int:
        return len(self._rows)

    def first(self) -> int | None:
        return self._rows[-1][0] if self._rows else None

    def take(self) -> Row:
        return self._rows.pop()

    def oldest(self) -> int | None:
        if len(self._by_age) != len(self._rows):
            self._by_age = sorted(self._rows, key=_age, reverse=True)
        return self._by_age[-1][1] if self._by_age else None

    def take_oldest(self) -> Row:
        row = self._by_age.pop()
        self._rows.remove(row)
        return row
