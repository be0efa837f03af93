"""The shell around `core.decide`: reads the records it needs, evaluates its gates, caches what was committed."""

from __future__ import annotations

import logging
from collections import ChainMap
from collections.abc import Mapping, Sequence, Set
from typing import Any

from msgspec import structs

from stemflow.core.decide import decide
from stemflow.core.work import StaleView, View, guard_of
from stemflow.model.effects import Decision, Frozen, GateKey, Need
from stemflow.model.facts import Damaged, Distrusted, Ended, Fact, InboxRead, Ok, Replaced
from stemflow.model.records import FINAL, HELD, NO_RUN, READY, RUNNING, STOPPING, Key, Node, Record
from stemflow.runtime.commit.ahead import Ahead, Resting
from stemflow.runtime.commit.contention import Contention
from stemflow.runtime.commit.counting import Counting
from stemflow.runtime.payloads.signing import SignatureInvalid, UnknownKey, same_meaning
from stemflow.runtime.values.binding import Binder, gate
from stemflow.runtime.values.library import PLANS, Library
from stemflow.runtime.values.resolver import Values
from stemflow.store.base import Inbox, Lease, Store
from stemflow.store.damaged import DamagedHeader, DamagedNode, RecordsDamaged, readable

log = logging.getLogger("stemflow.worker")

CACHED = 50_000
"""The most records that are cached; beyond that the cache is emptied, which costs only reads."""
REREADS = 20
"""How often a decision is made again on records that are read for it alone, while other processes change them."""


class Decider:
    """Decides on facts; one for each engine. Caches the records that open runs need again: scopes and leased leaves."""

    def __init__(self, store: Store, library: Library) -> None:
        self.store = store
        self.library = library
        self.trust = library.trust
        self.epoch = store.epoch
        self.records: dict[Key, Record | None] = {}
        self.binders: dict[str, Binder] = {}
        self.counting = Counting()
        self.contention = Contention(store)

    async def decide(self, facts: Sequence[Fact], ahead: Ahead | None = None) -> Decision:
        """Call `core.decide` with what it needs until it returns a decision; sign that.

        `ahead` has records as earlier decisions of the same exchange leave them. The store applies those first, so this
        decision may rest on them (`Decision.after`); if one of them is refused, this one is stale.

        Cached records may be older than those that are read, and contradict them; then all are read again. Raises
        RecordsDamaged if they still contradict one another, SignatureInvalid, UnknownKey, StoreError.
        """
        if self.epoch != self.store.epoch:
            self.void()
        doubted = False
        for fact in facts:
            if isinstance(fact, Ended):
                outcome = fact.outcome
                # The gates of what joins the run are evaluated before it is stored.
                if isinstance(outcome, Ok) and outcome.added:
                    for plan in outcome.added:
                        self.library.learn(plan)
                elif isinstance(outcome, Replaced):
                    self.library.learn(outcome.plan)
            elif isinstance(fact, (Distrusted, Damaged)):
                doubted = True
        reading = Reading(self.records, (), ahead)
        try:
            return await self._decide(facts, reading, doubted)
        except StaleView as stale:
            log.debug("%s; they are read again", stale)
        return await self._decide_again(facts, reading.keys, doubted)

    async def _decide_again(self, facts: Sequence[Fact], keys: Sequence[Key], doubted: bool) -> Decision:
        """Decide on records that are read for this decision alone; those in `keys` are read in one transaction. It
        rests on no other decision: one that will be refused may be what contradicts the records."""
        for _ in range(REREADS):
            reading = Reading({}, tuple(dict.fromkeys(keys)), None)
            try:
                return await self._decide(facts, reading, doubted)
            except StaleView as found:
                stale = found
                if keys and len(reading.keys) == len(reading.first):
                    break  # all records were read in one transaction
            finally:
                for key in reading.keys:
                    self.records.pop(key, None)
            keys = reading.keys
        damaged = stale.key if stale.key[0] else None
        raise RecordsDamaged(stale.key[0] or facts[0].key[0], str(stale), damaged) from stale

    async def _decide(self, facts: Sequence[Fact], reading: Reading, doubted: bool) -> Decision:
        """Decide; `doubted` facts are about damaged or distrusted records, which may be read nevertheless."""
        gates: dict[GateKey, Any] = {}
        blind: set[Key] = set()
        hot = self.contention.hot(facts)
        need = Need(keys=reading.first) if reading.first else None
        try:
            while True:
                if need is not None:
                    await self._fetch(need, gates, reading, doubted)
                    if not doubted:
                        blind.update(key for key in need.keys if not self._is_trusted(key, reading.records))
                view = View(reading.seen, self.library.headers, self.library.shapes, gates, hot)
                answer = decide(view, facts, self.store.now_ms())
                if isinstance(answer, Decision):
                    if reading.ahead is not None and (after := reading.ahead.after):
                        answer = structs.replace(answer, after=after)
                    if not blind and self.trust.keys is None:
                        return answer
                    return await self._sealed(answer, blind, reading.seen)
                need = answer
        finally:
            if reading.keys:
                self._drop_transient(reading.keys)
            for key in reading.keys if doubted else blind:
                self.records.pop(key, None)

    async def _fetch(self, need: Need, gates: dict[GateKey, Any], reading: Reading, doubted: bool) -> None:
        """Read records, headers and plans, and evaluate gates, as `core.decide` asked for.

        A decision that is `doubted` ends what is damaged. For any other, raises RecordsDamaged.
        """
        if need.keys:
            reading.keys.extend(need.keys)
            for key, stored in zip(need.keys, await self.store.read(need.keys), strict=True):
                record = stored.repaired() if doubted and isinstance(stored, DamagedNode) else readable(stored)
                if not _is_newer(reading.records.get(key), record):
                    reading.records[key] = record
        for run in need.headers:
            await self.library.header(run)
        for digest in need.plans:
            await self.library.shape(digest)
        for gate_key in need.gates:
            gates[gate_key] = await self._gate(need, gate_key, reading)

    def _is_trusted(self, key: Key, records: dict[Key, Record | None]) -> bool:
        """Whether the signature of a record that was read could be checked. Raises SignatureInvalid if it is wrong."""
        record = records.get(key)
        if record is None:
            return True
        try:
            return self.trust.is_valid(record)
        except SignatureInvalid:
            del records[key]
            raise

    async def _sealed(self, decision: Decision, blind: Set[Key], records: Mapping[Key, Record | None]) -> Decision:
        """Sign the records of a decision.

        If it is based on `blind` records, whose signing key is unknown here, it may only change what no signature
        covers; otherwise raises UnknownKey.
        """
        if blind:
            for put in decision.puts:
                before = records.get(put.key)
                if before is None or put.record is None or not same_meaning(put.record, before):
                    raise UnknownKey(f"run {put.key[0]}", None)
            return decision
        for put in decision.puts:
            if put.record is not None:
                put.record.seal = self.trust.seal_of(put.record)
        headers = tuple(structs.replace(one, seal=self.trust.seal_of(one)) for one in decision.headers)
        pages = tuple([await self.library.items.signed(some) for some in decision.pages])
        posts = tuple([structs.replace(one, seal=self.trust.seal_of(one)) for one in decision.posts])
        return structs.replace(decision, headers=headers, pages=pages, posts=posts)

    async def _gate(self, need: Need, key: GateKey, reading: Reading) -> Any:
        node = need.working.get(key[:2]) or reading.seen.get(key[:2])
        assert isinstance(node, Node)
        shape = await self.library.shape(node.plan)
        overlay: Mapping[Key, Record | None] = need.working
        if reading.ahead is not None:
            overlay = ChainMap(dict(need.working), reading.ahead)  # type: ignore[arg-type]  # only read
        values = Values(self.library, overlay, reading.seen)
        answer = await gate(values, key, await self.binder(node.plan), node, shape.nodes[node.node])
        if isinstance(answer, Frozen):
            self.library.items.staged[key[:2]] = answer.pages
        return answer

    async def binder(self, digest: str) -> Binder:
        """The binder of the plan of this digest, cached. Raises StoreError."""
        found = self.binders.get(digest)
        if found is None:
            found = self.binders[digest] = Binder(await self.library.shape(digest))
            if len(self.binders) > PLANS:
                del self.binders[next(iter(self.binders))]
        return found

    def _drop_transient(self, keys: Sequence[Key]) -> None:
        """Do not cache what soon changes: claims, records that do not exist yet, and nodes that wait for a lease."""
        for key in keys:
            record = self.records.get(key)
            if not isinstance(record, Node) or record.state in (HELD, READY):
                self.records.pop(key, None)

    def void(self) -> None:
        """Empty the caches: the store has lost data."""
        self.epoch = self.store.epoch
        self.records.clear()
        self.library.finished.clear()

    def _forget(self, runs: set[str]) -> None:
        for key in [key for key in self.records if key[0] in runs or key[0] == NO_RUN]:
            del self.records[key]

    def expect_no_run(self, run: str) -> None:
        """Note that there is no run of this id, which is new; saves a read."""
        self.records[(run, "")] = None

    def committed(self, decision: Decision) -> None:
        """Cache the records of a committed decision that open runs need again, and drop those of ended runs."""
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
            if self.library.headers.get(header.run) is not header:
                self.library.remember(header)
            self.library.finished.drop_run(header.run)  # of an earlier run with its id
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
        """Drop the cached records that a stale decision was based on; cache `current`, sent in their place."""
        self.contention.stale(decision, current)
        for put in decision.puts:
            self.records.pop(put.key, None)
        for key, *_ in decision.seen:
            self.records.pop(key, None)
        for fact in facts:
            self.records.pop(fact.key, None)
        for key, record in current:
            if isinstance(record, Node) and self._is_sound(record):
                self._forget_earlier_run(record)
                self.records[key] = record

    def inbox_facts(self, inbox: Inbox) -> list[Fact]:
        """The facts to decide on a leased inbox, whose scopes are cached. None if a key of its posts is unknown here:
        then another process has to consume it."""
        root = (inbox.run, "")
        if inbox.damaged:
            return [Damaged(root, "what was posted to it cannot be read"), InboxRead(root, inbox.upto)]
        for scope in inbox.scopes:
            if self._is_sound(scope):
                self._forget_earlier_run(scope)
                self.records[scope.key] = scope
        try:
            known = all(self.trust.is_valid(post) for post in inbox.posts)
        except SignatureInvalid as error:
            return [Distrusted(root, str(error)), InboxRead(root, inbox.upto)]
        return [InboxRead(root, inbox.upto, inbox.posts)] if known else []

    def _forget_earlier_run(self, node: Node) -> None:
        """Drop what is cached of an earlier run with the same id."""
        before = self.library.headers.get(node.run)
        if before is not None and before.base != node.base:
            self._forget({node.run})
            self.library.forget(node.run)

    def remember_lease(self, lease: Lease) -> None:
        """Cache the record and the header of a lease, if their signatures are verified."""
        if self._is_sound(lease.node):
            self._forget_earlier_run(lease.node)
            self.records[lease.node.run, lease.node.path] = lease.node
        header = lease.header
        if header is not None and not isinstance(header, DamagedHeader) and self.trust.is_verified(header):
            self.library.remember(header)

    def _is_sound(self, node: Node) -> bool:
        """Whether a record may be cached: it could be decoded, and its signature is valid and known here."""
        return not isinstance(node, DamagedNode) and self.trust.is_verified(node)


class Reading:
    """The records of one decision, the keys to read `first`, and the keys that were read.

    `ahead` has records as decisions of the same exchange leave them, in place of those in the store, and notes which of
    them were looked up. They are `seen`, but never among `records`, which are cached: none of them is committed yet,
    and others decide meanwhile.
    """

    __slots__ = ("records", "first", "ahead", "keys", "seen")

    def __init__(self, records: dict[Key, Record | None], first: tuple[Key, ...], ahead: Ahead | None) -> None:
        self.records, self.first = records, first
        self.ahead = Resting(ahead) if ahead is not None and ahead.records else None
        self.keys: list[Key] = []
        self.seen: Mapping[Key, Record | None] = records
        if self.ahead is not None:
            self.seen = ChainMap(self.ahead, records)  # type: ignore[arg-type]  # only read


def _is_newer(known: Record | None, read: Record | None) -> bool:
    """Whether a lease or a commit has brought a newer version of a record while it was read."""
    return isinstance(known, Node) and isinstance(read, Node) and guard_of(known) > guard_of(read)
