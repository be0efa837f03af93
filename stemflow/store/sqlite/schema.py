"""The tables of an SQLite store, and opening a file that may not be one."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from contextlib import suppress
from typing import Final, Literal, TypeVar

from stemflow.store.base import StoreError, StoreUnavailable
from stemflow.store.codec import NUMBER

T = TypeVar("T")

APPLICATION_ID: Final = 0x73746D66
"""`stmf`: the mark in the file's header that distinguishes a store from other databases."""
VERSION: Final = 8

Synchronous = Literal["normal", "full"]
"""NORMAL: a loss of power may take the last commits. FULL: every commit is on the disk before it is acknowledged."""

PATIENCE_MS: Final = 5_000
"""How long a write waits for the writers of other processes."""

READY, DELAYED = 1, 2
"""Values of `nodes.stage`."""

TABLES: Final = (
    """CREATE TABLE nodes (
        id INTEGER PRIMARY KEY,
        run BLOB NOT NULL,
        path TEXT NOT NULL,
        state INTEGER NOT NULL,
        flags INTEGER NOT NULL,
        rev INTEGER NOT NULL,
        delivery INTEGER NOT NULL,
        lease_ms INTEGER NOT NULL,
        body BLOB NOT NULL,
        stage INTEGER,
        queue TEXT,
        lane TEXT,
        priority INTEGER,
        at_ms INTEGER,
        due_at_ms INTEGER,
        lease_until_ms INTEGER,
        owner INTEGER,
        UNIQUE (run, path)
    )""",
    "CREATE TABLE owners (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE)",
    "CREATE INDEX ready ON nodes (queue, lane, priority DESC, id, run) WHERE stage = 1",
    "CREATE INDEX delayed ON nodes (at_ms, queue) WHERE stage = 2",
    "CREATE INDEX delayed_by_queue ON nodes (queue, at_ms) WHERE stage = 2",
    "CREATE INDEX timers ON nodes (due_at_ms, run, path) WHERE due_at_ms IS NOT NULL",
    "CREATE INDEX leases ON nodes (lease_until_ms, owner) WHERE lease_until_ms IS NOT NULL",
    """CREATE TABLE lanes (
        queue TEXT NOT NULL,
        lane TEXT NOT NULL,
        blocked_by TEXT NOT NULL,
        rank INTEGER NOT NULL,
        PRIMARY KEY (queue, lane)
    ) WITHOUT ROWID""",
    "CREATE INDEX lanes_by_rank ON lanes (queue, blocked_by, rank)",
    """CREATE TABLE limits (
        queue TEXT NOT NULL,
        name TEXT NOT NULL,
        until_ms INTEGER,
        rank INTEGER NOT NULL,
        PRIMARY KEY (queue, name)
    ) WITHOUT ROWID""",
    "CREATE INDEX limits_by_end ON limits (queue, until_ms, rank)",
    """CREATE TABLE claims (
        key TEXT PRIMARY KEY,
        rev INTEGER NOT NULL,
        until_ms INTEGER,
        body BLOB NOT NULL
    ) WITHOUT ROWID""",
    "CREATE INDEX claims_in_use ON claims (key) WHERE until_ms IS NULL",
    "CREATE INDEX claims_by_end ON claims (until_ms) WHERE until_ms IS NOT NULL",
    """CREATE TABLE runs (
        id INTEGER PRIMARY KEY,
        run BLOB NOT NULL UNIQUE,
        plan INTEGER NOT NULL,
        ended INTEGER,
        until_ms INTEGER,
        header BLOB NOT NULL
    )""",
    f"CREATE INDEX failed_runs ON nodes (state) WHERE path = '' AND state = {NUMBER['failed']}",
    f"CREATE INDEX cancelled_runs ON nodes (state) WHERE path = '' AND state = {NUMBER['cancelled']}",
    "CREATE INDEX runs_by_plan ON runs (plan)",
    "CREATE INDEX ended ON runs (ended) WHERE ended IS NOT NULL",
    "CREATE INDEX runs_by_end ON runs (until_ms) WHERE until_ms IS NOT NULL",
    "CREATE TABLE plans (id INTEGER PRIMARY KEY, digest TEXT NOT NULL UNIQUE, body BLOB)",
    "CREATE TABLE fragments (run BLOB NOT NULL, plan INTEGER NOT NULL, PRIMARY KEY (run, plan)) WITHOUT ROWID",
    "CREATE INDEX fragments_by_plan ON fragments (plan)",
    """CREATE TABLE pages (
        run BLOB NOT NULL,
        path TEXT NOT NULL,
        number INTEGER NOT NULL,
        body BLOB NOT NULL,
        PRIMARY KEY (run, path, number)
    )""",
    """CREATE TABLE dead_letters (
        id INTEGER PRIMARY KEY,
        run BLOB NOT NULL,
        path TEXT NOT NULL,
        queue TEXT NOT NULL,
        reason TEXT NOT NULL,
        at_ms INTEGER NOT NULL,
        until_ms INTEGER NOT NULL,
        body BLOB NOT NULL,
        UNIQUE (run, path)
    )""",
    "CREATE INDEX dead_letters_by_age ON dead_letters (at_ms)",
    "CREATE INDEX dead_letters_by_end ON dead_letters (until_ms)",
    """CREATE TABLE hints (
        topic TEXT NOT NULL,
        name TEXT NOT NULL,
        until_ms INTEGER NOT NULL,
        body BLOB NOT NULL,
        PRIMARY KEY (topic, name)
    ) WITHOUT ROWID""",
    "CREATE INDEX hints_by_end ON hints (until_ms)",
    """CREATE TABLE posts (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        run BLOB NOT NULL,
        body BLOB NOT NULL
    )""",
    "CREATE INDEX posts_by_run ON posts (run, id)",
    "CREATE TABLE inboxes (run BLOB PRIMARY KEY, free_at_ms INTEGER NOT NULL) WITHOUT ROWID",
    "CREATE INDEX inboxes_by_time ON inboxes (free_at_ms, run)",
    """CREATE TABLE rate_windows (
        key TEXT PRIMARY KEY,
        past BLOB NOT NULL,
        until_ms INTEGER NOT NULL
    ) WITHOUT ROWID""",
    "CREATE INDEX rate_windows_by_end ON rate_windows (until_ms)",
)
"""`nodes.stage` is READY or DELAYED for a leaf that waits for a worker; `queue` to `at_ms` are NULL for all others."""


def connect(url: str, path: str, busy_ms: int = 0) -> sqlite3.Connection:
    """A connection to an existing or a new file; its settings need no lock. Raises StoreError."""
    try:
        _create(path)
        db = sqlite3.connect(path, timeout=busy_ms / 1_000, isolation_level=None, check_same_thread=False)
    except (OSError, sqlite3.Error) as error:
        raise StoreError(
            f"{url}: cannot open the file ({error}); make its directory writable for this user or choose another path"
        ) from error
    return db


def _create(path: str) -> None:
    """Make the directory and the file where they are missing, for this user alone: results may be confidential.

    An existing file is never opened here: closing it would drop the POSIX locks that SQLite holds on it for every
    connection of this process, and the next process to leave would take the write-ahead log away.
    """
    directory = os.path.dirname(os.path.abspath(path))
    if not os.path.isdir(directory):
        os.makedirs(directory, mode=0o700, exist_ok=True)
    if not os.path.exists(path):
        if os.path.islink(path):
            raise OSError(f"it is a link to {os.readlink(path)}, which does not exist")
        with suppress(FileExistsError):
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))


def prepare(url: str, db: sqlite3.Connection, synchronous: Synchronous) -> None:
    """Check that the file is a store of this version, or make it one; raises StoreError, sqlite3.Error when locked."""
    made = _is_store(url, db)
    if not made:
        # Before the first page is written: later the whole file would have to be rewritten.
        db.execute("PRAGMA auto_vacuum = INCREMENTAL")
    mode = db.execute("PRAGMA journal_mode = WAL").fetchone()[0]
    if mode != "wal":
        raise StoreError(f"{url}: expected a file system on which SQLite can use WAL, got {mode}; use a local disk")
    db.execute(f"PRAGMA synchronous = {synchronous.upper()}")
    db.execute("PRAGMA cache_size = -32768")
    db.execute("PRAGMA wal_autocheckpoint = 4000")
    if made:
        return
    transaction(db, "BEGIN IMMEDIATE", lambda db: _make(url, db))


def _make(url: str, db: sqlite3.Connection) -> None:
    if _is_store(url, db):
        # Another process was faster.
        return
    for statement in TABLES:
        db.execute(statement)
    db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    db.execute(f"PRAGMA user_version = {VERSION}")


def _is_store(url: str, db: sqlite3.Connection) -> bool:
    """True for a store of this version, False for an empty file."""
    mark = db.execute("PRAGMA application_id").fetchone()[0]
    version = db.execute("PRAGMA user_version").fetchone()[0]
    tables = db.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
    if mark == 0 and version == 0 and tables == 0:
        return False
    if mark != APPLICATION_ID:
        raise StoreError(f"{url}: expected a stemflow store, got a database of another program; choose another path")
    if version != VERSION:
        age = "a newer" if version > VERSION else "an older"
        raise StoreError(
            f"{url}: expected a store of version {VERSION}, got version {version}, written by {age} stemflow; "
            "use that version of stemflow, or choose another path"
        )
    return True


def transaction(db: sqlite3.Connection, begin: str, work: Callable[[sqlite3.Connection], T]) -> T:
    """Do `work` between `begin` and COMMIT; whatever it raises takes all of it back."""
    db.execute(begin)
    try:
        answer = work(db)
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise
    return answer


def is_busy(error: sqlite3.Error) -> bool:
    """Whether another connection was in the way, so that trying again may help."""
    code = getattr(error, "sqlite_errorcode", None)
    return code is not None and code & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def identity(path: str) -> tuple[int, int] | None:
    """Which file a path names: device and inode; None where there is none."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def exchanged(url: str, path: str) -> StoreError:
    """The error for a file that is no longer the one that was opened."""
    return StoreError(
        f"{url}: the file {path} was deleted or replaced while it was in use; what this process commits would be lost. "
        "Stop its processes, put the file back together with its -wal file, and start again"
    )


def locked(url: str, path: str) -> StoreUnavailable:
    """The error after waiting in vain for another writer."""
    return StoreUnavailable(
        f"{url}: another process has held the write lock for {PATIENCE_MS // 1_000} s; "
        f"`fuser {path}` names it: let it finish or stop it, then try again"
    )


def refused(url: str, path: str, error: sqlite3.Error) -> StoreError:
    """The error for whatever else SQLite says."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code == sqlite3.SQLITE_NOTADB:
        return StoreError(f"{url}: expected an SQLite database, got another kind of file; choose another path")
    if code == sqlite3.SQLITE_FULL:
        return StoreUnavailable(f"{url}: the disk that holds it is full; free some space, and work goes on")
    if code == sqlite3.SQLITE_IOERR:
        return StoreUnavailable(f"{url}: SQLite said {error}; check the disk and its free space; work goes on then")
    if code == sqlite3.SQLITE_READONLY:
        return StoreError(f"{url}: the file cannot be written; give this user the right to write it and its directory")
    if code == sqlite3.SQLITE_CORRUPT:
        return StoreError(f"{url}: the database is damaged ({error}); restore a copy or `sqlite3 {path} .recover`")
    return StoreError(f"{url}: SQLite said {error}; check the file, its directory and the disk, then start again")
