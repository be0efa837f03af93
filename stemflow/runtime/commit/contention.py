"""Contended scopes: several processes change them at once, so the ends of members are posted to an inbox instead."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence, Set
from contextlib import contextmanager

from stemflow.model.effects import Decision, Put
from stemflow.model.facts import Fact, InboxRead, Post
from stemflow.model.records import Key, Node, Record
from stemflow.store.base import Exchange, Store

WIDE = 16
"""Scopes of fewer members are never posted to: so few processes can contend that repeated decisions end soon."""
HOT_MS = 1_000
"""How long a scope counts as hot after another process was last seen to change it; then it is changed directly."""


class Contention:
    """Which scopes other processes were seen to change at the same time as this one."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._wide_from = WIDE
        self._has_worker = False
        """Whether a worker of this process may lease inboxes; without one nothing is posted."""
        self._until_ms: dict[Key, int] = {}

    @contextmanager
    def inboxes_leased(self) -> Iterator[None]:
        """While a worker of this process leases inboxes; ends of members are posted only then."""
        self._has_worker = True
        try:
            yield
        finally:
            self._has_worker = False

    def wide_from(self, members: int) -> None:
        """Let scopes of at least so many members be posted to (tests: fewer than WIDE)."""
        self._wide_from = members

    def stale(self, decision: Decision, current: Sequence[tuple[Key, Record | None]]) -> None:
        """Note a stale decision; `current` are the records that it was based on, as they are now."""
        now = dict(current)
        for put in self._wide(decision):
            found = now.get(put.key)
            if found is not None and found.rev != put.guard:
                self._seen([put.key])

    def answered(self, committed: Sequence[Decision], answer: Exchange) -> None:
        """Note committed decisions: the answer shows whether another process holds an inbox they posted to, or has
        posted to one."""
        posts: list[Post] = []
        for one in committed:
            posts += one.posts
        if posts:
            given = {inbox.run for inbox in answer.inbox}
            self._seen(post.scope for post in posts if post.run not in given)
        for inbox in answer.inbox:
            if len(inbox.posts) > sum(post.run == inbox.run for post in posts):
                self._seen(post.scope for post in inbox.posts)
        if answer.busy_inboxes:
            puts = [put for one in committed for put in self._wide(one)]
            self._seen(put.key for put in puts if put.key[0] in answer.busy_inboxes)

    def _seen(self, scopes: Iterable[Key]) -> None:
        until_ms = self._store.now_ms() + HOT_MS
        for scope in scopes:
            self._until_ms[scope] = until_ms

    def runs(self) -> Set[str]:
        """The runs in which a scope is hot."""
        return {run for run, _ in self._until_ms} if self._until_ms else frozenset()

    def hot(self, facts: Sequence[Fact]) -> Collection[Key]:
        """The scopes that a decision on `facts` must not change, unless it consumes the inbox of their run."""
        if not self._until_ms or not self._has_worker:
            return ()
        now_ms = self._store.now_ms()
        self._until_ms = {key: until_ms for key, until_ms in self._until_ms.items() if until_ms > now_ms}
        consumed = {fact.key[0] for fact in facts if isinstance(fact, InboxRead)}
        return {key for key in self._until_ms if key[0] not in consumed}

    def _wide(self, decision: Decision) -> Iterator[Put]:
        """The wide scopes that a decision changes."""
        for put in decision.puts:
            node = put.record
            if put.guard and isinstance(node, Node) and node.tally is not None and node.tally.size >= self._wide_from:
                yield put
