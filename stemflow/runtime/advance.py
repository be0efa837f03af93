"""Advancing runs: read what `decide` needs, evaluate its gates, remember what was committed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from stemflow.core.decide import decide
from stemflow.core.shape import Shape
from stemflow.core.work import View
from stemflow.model.effects import Decision, Frozen, GateKey, Need
from stemflow.model.facts import Ended, Fact, Ok, Replaced
from stemflow.model.plan import Plan
from stemflow.model.records import HOUSE, RUNNING, STOPPING, Key, Node, Record
from stemflow.runtime.bind import Binder, gate
from stemflow.runtime.values import Library, Values
from stemflow.store.base import Lease, Store

CACHED = 50_000
"""Records kept from commit to commit; more than this and the cache is emptied, which costs only reads."""


REREADS = 3
"""How often a decision over records that do not fit together is made again before that counts as a bug."""


class Advance:
    """One a process. The cache holds what open runs need again: their scopes, and leaves that are leased here."""

    def __init__(self, store: Store, library: Library) -> None:
        self.store = store
        self.library = library
        self.records: dict[Key, Record | None] = {}
        self.binders: dict[str, Binder] = {}

    async def decide(self, facts: Sequence[Fact]) -> Decision:
        """Ask the machine until it needs nothing more.

        Cached records may be older than others that it reads, and together impossible; then all are read anew.
        """
        for plan in _brought(facts):
            self.library.shapes.setdefault(plan.digest, Shape(plan))  # gates in it are asked before it is stored
        for _ in range(REREADS):
            try:
                return await self._decide(facts)
            except AssertionError:
                self._forget({fact.key[0] for fact in facts})
        return await self._decide(facts)

    async def _decide(self, facts: Sequence[Fact]) -> Decision:
        gates: dict[GateKey, Any] = {}
        fresh: list[Key] = []
        while True:
            view = View(self.records, self.library.headers, self.library.shapes, gates)
            answer = decide(view, facts, self.store.now_ms())
            if isinstance(answer, Decision):
                self._drop_absent(fresh)
                return answer
            await self._meet(answer, gates, fresh)

    async def _meet(self, need: Need, gates: dict[GateKey, Any], fresh: list[Key]) -> None:
        if need.keys:
            fresh.extend(need.keys)
            self.records.update(zip(need.keys, await self.store.read(need.keys), strict=True))
        for run in need.headers:
            await self.library.header(run)
        for digest in need.plans:
            await self.library.shape(digest)
        for key in need.gates:
            gates[key] = await self._gate(need, key)

    async def _gate(self, need: Need, key: GateKey) -> Any:
        node = need.working.get(key[:2]) or self.records.get(key[:2])
        assert isinstance(node, Node)
        shape = await self.library.shape(node.plan)
        values = Values(self.library, need.working, self.records)
        answer = await gate(values, key, await self.binder(node.plan), node, shape.nodes[node.node])
        if isinstance(answer, Frozen):
            self.library.staged[key[:2]] = answer.pages
        return answer

    async def binder(self, digest: str) -> Binder:
        found = self.binders.get(digest)
        if found is None:
            found = self.binders[digest] = Binder(await self.library.shape(digest))
        return found

    def _drop_absent(self, keys: Sequence[Key]) -> None:
        """That a record does not exist is true only now; claims are everybody's and change too often to be kept."""
        for key in keys:
            if key[0] == HOUSE or self.records.get(key) is None:
                self.records.pop(key, None)

    def _forget(self, runs: set[str]) -> None:
        for key in [key for key in self.records if key[0] in runs or key[0] == HOUSE]:
            del self.records[key]

    def made(self, run: str) -> None:
        """An id was made just now, so there is no such run yet."""
        self.records[(run, "")] = None

    def committed(self, decision: Decision) -> None:
        """Take over the versions that the store now holds."""
        for put in decision.puts:
            record = put.record
            if isinstance(record, Node) and record.state in (RUNNING, STOPPING):
                self.records[put.key] = record
            else:
                self.records.pop(put.key, None)
        if len(self.records) > CACHED:
            self.records.clear()
        for header in decision.headers:
            self.library.remember(header)
        for some in decision.pages:
            self.library.staged.pop(some.key, None)
        for run in decision.ended:
            self.library.headers.pop(run, None)

    def stale(
        self, decision: Decision, facts: Sequence[Fact], current: Sequence[tuple[Key, Record | None]] = ()
    ) -> None:
        """Forget what turned out to be old; `current` is what came with the news, as far as it may be kept."""
        for put in decision.puts:
            self.records.pop(put.key, None)
        for key, _ in decision.seen:
            self.records.pop(key, None)
        for fact in facts:
            self.records.pop(fact.key, None)
        self.records.update((key, record) for key, record in current if isinstance(record, Node))

    def leased(self, lease: Lease) -> None:
        self.records[lease.node.key] = lease.node
        if lease.header is not None:
            self.library.remember(lease.header)


def _brought(facts: Sequence[Fact]) -> Iterator[Plan]:
    """The plans that tasks have put in their own place or added beside themselves."""
    for fact in facts:
        if isinstance(fact, Ended) and isinstance(fact.outcome, Replaced):
            yield fact.outcome.plan
        elif isinstance(fact, Ended) and isinstance(fact.outcome, Ok):
            yield from fact.outcome.added
