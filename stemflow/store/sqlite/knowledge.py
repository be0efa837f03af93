"""What need not be asked of the file: which of its indexes are empty, as long as nobody else has committed."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

_NEXT_QUEUE = "SELECT min(queue) FROM nodes INDEXED BY ready WHERE stage = 1 AND queue > ?"


class Knowledge:
    """What a connection knows from its own commits. It holds until `data_version` says that another one committed.

    A flag that is False says that there is nothing of the kind; True says that there may be.
    """

    __slots__ = ("delayed", "inboxes", "lanes", "owners", "plans", "ready", "stored_plans", "timers", "version")

    def __init__(self) -> None:
        self.version: int | None = None
        self.forget()

    def forget(self) -> None:
        """Another connection has committed, or a transaction of this one was rolled back."""
        self.delayed = self.timers = self.lanes = self.inboxes = True
        self.ready: set[str] | None = None
        """Queues in which leaves without rate limits may be ready; None: not known."""
        self.plans: dict[str, int] = {}
        """Row ids by digest, and the digests whose plan is stored."""
        self.stored_plans: set[str] = set()
        self.owners: dict[str, int] = {}
        """Row ids by name."""

    def refresh(self, db: sqlite3.Connection) -> None:
        """To be called at the beginning of each transaction."""
        version: int = db.execute("PRAGMA data_version").fetchone()[0]
        if version != self.version:
            self.forget()
            self.version = version

    def is_empty(self, db: sqlite3.Connection, wanted: Iterable[str] | None) -> bool:
        """Whether nothing waits for a caller that wants these queues, by one statement where that is known."""
        if self.delayed or self.timers or self.lanes or self.inboxes or self.ready is None:
            return False
        if self.ready and (wanted is None or not self.ready.isdisjoint(wanted)):
            return False
        return bool(db.execute("PRAGMA data_version").fetchone()[0] == self.version)

    def owner(self, db: sqlite3.Connection, name: str) -> int:
        """The row id of an owner of leases."""
        found = self.owners.get(name)
        if found is None:
            db.execute("INSERT OR IGNORE INTO owners (name) VALUES (?)", (name,))
            row = db.execute("SELECT id FROM owners WHERE name = ?", (name,)).fetchone()
            found = self.owners[name] = int(row[0])
        return found

    def ready_queues(self, db: sqlite3.Connection, wanted: Iterable[str] | None) -> list[str]:
        """The queues among `wanted` (None: all) in which leaves without rate limits may be ready."""
        if self.ready is None:
            self.ready, after = set(), ""
            while (name := db.execute(_NEXT_QUEUE, (after,)).fetchone()[0]) is not None:
                self.ready.add(name)
                after = name
        if not self.ready:
            return []
        return sorted(self.ready) if wanted is None else [queue for queue in wanted if queue in self.ready]

    def became_ready(self, queue: str) -> None:
        if self.ready is not None:
            self.ready.add(queue)

    def nothing_ready(self, queue: str) -> None:
        if self.ready is not None:
            self.ready.discard(queue)
