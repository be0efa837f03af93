"""What need not be asked of the file: which of its indexes are empty, as long as nobody else has committed."""

from __future__ import annotations

import sqlite3
from typing import Literal

from stemflow.store.base import Want

Flag = Literal["delayed", "inboxes", "lanes", "timers"]
"""Kinds of entries: delayed tasks, inboxes with posts, rate-limited tasks that are ready, timers."""

_NEXT_PLACE = "SELECT min(queue) FROM nodes INDEXED BY ready WHERE stage = 1 AND queue > ?"


def ready_places(db: sqlite3.Connection) -> set[str]:
    """The places that hold leaves which are ready."""
    found, place = set(), ""
    while (place := db.execute(_NEXT_PLACE, (place,)).fetchone()[0]) is not None:
        found.add(place)
    return found


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
        """Places in which leaves without rate limits may be ready; None: not known."""
        self.plans: dict[str, int] = {}
        """Row ids by digest, and the digests whose plan is stored."""
        self.stored_plans: set[str] = set()
        self.owners: dict[str, int] = {}
        """Row ids by name."""

    def saw(self, what: Flag) -> None:
        """There may be something of this kind."""
        setattr(self, what, True)

    def found_none(self, what: Flag) -> None:
        """There is nothing of this kind."""
        setattr(self, what, False)

    def refresh(self, db: sqlite3.Connection) -> None:
        """To be called at the beginning of each transaction."""
        version: int = db.execute("PRAGMA data_version").fetchone()[0]
        if version != self.version:
            self.forget()
            self.version = version

    def is_empty(self, db: sqlite3.Connection, want: Want) -> bool:
        """Whether nothing waits for a caller that wants this, by one statement where that is known."""
        if self.delayed or self.timers or self.lanes or self.inboxes or self.ready is None:
            return False
        if self.ready and any(map(want.accepts, self.ready)):
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

    def ready_places(self, db: sqlite3.Connection, want: Want) -> list[str]:
        """The wanted places in which leaves without rate limits may be ready."""
        if self.ready is None:
            self.ready = ready_places(db)
        if not self.ready:
            return []
        return [place for place in sorted(self.ready) if want.accepts(place)]

    def became_ready(self, place: str) -> None:
        if self.ready is not None:
            self.ready.add(place)

    def nothing_ready(self, place: str) -> None:
        if self.ready is not None:
            self.ready.discard(place)
