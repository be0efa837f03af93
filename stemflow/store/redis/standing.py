"""Which data the server has: whether it is still what this process was told of."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from stemflow.store.base import StateLost, StoreError
from stemflow.store.redis.blob import pack
from stemflow.store.redis.scripts import script
from stemflow.store.redis.server import parsed, version_of

log = logging.getLogger("stemflow.store")


class Ask(Protocol):
    """Sends one command and gives its answer."""

    def __call__(self, *command: Any) -> Awaitable[Any]: ...


class Stranger:
    """In the place of a `Standing` for who only looks: it makes no partition and rests on nothing."""

    def __init__(self, prefix: bytes) -> None:
        self.prefix = prefix
        self.version = (0, 0)

    async def greet(self, ask: Ask) -> int:
        self.version = version_of(parsed(bytes(await ask(b"INFO", b"server"))))
        return 0

    def holds(self, epoch: int) -> bool:
        return True

    def loss(self) -> StateLost:
        raise NotImplementedError


class Losses:
    """How often this process has found that acknowledged data is gone; `told` is called each time."""

    def __init__(self, told: Callable[[], None]) -> None:
        self.count, self.text = 0, ""
        self._told = told

    def add(self, text: str) -> None:
        self.count, self.text = self.count + 1, text
        log.critical("%s", text)
        self._told()


class Standing:
    """The data of one partition, by its id, and how far this process has seen it.

    Every exchange that changes something moves the position on by one; answers to reads tell it, too. `made`: begins
    the ids under which this process makes the partition, which is one of `parts`.
    """

    def __init__(
        self, shown: str, prefix: bytes, made: str, parts: int, given: Callable[[], int], losses: Losses
    ) -> None:
        self.version = (0, 0)
        self.name = b""
        """The id of the partition."""
        self._shown, self.prefix, self._made, self._given = shown, prefix, made, given
        self._parts, self._losses = parts, losses
        self._looks = 0
        self._boot = ""
        self._position = 0

    async def greet(self, ask: Ask) -> int:
        """Ask a server that may have started anew; answers its time, or 0 where it is known to be the same one."""
        boot = await self._boot_of(ask)
        return 0 if boot == self._boot else await self._look(ask, boot)

    async def look(self, ask: Ask) -> int:
        """Ask again, since the data may not be what it was; answers the server's time."""
        return await self._look(ask, await self._boot_of(ask))

    async def _boot_of(self, ask: Ask) -> str:
        about = parsed(bytes(await ask(b"INFO", b"server")))
        self.version = version_of(about)
        return about.get("run_id", "")[:16]

    async def _look(self, ask: Ask, boot: str) -> int:
        found = script("open", self.version)
        self._looks += 1
        request = pack((self._given(), f"{self._made}.{self._looks}", boot, self._boot or False, self._parts))
        before = self.name, self._boot
        now_ms, name, position, least, parts = await ask(b"EVAL", found.text, b"1", self.prefix, request)
        if parts != self._parts:
            raise StoreError(
                f"{self._shown}: expected ?partitions={parts}, with which this store was made, got {self._parts}; give "
                "the same number everywhere, or another ?prefix for a store of its own"
            )
        if before != (self.name, self._boot):
            # Another connection was quicker, and the answer is about what was known before.
            return int(now_ms) if (self.name, self._boot) == (name, boot) else await self._look(ask, boot)
        known, self.name, self._boot = self.name, name, boot
        if known and known != name:
            self._lose("it was emptied, or started without its data", position)
        elif known and least < self._position:
            self._lose("it went back to an earlier state", position)
        else:
            self._position = max(self._position, position)
        return int(now_ms)

    @property
    def epoch(self) -> int:
        return self._losses.count

    def seen(self, position: int) -> None:
        """Something was read, or answered, that stands at this position."""
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
