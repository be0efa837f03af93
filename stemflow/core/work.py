"""The working copy of one decision: what was read, what was changed, and what is still to be processed.

Theory of operation. `decide` folds facts over a `Work`. A Work starts from a `View`: the records, headers, plans and
gate values that the caller has read so far. Nothing in a view is ever modified.

* *Reading* (`record`, `node`, `header`, `shape`, `gate`) returns the changed copy if there is one, else what the view
  contains. If the view does not contain it, `Missing` is raised; `decide` turns it into a `Need`, the caller reads
  what is needed, and the whole decision starts again with the same facts and a new Work. So actions never handle
  missing data, and what an interrupted attempt has changed is discarded; only the missing gates are evaluated on it.
* *Changing* goes through `edit`, `create` and `set_shared`. The first change of a record copies it and notes its
  guard: the revision and token that the stored record must still have when the decision is committed.
* *Consequences* are queued in `pending`: the end of a member for its scope (`MemberEnd`), a turn or an outcome for a
  waiter of a claim (`ClaimNotice`). After each fact, `decide` processes the queue until it is empty, so a fact is
  decided together with everything that follows from it. For a hot scope, a MemberEnd becomes a post to the inbox of
  its run instead.
* *The result* (`decision`) contains one Put for each changed record, and in `seen` the guards of records that were
  only read. The store commits all of it if every guard still holds, and nothing otherwise. So a committed decision is
  one that could have been made on the records as they are at the instant of the commit.

A view may mix records of different ages, since callers cache records between commits. Usually a guard detects that.
If one record contradicts another, `StaleView` is raised, and the caller reads all records again.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Literal

from stemflow.core.kinds import KINDS
from stemflow.core.shape import Shape, base_size
from stemflow.model.effects import DeadLetter, Decision, GateKey, Need, Pages, Put, Reply, RunEnd
from stemflow.model.facts import End, Fact, Post
from stemflow.model.plan import AnyPlan, LeafPlan, Plan, ScopePlan
from stemflow.model.records import (
    FINAL,
    NO_RUN,
    READY,
    WAITING,
    Claim,
    Header,
    Key,
    Node,
    Record,
    Shared,
    StoredEvent,
    Topic,
    child_path,
    parent_path,
    task_id,
    turn_of,
)


class View:
    """What has been read so far. A key that maps to None is known not to exist; a key that is absent is unknown.

    `hot`: contended scopes. The ends of their members are posted to the inbox of the run.
    """

    __slots__ = ("records", "headers", "shapes", "gates", "hot")

    def __init__(
        self,
        records: Mapping[Key, Record | None],
        headers: Mapping[str, Header],
        shapes: Mapping[str, Shape],
        gates: Mapping[GateKey, Any],
        hot: Collection[Key] = (),
    ) -> None:
        self.records = records
        self.headers = headers
        self.shapes = shapes
        self.gates = gates
        self.hot = hot


class Missing(Exception):
    """Something must be read before the facts can be decided."""

    def __init__(
        self,
        keys: tuple[Key, ...] = (),
        headers: tuple[str, ...] = (),
        plans: tuple[str, ...] = (),
        gates: tuple[GateKey, ...] = (),
    ) -> None:
        self.keys, self.headers, self.plans, self.gates = keys, headers, plans, gates

    @classmethod
    def all(cls, some: Sequence[Missing]) -> Missing:
        """The union of what several decisions need, each once, in order."""
        return cls(
            keys=tuple(dict.fromkeys(key for one in some for key in one.keys)),
            headers=tuple(dict.fromkeys(run for one in some for run in one.headers)),
            plans=tuple(dict.fromkeys(digest for one in some for digest in one.plans)),
            gates=tuple(dict.fromkeys(gate for one in some for gate in one.gates)),
        )


class StaleView(Exception):
    """The records of a view contradict each other, since some are older than others. All of them must be read again.

    Raised if a record refers to another one that does not match. If a mixed view does lead to a decision, the guards of
    the decision detect it when it is committed.
    """

    def __init__(self, key: Key, expected: str) -> None:
        super().__init__(f"{task_id(key)}: expected {expected}; the records that were read are of different ages")
        self.key = key


class MemberEnd:
    """The end of a member, to be processed by its scope."""

    __slots__ = ("scope", "index", "how", "failed_at")

    def __init__(self, scope: Key, index: int, how: str, failed_at: str | None) -> None:
        self.scope, self.index, self.how, self.failed_at = scope, index, how, failed_at


class ClaimNotice:
    """A notification to a waiter or sharer of a claim: `granted` with the key, or `denied` with the node whose outcome
    it shares."""

    __slots__ = ("key", "event", "about")

    def __init__(self, key: Key, event: Literal["granted", "denied"], about: str | Node) -> None:
        self.key, self.event, self.about = key, event, about


def guard_of(record: Record | None) -> tuple[int, int]:
    """(rev, delivery) of a record that was read; a lease changes only `delivery`. (0, 0) if there is no record."""
    if record is None:
        return 0, 0
    return record.rev, record.delivery if isinstance(record, Node) else 0


class Work:
    """The state of one decision in progress; see the module docstring."""

    __slots__ = (
        "view", "now_ms", "read", "changed", "guards", "pending", "new_headers", "also", "new_shapes", "fragments",
        "pages", "dead", "purged", "dropped", "ended", "replies", "refused", "posts", "consumed", "ahead",
    )  # fmt: skip

    def __init__(self, view: View, now_ms: int) -> None:
        self.view = view
        self.now_ms = now_ms
        self.read: dict[Key, Record | None] = {}
        self.changed: dict[Key, Record | None] = {}
        self.guards: dict[Key, tuple[int, int]] = {}
        self.pending: deque[MemberEnd | ClaimNotice] = deque()
        self.new_headers: dict[str, Header] = {}
        self.also: list[Header] = []
        self.new_shapes: dict[str, Shape] = {}
        self.fragments: list[tuple[str, str]] = []
        self.pages: list[Pages] = []
        self.dead: list[DeadLetter] = []
        self.purged: list[Key] = []
        self.dropped: dict[str, tuple[int, int]] = {}
        self.ended: list[RunEnd] = []
        self.replies: list[Reply] = []
        self.refused: list[Fact] = []
        self.posts: dict[Key, list[End]] = {}
        self.consumed: list[tuple[str, int]] = []
        self.ahead: dict[str, int] = {}
        """How many leaves of a run are ready before the next one that becomes ready, as far as the decision knows."""

    # -- reading

    def record(self, key: Key) -> Record | None:
        if key in self.changed:
            return self.changed[key]
        try:
            found = self.read[key] = self.view.records[key]
        except KeyError:
            raise Missing(keys=(key,)) from None
        return found

    def node(self, key: Key) -> Node | None:
        found = self.record(key)
        assert found is None or isinstance(found, Node)
        return found

    def known(self, key: Key, by: str) -> Node:
        """A node that must exist according to another record. Raises StaleView if it does not."""
        found = self.node(key)
        if found is None:
            raise StaleView(key, f"a record, as {by} names it")
        return found

    def drop_member_ends(self) -> None:
        """Forget the ends of members that no scope has processed yet."""
        self.pending = deque(end for end in self.pending if not isinstance(end, MemberEnd))

    def want(self, keys: Iterable[Key]) -> None:
        """Request all of these that are unknown, at once."""
        unknown = tuple(k for k in keys if k not in self.changed and k not in self.view.records)
        if unknown:
            raise Missing(keys=unknown)

    def header(self, run: str) -> Header:
        found = self.new_headers.get(run) or self.view.headers.get(run)
        if found is None:
            raise Missing(headers=(run,))
        return found

    def shape(self, digest: str) -> Shape:
        found = self.view.shapes.get(digest) or self.new_shapes.get(digest)
        if found is None:
            raise Missing(plans=(digest,))
        return found

    def gate(self, key: Key, name: str) -> Any:
        try:
            return self.view.gates[(*key, name)]
        except KeyError:
            raise Missing(gates=((*key, name),)) from None

    def plan_of(self, node: Node) -> AnyPlan:
        found = self.view.shapes.get(node.plan)
        return (found if found is not None else self.shape(node.plan)).nodes[node.node]

    def leaf_of(self, node: Node) -> LeafPlan:
        plan = self.plan_of(node)
        assert isinstance(plan, LeafPlan)
        return plan

    def scope_of(self, node: Node) -> ScopePlan:
        plan = self.plan_of(node)
        assert isinstance(plan, ScopePlan)
        return plan

    def parent_key(self, node: Node) -> Key:
        return (node.run, parent_path(node.path))

    def member(self, scope: Node, index: int) -> tuple[Key, str, int]:
        """(key, plan digest, plan node) of member `index` of an opened scope."""
        plan = self.scope_of(scope)
        rules = KINDS[plan.kind]
        key = (scope.run, child_path(scope.path, rules.segment(plan, index)))
        base = base_size(scope)
        if index < base:
            return key, scope.plan, rules.place(plan, index)
        joined = index - base
        for digest, count in scope.extra:
            if joined < count:
                root = self.shape(digest).nodes[0]
                assert isinstance(root, ScopePlan)
                return key, digest, root.members[joined]
            joined -= count
        raise StaleView(scope.key, f"a member with the number {index}")

    # -- changing

    def edit(self, node: Node) -> Node:
        """The copy of `node` that this decision may change."""
        key = node.run, node.path
        if key in self.guards:
            return node
        twin: Node = node.__copy__()  # type: ignore[attr-defined]  # what `copy.copy` calls
        if node.tally is not None:
            twin.tally = node.tally.copy()
        self.guards[key] = guard_of(node)
        self.changed[key] = twin
        return twin

    def create(self, node: Node) -> Node:
        key = node.run, node.path
        node.base = node.rev = node.delivery = self.header(node.run).base
        self.guards.setdefault(key, (0, 0))
        self.changed[key] = node
        return node

    def next_turn(self, node: Node) -> int:
        """The turn of a leaf that becomes ready; one that comes back keeps the one that it had."""
        if self.guards[node.run, node.path] != (0, 0):
            return node.turn
        ahead = self.ahead.get(node.run, 0)
        self.ahead[node.run] = ahead + 1
        return turn_of(ahead)

    def drop(self, root: Node) -> None:
        """Delete the expired run of `root`, whose id is used again."""
        self.dropped[root.run] = guard_of(root)

    def forget(self, node: Node) -> None:
        """Undo the creation of a node in this decision, as it needs no record."""
        del self.changed[node.key], self.guards[node.key]

    def claim(self, key: str) -> Claim | None:
        found = self.record((NO_RUN, key))
        assert found is None or isinstance(found, Claim)
        return found

    def topic(self, key: str) -> Topic | None:
        found = self.record((NO_RUN, key))
        assert found is None or isinstance(found, Topic)
        return found

    def event(self, key: str) -> StoredEvent | None:
        found = self.record((NO_RUN, key))
        assert found is None or isinstance(found, StoredEvent)
        return found

    def set_shared(self, key: str, record: Shared | None) -> None:
        """Write a record that belongs to no run; None deletes it. One that was not read must not exist."""
        place = (NO_RUN, key)
        if place not in self.guards:
            before = self.view.records.get(place)
            self.guards[place] = (before.rev if before else 0, 0)
        self.changed[place] = record

    def add_plan(self, run: str, plan: Plan) -> Shape:
        """Add a fragment that joins `run` while it runs."""
        self.fragments.append((run, plan.digest))
        return self.new_shapes.setdefault(plan.digest, Shape(plan))

    def posted(self, end: MemberEnd) -> bool:
        """Post `end` to the inbox if its scope is hot and not changed by this decision anyway; False otherwise."""
        if end.scope not in self.view.hot or end.scope in self.guards or end.index < 0:
            return False
        self.header(end.scope[0])
        self.posts.setdefault(end.scope, []).append(End(end.index, end.how, end.failed_at))
        return True

    # -- the result

    def decision(self) -> Decision:
        puts = []
        for key, record in self.changed.items():
            rev, token = self.guards[key]
            if record is None and rev == 0:
                continue
            assert not isinstance(record, Node) or record.state != WAITING
            if record is not None:
                record.rev = rev + 1 if rev else self._first_rev(record)
            is_ready = isinstance(record, Node) and record.state == READY
            task = self.leaf_of(record).task if is_ready else ""  # type: ignore[arg-type]
            puts.append(Put(key, rev, token, record, task))
        return Decision(
            puts=tuple(puts),
            seen=self._seen(),
            headers=tuple(self.new_headers.values()),
            also=tuple(self.also),
            plans=tuple(shape.plan for shape in self.new_shapes.values()) if self.new_shapes else (),
            pages=tuple(self.pages),
            fragments=tuple(self.fragments),
            dead=tuple(self.dead),
            purged=tuple(self.purged),
            dropped=tuple(self.dropped),
            ended=tuple(self.ended),
            replies=tuple(self.replies),
            refused=tuple(self.refused),
            posts=tuple(self._new_posts()) if self.posts else (),
            consumed=tuple(self.consumed),
        )

    def _new_posts(self) -> list[Post]:
        return [Post(*key, tuple(ends), self.header(key[0]).base) for key, ends in self.posts.items()]

    def _first_rev(self, record: Record) -> int:
        """The first revision of a record. One that belongs to no run may be deleted and created again; its revisions
        start at a different number each time, so that no old guard matches."""
        if isinstance(record, Node):
            return record.base + 1
        if isinstance(record, Claim):
            holder = record.holders[0]
            node = self.changed[holder]
            assert isinstance(node, Node)
            about = (*holder, str(node.delivery))
        elif isinstance(record, Topic):
            about = (record.key, str(self.now_ms), str(record.last), *(record.waiters[0] if record.waiters else ()))
        else:
            about = (record.key, str(self.now_ms), str(record.number))
        digest = hashlib.blake2b("/".join(about).encode(), digest_size=6).digest()
        return 1 + int.from_bytes(digest, "big")

    def _seen(self) -> tuple[tuple[Key, int, int], ...]:
        """The guards of records that were read and not changed. Final records are left out, as they can no longer
        change. A shared record that was created and deleted again has been read, too: it must not exist."""
        seen: list[tuple[Key, int, int]] = []
        for run, guard in self.dropped.items():
            seen.append(((run, ""), *guard))
        for key, one in self.changed.items():
            if one is None and self.guards[key][0] == 0:
                seen.append((key, 0, 0))
        for key, record in self.read.items():
            if key not in self.guards and not (isinstance(record, Node) and record.state in FINAL):
                seen.append((key, *guard_of(record)))
        return tuple(seen)

    def need(self, missing: Missing) -> Need:
        return Need(
            keys=missing.keys,
            headers=missing.headers,
            plans=missing.plans,
            gates=missing.gates,
            working=self.changed,
        )
