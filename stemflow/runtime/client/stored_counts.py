"""Counts in the store: each process stores its own, and their sum is exact whatever dies.

Theory of operation. A process stores its counts since it began, as a hint under an id of its own, so storing them twice
changes nothing. The hints of processes that have stored nothing for FOLD_MS are added to a base, which names them;
a reader adds the base and the hints that it does not name. Two processes may write the base at once: the one that
is overwritten has lost nothing, since the hints outlive it and are still not named. A process that has stored nothing
for half that time goes on under a new id, from zero.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from typing import Final

from msgspec import Struct, msgpack

from stemflow.model.metrics import Counts
from stemflow.runtime.commit.counting import Counting
from stemflow.store.base import Store, StoreError
from stemflow.store.damaged import decoded_hints

log = logging.getLogger("stemflow.counts")

TOPIC: Final = "counts"
BASE: Final = "base"
FOLD_MS: Final = 3_600_000
KEPT_MS: Final = 7 * 86_400_000
"""How long the counts of a process are kept; they are added to the base long before."""
BASE_KEPT_MS: Final = 400 * 86_400_000
ROTATE_MS: Final = FOLD_MS // 2
PUBLISH_S: Final = 5.0
"""How often a process stores what it has counted."""
FOLD_EVERY: Final = 120
"""A worker looks for processes that have gone once in so many times."""


class _Stored(Struct, array_like=True):
    """The counts of one process, or of the base. `folded`: in the base, what it includes, with the instant from which
    the hint of that name is certainly gone."""

    at_ms: int
    counts: Counts
    folded: dict[str, int] = {}


_decoder = msgpack.Decoder(_Stored).decode


class StoredCounts:
    """The counts of this process in a store, under `id`."""

    def __init__(self, store: Store, counting: Counting, id: str) -> None:
        self._store, self._counting, self._id = store, counting, id
        self._number = 0
        self._version = 0
        self._at_ms: int | None = None
        self._stored = Counts({}, {})
        self._kept = False
        self._soon: asyncio.Task[None] | None = None

    async def keep(self) -> None:
        """Store the counts every PUBLISH_S seconds, and now and then those of processes that have gone."""
        self._kept = True
        looks = 0
        while True:
            await asyncio.sleep(PUBLISH_S)
            looks += 1
            try:
                await self.publish()
                if looks % FOLD_EVERY == 1:
                    await fold_counts(self._store)
            except StoreError as error:
                log.warning("%s; what was counted is stored in %.0f s", error, PUBLISH_S)

    def soon(self) -> None:
        """Something was counted: store it in PUBLISH_S seconds, where no worker does."""
        if not self._kept and (self._soon is None or self._soon.done()):
            self._soon = asyncio.get_running_loop().create_task(self._later(), name="counts")

    async def _later(self) -> None:
        await asyncio.sleep(PUBLISH_S)
        with suppress(StoreError):
            await self.publish()

    async def finish(self) -> None:
        """Store the last counts; the process ends. A store that does not answer loses them."""
        if self._soon is not None:
            self._soon.cancel()
        try:
            await self.publish()
        except StoreError as error:
            log.warning("%s; the last counts of this process are lost", error)

    async def publish(self) -> None:
        """Store the counts if they have changed since. Raises StoreError."""
        now_ms, version = self._store.now_ms(), self._counting.version
        if version == self._version:
            return
        if self._at_ms is not None and now_ms - self._at_ms > ROTATE_MS:
            self._number += 1
            self._counting.counts.include(self._stored, -1)
        counts = msgpack.decode(msgpack.encode(self._counting.counts), type=Counts)
        body = msgpack.encode(_Stored(now_ms, counts))
        await self._store.put_hint(TOPIC, f"{self._id}/{self._number}", body, KEPT_MS)
        self._version, self._at_ms, self._stored = version, now_ms, counts


async def total_counts(store: Store) -> Counts:
    """The sum over all processes that there were, as far as they have stored it. Raises StoreError."""
    base, others = await _read(store)
    total = Counts({}, {})
    total.include(base.counts)
    for name, one in others.items():
        if name not in base.folded:
            total.include(one.counts)
    return total


async def fold_counts(store: Store) -> None:
    """Add the counts of processes that have gone to the base. Raises StoreError."""
    base, others = await _read(store)
    now_ms = store.now_ms()
    gone = {name: one for name, one in others.items() if name not in base.folded and one.at_ms <= now_ms - FOLD_MS}
    if not gone:
        return
    for name, one in gone.items():
        base.counts.include(one.counts)
        base.folded[name] = one.at_ms + 2 * KEPT_MS
    base.folded = {name: until_ms for name, until_ms in base.folded.items() if until_ms > now_ms}
    await store.put_hint(TOPIC, BASE, msgpack.encode(_Stored(now_ms, base.counts, base.folded)), BASE_KEPT_MS)


async def _read(store: Store) -> tuple[_Stored, dict[str, _Stored]]:
    found = decoded_hints("the counts of", _decoder, await store.hints(TOPIC))
    return found.pop(BASE, None) or _Stored(0, Counts({}, {}), {}), found
