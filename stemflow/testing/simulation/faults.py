"""Faults for the simulation: a store behind a bad network, and processes that die at named points."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Sequence
from typing import Any

from stemflow.model.effects import Decision
from stemflow.model.records import Key, Record
from stemflow.store.base import Exchange, Lease, Request, StoreUnavailable, Want

FAULTS = (
    "refused before commit",
    "reply lost after commit",
    "slow store",
    "crash before exchange",
    "crash after exchange",
    "crash in handler",
    "duplicated fact",
    "late fact",
    "lease not renewed",
    "skewed clock",
    "cancelled run",
    "forced cancel",
    "overtaken decision",
    "old read",
    "old record",
    "cooled scope",
)
"""Every fault that a seed may draw; a campaign fails when one of them was never hit."""


class Faults:
    """What one seed has drawn: which faults exist at all, and how often. `on` is False in the liveness phase."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.on = True
        self.hit: Counter[str] = Counter()
        self.rate = {name: rng.choice((0.0, 0.02, 0.1)) for name in FAULTS if name != "cooled scope"}
        self.rate["cooled scope"] = 0.3  # it strikes in worlds that cool down, and these have little else
        self.rate["old read"] *= 5  # an exchange is rarely preceded by a read

    def stop(self) -> None:
        """No fault happens any more."""
        self.on = False

    def strikes(self, name: str) -> bool:
        """Whether fault `name` happens now."""
        happens = self.on and self.rng.random() < self.rate[name]
        if happens:
            self.hit[name] += 1
        return happens


class Crashed(Exception):
    """The process of this worker is dead; nothing that it still does has an effect."""


class FlakyStore:
    """One process's connection to the store. Everything passes through unless a fault strikes."""

    def __init__(self, store: Any, faults: Faults, die: Any, skew_ms: int) -> None:
        self.inner, self.faults, self.die, self.skew_ms = store, faults, die, skew_ms
        self.dead = False
        self.concurrent_exchanges = True  # it may be slow

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def cut_off(self) -> None:
        """The process is dead: nothing that it still asks for is answered."""
        self.dead = True

    def now_ms(self) -> int:
        return int(self.inner.now_ms()) + self.skew_ms

    async def exchange(self, request: Request, decisions: Sequence[Decision], want: Want | None) -> Exchange:
        await self._alive()
        if self.faults.strikes("crash before exchange"):
            await self._crash()
        if self.faults.strikes("slow store"):
            await asyncio.sleep(self.faults.rng.uniform(0.01, 3.0))
            await self._alive()
        if self.faults.strikes("refused before commit"):
            raise StoreUnavailable("simulated: the store did not answer")
        if self.faults.strikes("overtaken decision"):
            self.inner.overtake(decisions)
        answer: Exchange = await self.inner.exchange(request, decisions, want)
        if self.faults.strikes("crash after exchange"):
            await self._crash()
        if self.faults.strikes("reply lost after commit"):
            raise StoreUnavailable("simulated: the reply was lost")
        return answer

    async def read(self, keys: Sequence[Key]) -> list[Record | None]:
        """What is read may be older than what arrives meanwhile: records of one decision may be of different ages."""
        await self._alive()
        found: list[Record | None] = await self.inner.read(keys)
        if self.faults.strikes("old read"):
            await asyncio.sleep(self.faults.rng.uniform(0.01, 1.0))
        return found

    async def take_expired(self, owner: str, limit: int, run: str | None = None) -> list[Lease]:
        await self._alive()
        leases: list[Lease] = await self.inner.take_expired(owner, limit, run)
        return leases

    async def _alive(self) -> None:
        if self.dead:
            await asyncio.get_running_loop().create_future()
        await asyncio.sleep(0)

    async def _crash(self) -> None:
        self.die()
        await self._alive()
