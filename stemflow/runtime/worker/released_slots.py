"""Slots that handlers give back while they wait for runs, so that the runs that they wait for can start.

A handler that waits holds its lease but no slot. When its wait is over it needs a slot again: it goes on as soon as one
is free, before anything new is leased, so that never more than `concurrency` handlers work at the same time.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection
from typing import Final

from stemflow.model.records import Key, task_id

log = logging.getLogger("stemflow.worker")

MOST_WAITING: Final = 1_000
"""At most this many handlers of a worker give their slots back; others keep theirs while they wait."""

Token = tuple[Key, int]
"""A lease: node and fencing token."""


class ReleasedSlots:
    """Which of the `running` leases of a worker have no slot at the moment; at most `concurrency` have one."""

    def __init__(self, concurrency: int, running: Collection[Token], leaked: Collection[object]) -> None:
        self._concurrency, self._running, self._leaked = concurrency, running, leaked
        self._requested = 0
        """Leases that exchanges under way ask for; their slots are not free either."""
        self._waits: dict[Token, int] = {}
        """Handlers without a slot, with the number of their waits that are not over."""
        self._resuming: dict[Token, asyncio.Future[None]] = {}
        """Those among them whose waits are over and that need a slot again, in order."""

    def __contains__(self, token: object) -> bool:
        return token in self._waits

    @property
    def occupied(self) -> int:
        """Slots that are taken by handlers that run, or that were given up and have not returned."""
        return len(self._running) - len(self._waits) + len(self._leaked)

    @property
    def free(self) -> int:
        """Slots for which leases may be asked."""
        return max(0, self._concurrency - self.occupied - len(self._resuming) - self._requested)

    def resize(self, concurrency: int) -> None:
        """Let so many handlers have a slot from now on; those that have one keep it."""
        self._concurrency = concurrency

    @property
    def requested(self) -> int:
        """Leases that exchanges under way ask for."""
        return self._requested

    def request(self, leases: int) -> None:
        """An exchange asks for so many leases."""
        self._requested += leases

    def answered(self, leases: int) -> None:
        """The exchange that asked for so many leases is over."""
        self._requested -= leases

    def release(self, token: Token) -> bool:
        """The handler begins to wait. Returns whether a slot has become free."""
        if token in self._waits:
            self._waits[token] += 1
            return False
        if token not in self._running:
            return False  # it has reported, and a task that it has left behind waits
        if len(self._waits) >= MOST_WAITING:
            log.warning(
                "task %s waits for a run and keeps its slot: %d handlers of this worker wait already; let tasks of a "
                "workflow or canvas wait instead of handlers", task_id(token[0]), MOST_WAITING,
            )  # fmt: skip
            return False
        self._waits[token] = 1
        self.admit()
        return True

    async def retake(self, token: Token) -> None:
        """A wait of the handler is over: return when it has a slot again."""
        if not self._ends_last_wait(token):
            return
        resumed = self._resuming[token] = asyncio.get_running_loop().create_future()
        self.admit()
        try:
            await resumed
        finally:
            self._resuming.pop(token, None)
            self._waits.pop(token, None)

    def retake_now(self, token: Token) -> None:
        """A wait of the handler was cancelled: it has its slot again at once, even if there is none."""
        if self._ends_last_wait(token):
            del self._waits[token]

    def _ends_last_wait(self, token: Token) -> bool:
        waits = self._waits.get(token)
        if waits is None:
            return False
        if waits > 1:
            self._waits[token] = waits - 1
        return waits == 1 and token not in self._resuming

    def forget(self, token: Token) -> None:
        """The lease is no longer running."""
        self._waits.pop(token, None)
        resumed = self._resuming.pop(token, None)
        if resumed is not None and not resumed.done():
            resumed.set_result(None)

    def admit(self) -> None:
        """Let handlers go on whose waits are over, as long as there are slots."""
        for token in list(self._resuming):
            if self.occupied + self._requested >= self._concurrency:
                return
            resumed = self._resuming.pop(token)
            self._waits.pop(token, None)
            if not resumed.done():
                resumed.set_result(None)
