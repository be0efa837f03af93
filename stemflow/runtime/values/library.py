"""Plans and headers of runs: they never change, so a process reads and verifies each once and keeps it."""

from __future__ import annotations

import asyncio

from stemflow.compile.freeze import named
from stemflow.core.shape import Shape
from stemflow.model.plan import Plan
from stemflow.model.records import Header
from stemflow.runtime.payloads.encoders import TaskPayloadEncoderRegistry
from stemflow.runtime.payloads.signing import SignatureInvalid, Trust
from stemflow.runtime.values.caches import FinishedNodes, RecentlyUsed
from stemflow.runtime.values.map_items import MapItems
from stemflow.runtime.values.value_codec import ValueCodec
from stemflow.store.base import Store
from stemflow.store.damaged import DamagedHeader, RecordsDamaged

HEADERS = 10_000
"""Headers kept: more than one process works on at once. Those of runs that other processes end are not removed."""
PLANS = 2_048
"""Plans kept; a program that composes a new canvas for each run has one plan for each."""


class Library:
    """Where a process looks up plans and headers, with what reads the values that they lead to.

    `store`: read on a miss. `encoders`: decode stored values; the default knows JSON and gzip. `trust`: verifies what
    is read; the default trusts everything. `codec`, `items` and `finished` serve values, items of maps and ended nodes.
    """

    def __init__(
        self, store: Store, encoders: TaskPayloadEncoderRegistry | None = None, trust: Trust | None = None
    ) -> None:
        self.store = store
        self.trust = trust or Trust()
        self.encoders = encoders or TaskPayloadEncoderRegistry()
        self.shapes: RecentlyUsed[str, Shape] = RecentlyUsed(PLANS)
        self.headers: RecentlyUsed[str, Header] = RecentlyUsed(HEADERS, evict=HEADERS // 4)
        self.codec = ValueCodec(self.encoders, self.origin_of, self.trust.keys is not None)
        self.items = MapItems(store, self.codec, self.trust)
        self.finished = FinishedNodes(enabled=self.trust.keys is None)
        self._reading: dict[str, asyncio.Lock] = {}

    async def shape(self, digest: str) -> Shape:
        """The plan with this digest, as a Shape. Raises RecordsDamaged if the store lacks it, SignatureInvalid."""
        found = self.shapes.get(digest)
        if found is None:
            # A hundred members of a wide plan start together: one reads it, the others wait for that.
            async with self._reading.setdefault(digest, asyncio.Lock()):
                found = self.shapes.get(digest) or await self._read_shape(digest)
            self._reading.pop(digest, None)
        return found

    async def header(self, run: str) -> Header:
        """The header of a run. Raises RecordsDamaged if the store lacks it, SignatureInvalid,
        UnknownKey."""
        found = self.headers.get(run)
        if found is None:
            async with self._reading.setdefault(run, asyncio.Lock()):
                found = self.headers.get(run) or await self._read_header(run)
            self._reading.pop(run, None)
        return found

    async def origin_of(self, run: str) -> str:
        """The run under whose id the values of `run` are encoded: itself, or the run that it repeats."""
        return (await self.header(run)).origin or run

    def learn(self, plan: Plan) -> Shape:
        """Keep a plan that need not be in the store yet, and return its shape."""
        found = self.shapes.get(plan.digest) or Shape(plan)
        self.shapes.use(plan.digest, found)
        return found

    def remember(self, header: Header) -> None:
        """Keep a header that need not be in the store yet."""
        self.headers.use(header.run, header)

    def forget(self, run: str) -> None:
        """Drop what is kept of a run whose id another run has taken."""
        self.headers.pop(run, None)
        self.finished.drop_run(run)

    async def _read_shape(self, digest: str) -> Shape:
        plan = await self.store.plan(digest)
        if plan is None:
            raise RecordsDamaged("", f"plan {digest}: expected one that can be read in {self.store.url}, found none")
        if self.trust.keys is not None and named(plan).digest != digest:
            raise SignatureInvalid(f"plan {digest}", "it is not what its digest names")
        return self.learn(plan)

    async def _read_header(self, run: str) -> Header:
        found = await self.store.header(run)
        if found is None:
            raise RecordsDamaged(run, f"expected its header in {self.store.url}, found none")
        if isinstance(found, DamagedHeader):
            raise RecordsDamaged(run, found.why)
        self.trust.verify(found)
        self.remember(found)
        return found
