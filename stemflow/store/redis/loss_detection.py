"""Detection of lost data: whether the server still has what it acknowledged to this process."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from stemflow.store.base import StateLost, StoreError
from stemflow.store.redis.layout import FORMAT
from stemflow.store.redis.requests import pack
from stemflow.store.redis.scripts import script
from stemflow.store.redis.server import parsed, version_of

log = logging.getLogger("stemflow.store")


class Ask(Protocol):
    """Sends one command and gives its answer."""

    def __call__(self, *command: Any) -> Awaitable[Any]: ...


class PassiveObserver:
    """Replaces a `LossDetector` for a client that only reads: it creates no partition and detects no loss."""

    def __init__(self, prefix: bytes) -> None:
        self.prefix = prefix
        self.version = (0, 0)

    async def identify(self, ask: Ask) -> None:
        self.version = version_of(parsed(bytes(await ask(b"INFO", b"server"))))

    def holds(self, epoch: int) -> bool:
        return True

    def loss(self) -> StateLost:
        raise NotImplementedError


class LossLog:
    """Counts the losses of acknowledged data that this process has detected; calls `on_loss` each time."""

    def __init__(self, on_loss: Callable[[], None]) -> None:
        self.count, self.text = 0, ""
        self._on_loss = on_loss

    def add(self, text: str) -> None:
        self.count, self.text = self.count + 1, text
        log.critical("%s", text)
        self._on_loss()


class LossDetector:
    """The data of one partition, by its id, and how far this process has seen it.

    Every exchange that changes something moves the position on by one; answers to reads have it, too. Both have the
    number of the last boot that was noted in the data: a connection survives a server that gives its place away and
    gets it back, so an answer may come from a later boot than this process knows of.

    made: begins the ids under which this process makes the partition.
    parts: the number of partitions of the store.
    """

    def __init__(
        self, shown: str, prefix: bytes, made: str, parts: int, given: Callable[[], int], losses: LossLog
    ) -> None:
        self.version = (0, 0)
        self.name = b""
        """The id of the partition."""
        self._shown, self.prefix, self._made, self._given = shown, prefix, made, given
        self._parts, self._losses = parts, losses
        self.now_ms = 0
        """The server's time at the last look."""
        self._looks = 0
        self._boot, self._number = "", 0
        """`_boot` identifies the last known start of the server; `_number` counts starts in the life of the data."""
        self._position, self._least = 0, 0
        """The highest position that this process has seen, and the lowest at which a boot began that it did not see."""

    async def identify(self, ask: Ask) -> None:
        """Ask over a new connection: the server may not be the one before, or have other data."""
        about = parsed(bytes(await ask(b"INFO", b"server")))
        self.version = version_of(about)
        await self._look(ask, about.get("run_id", "")[:16])

    async def _look(self, ask: Ask, boot: str) -> None:
        found = script("open", self.version)
        self._looks += 1
        made = f"{self._made}.{self._looks}"
        request = pack((self._given(), made, boot, self._boot or False, self._parts, self._number))
        before, seen = (self.name, self._boot, self._number), self._position
        answer = await ask(b"EVAL", found.text, b"1", self.prefix, request)
        now_ms, name, position, least, parts, number, layout = answer
        self.now_ms = int(now_ms)
        if layout != FORMAT:
            age = "a newer" if layout > FORMAT else "an older"
            raise StoreError(
                f"{self._shown}: expected data in format {FORMAT}, got format {layout}, written by {age} stemflow; use "
                "that version of stemflow, or another ?prefix for a store of its own"
            )
        if parts != self._parts:
            raise StoreError(
                f"{self._shown}: expected ?partitions={parts}, with which this store was made, got {self._parts}; give "
                "the same number everywhere, or another ?prefix for a store of its own"
            )
        if before != (self.name, self._boot, self._number):
            # Another connection was identified first; this answer refers to what was known before.
            if (self.name, self._boot, self._number) != (name, boot, number):
                await self._look(ask, boot)
            return
        if number != self._number:
            self._least = max(least, 0)
        known, self.name, self._boot, self._number = self.name, name, boot, number
        if known and known != name:
            self._lose("it was emptied, or started without its data", position)
        elif known and least < seen:
            # Other connections may have seen positions beyond the answer since the request was sent.
            self._lose("it went back to an earlier state", position)
        else:
            self._position = max(self._position, position)

    @property
    def epoch(self) -> int:
        return self._losses.count

    def missed(self, boot: int) -> bool:
        """Whether this boot is unknown to the process: `identify` must come before `seen`."""
        return boot > self._number

    def seen(self, boot: int, position: int) -> None:
        """Something was read or committed in this boot, and the data was at this position then."""
        if boot < self._number and position > self._least:
            self._lose("it went back to an earlier state", self._position)
        else:
            self._position = max(self._position, position)

    def holds(self, epoch: int) -> bool:
        """Whether what was read in this epoch is still true."""
        return epoch == self.epoch

    def _lose(self, how: str, position: int) -> None:
        self._position = position
        self._losses.add(
            f"{self._shown}: the server has lost data that it had acknowledged: {how}. What this process knew is void, "
            "and it goes on with what is there; `appendonly yes` keeps data over a restart, with "
            "`appendfsync always` all of it"
        )

    def loss(self) -> StateLost:
        """The error for a caller whose request rests on what is lost."""
        return StateLost(self._losses.text)
