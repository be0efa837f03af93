"""Scopes that several processes change at once. Their members' ends are posted, so that nobody waits for anybody."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Sequence, Set

from stemflow.model.effects import Decision, Put
from stemflow.model.facts import Fact, InboxRead
from stemflow.model.records import Key, Node, Record
from stemflow.store.base import Exchange, Store

WIDE = 16
"""Scopes of fewer members are decided again instead: so few processes can be at it that this is soon over."""
HOT_MS = 1_000
"""How long a scope counts as hot after others were last seen at it; then it is tried alone again."""


class Contention:
    """What this process has seen of others on the scopes that it changes."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.wide = WIDE
        self.hears = False
        """Whether there is a worker here that may be handed inboxes; without one nothing is posted."""
        self._until_ms: dict[Key, int] = {}

    def stale(self, decision: Decision, current: Sequence[tuple[Key, Record | None]]) -> None:
        """A decision was stale; what it rested on is now `current`."""
        now = dict(current)
        for put in self._wide(decision):
            found = now.get(put.key)
            if found is not None and found.rev != put.guard:
                self._seen([put.key])

    def answered(self, committed: Sequence[Decision], answer: Exchange) -> None:
        """These were committed. Somebody else may have the inbox of a run in question, or have posted what is in it."""
        posts = [post for one in committed for post in one.posts]
        given = {one.run for one in answer.inbox}
        self._seen(post.scope for post in posts if post.run not in given)
        for one in answer.inbox:
            if len(one.posts) > sum(post.run == one.run for post in posts):
                self._seen(post.scope for post in one.posts)
        if answer.busy_inboxes:
            puts = [put for one in committed for put in self._wide(one)]
            self._seen(put.key for put in puts if put.key[0] in answer.busy_inboxes)

    def _seen(self, scopes: Iterable[Key]) -> None:
        until_ms = self._store.now_ms() + HOT_MS
        self._until_ms.update((scope, until_ms) for scope in scopes)

    def runs(self) -> Set[str]:
        """The runs in which a scope is hot."""
        return {run for run, _ in self._until_ms}

    def hot(self, facts: Sequence[Fact]) -> Container[Key]:
        """The scopes that must not be changed by a decision on `facts`; one who was given the inbox of a run may."""
        if not self._until_ms or not self.hears:
            return ()
        now_ms = self._store.now_ms()
        self._until_ms = {key: until_ms for key, until_ms in self._until_ms.items() if until_ms > now_ms}
        heard = {fact.key[0] for fact in facts if isinstance(fact, InboxRead)}
        return {key for key in self._until_ms if key[0] not in heard}

    def _wide(self, decision: Decision) -> Iterator[Put]:
        """The wide scopes that a decision changes."""
        for put in decision.puts:
            node = put.record
            if put.guard and isinstance(node, Node) and node.tally is not None and node.tally.size >= self.wide:
                yield put
