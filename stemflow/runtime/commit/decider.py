"""Advancing runs: read what `decide` needs, evaluate its gates, remember what was committed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Set
from typing import Any

from msgspec import structs

from stemflow.core.decide import decide
from stemflow.core.work import View
from stemflow.model.effects import Decision, Frozen, GateKey, Need
from stemflow.model.facts import Distrusted, Ended, Fact, InboxRead, Ok, Replaced
from stemflow.model.plan import Plan
from stemflow.model.records import FINAL, NO_RUN, RUNNING, STOPPING, Key, Node, Record
from stemflow.runtime.commit.contention import Contention
from stemflow.runtime.payloads.signing import SignatureInvalid, UnknownKey, same_meaning
from stemflow.runtime.values.binding import Binder, gate
from stemflow.runtime.values.library import PLANS, Library
from stemflow.runtime.values.resolver import Values
from stemflow.store.base import Inbox, Lease, Store

CACHED = 50_000
"""Records kept from commit to commit; more than this and the cache is emptied, which costs only reads."""


REREADS = 3
"""How often a decision over records that do not fit together is made again before that counts as a bug."""


class Decider:
    """One a process. The cache holds what open runs need again: their scopes, and leaves that are leased here."""

    def __init__(self, store: Store, library: Library) -> None:
        self.store = store
        self.library = library
        self.trust = library.trust
        self.epoch = store.epoch
        self.records: dict[Key, Record | None] = {}
        self.binders: dict[str, Binder] = {}
        self.contention = Contention(store)

    async def decide(self, facts: Sequence[Fact]) -> Decision:
        """Ask the machine until it needs nothing more.

        Cached records may be older than others that it reads, and together impossible; then all are read anew.
        """
        if self.epoch != self.store.epoch:
            self.void()
        for plan in _brought(facts):
            self.library.learn(plan)  # gates in it are asked before it is stored
        for _ in range(REREADS):
            try:
                return await self._decide(facts)
            except AssertionError:
                self._forget({fact.key[0] for fact in facts})
        return await self._decide(facts)

    async def _decide(self, facts: Sequence[Fact]) -> Decision:
        gates: dict[GateKey, Any] = {}
        fresh: list[Key] = []
        doubted = any(isinstance(fact, Distrusted) for fact in facts)
        blind: set[Key] = set()
        hot = self.contention.hot(facts)
        try:
            while True:
                view = View(self.records, self.library.headers, self.library.shapes, gates, hot)
                answer = decide(view, facts, self.store.now_ms())
                if isinstance(answer, Decision):
                    return await self._sealed(answer, blind)
                await self._meet(answer, gates, fresh)
                if not doubted:
                    blind.update(key for key in answer.keys if not self._may_rest_on(key))
        finally:
            self._drop_absent(fresh)
            for key in fresh if doubted else blind:
                self.records.pop(key, None)

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

    def _may_rest_on(self, key: Key) -> bool:
        """Whether what was read may be built upon; raises SignatureInvalid, and forgets what was altered."""
        record = self.records.get(key)
        if record is None:
            return True
        try:
            return self.trust.is_valid(record)
        except SignatureInvalid:
            del self.records[key]
            raise

    async def _sealed(self, decision: Decision, blind: Set[Key]) -> Decision:
        """Seal what is to be written. What rests on `blind` records, whose seals cannot be checked here, may only be
        written if it leaves all that is sealed as it is; else raises UnknownKey."""
        if blind:
            for put in decision.puts:
                before = self.records.get(put.key)
                if before is None or put.record is None or not same_meaning(put.record, before):
                    raise UnknownKey(f"run {put.key[0]}", None)
            return decision
        if self.trust.keys is None:
            return decision
        for put in decision.puts:
            if put.record is not None:
                put.record.seal = self.trust.seal_of(put.record)
        headers = tuple(structs.replace(one, seal=self.trust.seal_of(one)) for one in decision.headers)
        pages = tuple([await self.library.items.signed(some) for some in decision.pages])
        posts = tuple([structs.replace(one, seal=self.trust.seal_of(one)) for one in decision.posts])
        return structs.replace(decision, headers=headers, pages=pages, posts=posts)

    async def _gate(self, need: Need, key: GateKey) -> Any:
        node = need.working.get(key[:2]) or self.records.get(key[:2])
        assert isinstance(node, Node)
        shape = await self.library.shape(node.plan)
        values = Values(self.library, need.working, self.records)
        answer = await gate(values, key, await self.binder(node.plan), node, shape.nodes[node.node])
        if isinstance(answer, Frozen):
            self.library.items.staged[key[:2]] = answer.pages
        return answer

    async def binder(self, digest: str) -> Binder:
        found = self.binders.get(digest)
        if found is None:
            found = self.binders[digest] = Binder(await self.library.shape(digest))
            if len(self.binders) > PLANS:
                del self.binders[next(iter(self.binders))]
        return found

    def _drop_absent(self, keys: Sequence[Key]) -> None:
        """That a record does not exist is true only now; claims are everybody's and change too often to be kept."""
        for key in keys:
            if key[0] == NO_RUN or self.records.get(key) is None:
                self.records.pop(key, None)

    def void(self) -> None:
        """The store has lost some of its data, so nothing that was read is known to be true any more."""
        self.epoch = self.store.epoch
        self.records.clear()
        self.library.finished.clear()

    def _forget(self, runs: set[str]) -> None:
        for key in [key for key in self.records if key[0] in runs or key[0] == NO_RUN]:
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
                if isinstance(record, Node) and record.path and record.state in FINAL:
                    self.library.finished.add(record)
        if len(self.records) > CACHED:
            self.records.clear()
        for header in decision.headers:
            self.library.forget(header.run)
            self.library.remember(header)
            self.trust.ended.pop(header.run, None)
        for header in decision.also:
            self.records.pop((header.run, ""), None)
        for some in decision.pages:
            self.library.items.staged.pop(some.key, None)
        for end in decision.ended:
            self.library.headers.pop(end.run, None)
            self.trust.end(end.run)

    def stale(
        self, decision: Decision, facts: Sequence[Fact], current: Sequence[tuple[Key, Record | None]] = ()
    ) -> None:
        """Forget what turned out to be old; `current` is what came with the news, as far as it may be kept."""
        self.contention.stale(decision, current)
        for put in decision.puts:
            self.records.pop(put.key, None)
        for key, _ in decision.seen:
            self.records.pop(key, None)
        for fact in facts:
            self.records.pop(fact.key, None)
        for key, record in current:
            if isinstance(record, Node) and self.trust.is_verified(record):
                self._heed(record)
                self.records[key] = record

    def handed(self, inbox: Inbox) -> list[Fact]:
        """What is to be decided on an inbox, with its scopes kept; one that is sealed under a key which is not known
        here is left to somebody else."""
        for scope in inbox.scopes:
            self._heed(scope)
            if self.trust.is_verified(scope):
                self.records[scope.key] = scope
        root = (inbox.run, "")
        try:
            known = all(self.trust.is_valid(post) for post in inbox.posts)
        except SignatureInvalid as error:
            return [Distrusted(root, str(error)), InboxRead(root, inbox.upto)]
        return [InboxRead(root, inbox.upto, inbox.posts)] if known else []

    def _heed(self, node: Node) -> None:
        """What is known of a run that had the id of this one before is forgotten."""
        before = self.library.headers.get(node.run)
        if before is not None and before.base != node.base:
            self._forget({node.run})
            self.library.forget(node.run)

    def leased(self, lease: Lease) -> None:
        """Keep what came with a lease, unless it cannot be relied on; then it is read again where it is needed."""
        self._heed(lease.node)
        if self.trust.is_verified(lease.node):
            self.records[lease.node.key] = lease.node
        if lease.header is not None and self.trust.is_verified(lease.header):
            self.library.remember(lease.header)


def _brought(facts: Sequence[Fact]) -> Iterator[Plan]:
    """The plans that tasks have put in their own place or added beside themselves."""
    for fact in facts:
        if isinstance(fact, Ended) and isinstance(fact.outcome, Replaced):
            yield fact.outcome.plan
        elif isinstance(fact, Ended) and isinstance(fact.outcome, Ok):
            yield from fact.outcome.added
