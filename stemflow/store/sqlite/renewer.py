"""Renewing leases in SQLite from a thread."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Sequence

from stemflow.model.records import Key
from stemflow.store.base import Renewed
from stemflow.store.sqlite import lease as sqlite_lease
from stemflow.store.sqlite.schema import connect, is_busy, locked, refused, transaction

_BUSY_MS = 2_000


class SqliteRenewer:
    """Renews over a connection of its own, opened at the first renewal; any thread may call it."""

    def __init__(self, url: str, path: str, now_ms: Callable[[], int]) -> None:
        self._url, self._path, self._now_ms = url, path, now_ms
        self._connection: sqlite3.Connection | None = None
        self._lock = threading.Lock()

    def renew(self, held: Sequence[tuple[Key, int, int]]) -> Renewed:
        with self._lock:
            if self._connection is None:
                self._connection = connect(self._url, self._path, busy_ms=_BUSY_MS)
                self._connection.execute("PRAGMA synchronous = NORMAL")
            try:
                return transaction(
                    self._connection,
                    "BEGIN IMMEDIATE",
                    lambda db: sqlite_lease.renew(db, held, self._now_ms()),
                )
            except sqlite3.Error as error:
                if is_busy(error):
                    raise locked(self._url, self._path) from error
                raise refused(self._url, self._path, error) from error

    def close(self) -> None:
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None
