"""The store in an SQLite file for programs in virtual time, where polling would be most of the work."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from typing import ClassVar, Final, TypeVar
from weakref import WeakSet

from stemflow.ports import Clock
from stemflow.store.open import sqlite_location
from stemflow.store.sqlite.store import CHANGED_POLLS, POLL_S, SqliteStore

T = TypeVar("T")

UNPROMPTED_POLL_S: Final = 1.0
"""Seconds between two polls while no store of this process commits to the file."""


class VirtualSqlite(SqliteStore):
    """Polls POLL_S after each commit that another VirtualSqlite of this process makes to the file, and rarely else.

    So an hour of virtual time is not 300,000 polls that find nothing, and a commit is noticed as soon as by polling.
    """

    _opened: ClassVar[WeakSet[VirtualSqlite]] = WeakSet()

    def __init__(self, url: str, clock: Clock) -> None:
        location = sqlite_location(url)
        assert location is not None, url
        super().__init__(url, location.path, clock, location.synchronous)
        self._prompted = False

    async def open(self) -> None:
        await super().open()
        self._opened.add(self)

    async def close(self) -> None:
        await super().close()
        if self._connection is None:
            self._opened.discard(self)

    async def _write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        result = await super()._write(work)
        for other in self._opened:
            if other is not self and other._path == self._path:
                other._prompt()
        return result

    def _prompt(self) -> None:
        """Poll soon: another store has committed."""
        self._log_polls, prompted = CHANGED_POLLS, self._prompted
        self._prompted = True
        if self._poll is not None and not prompted:
            self._poll.cancel()
            self._poll = None
            self._arm()

    def _arm(self) -> None:
        if self._poll is None and self._connection is not None:
            delay_s = POLL_S if self._prompted else UNPROMPTED_POLL_S
            self._poll = asyncio.get_running_loop().call_later(delay_s, self._poll_once)

    def _poll_once(self) -> None:
        self._prompted = False
        super()._poll_once()
