"""A memory store that checks the invariants after each commit and at each lease."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

from stemflow.core.invariants import check_commit
from stemflow.core.shape import Shape
from stemflow.core.snapshot_invariants import check_claims
from stemflow.model.effects import Decision
from stemflow.model.records import FINAL, Claim, Key, Node, Record
from stemflow.store.base import Lease
from stemflow.store.memory.retention import Plans
from stemflow.store.memory.store import MemoryStore
from stemflow.testing.history.rate_ledger import Ledger
from stemflow.testing.simulation.checks import at_commit, at_lease, at_refusal
from stemflow.testing.simulation.virtual_loop import VirtualClock


class Violation(AssertionError):
    """An invariant was broken; the message tells the seed and the story."""


class CheckedStore(MemoryStore):
    """The memory store, with the invariants checked after each commit."""

    def __init__(self, url: str, clock: VirtualClock, tell: Callable[[str], None]) -> None:
        super().__init__(url, clock)
        self.tell = tell
        self.commits = self.posts = 0
        self.ledger = Ledger()
        self.opened: dict[Key, int] = {}
        self.ended: dict[Key, int] = {}
        self.previous: dict[Key, Record | None] = {}
        """Each record as it was before its last change."""

    def _commit(self, decision: Decision, now_ms: int) -> bool:
        before: dict[Key, Record | None] = {put.key: self._records.get(put.key) for put in decision.puts}
        broken = at_commit(decision, self._records) + at_refusal(decision, self._records)
        if not super()._commit(decision, now_ms):
            return False
        self.previous.update(before)
        self.commits += 1
        self.posts += len(decision.posts)
        for put in decision.puts:
            after = self._records.get(put.key)
            self.opened.setdefault(put.key, self.commits)
            if isinstance(after, Node) and after.state in FINAL:
                self.ended.setdefault(put.key, self.commits)
            self.tell(f"{now_ms} {put.key} {getattr(after, 'state', 'claim')}")
        broken += check_commit(before, {key: self._records.get(key) for key in before}, now_ms)
        broken += check_claims(before, self._records, _Shapes(self._plans))
        if broken:
            raise Violation("; ".join(broken))
        return True

    def overtake(self, decisions: Sequence[Decision]) -> None:
        """As if somebody had just written the scopes and claims that `decisions` change, and left them as they were."""
        for put in (put for one in decisions for put in one.puts):
            stored = self._records.get(put.key)
            open_scope = isinstance(stored, Node) and stored.tally is not None and stored.state not in FINAL
            if stored is not None and (open_scope or isinstance(stored, Claim)):
                self._records[put.key] = twin = copy.copy(stored)
                twin.rev += 1

    def _lease(self, ready: Node, now_ms: int) -> Lease:
        broken = at_lease(ready, self._records, _Shapes(self._plans), now_ms) + self.ledger.start(ready.limits, now_ms)
        if broken:
            raise Violation("; ".join(broken))
        self.previous[ready.key] = ready
        return super()._lease(ready, now_ms)

    def has_posts(self, run: str) -> bool:
        """Whether the inbox of a run holds ends of members that no worker has applied."""
        return self._inboxes.has_posts(run)

    def leaked_claims(self) -> list[str]:
        """I6: a claim whose holder has ended is a window, or it is gone."""
        found = []
        for record in self._records.values():
            if isinstance(record, Claim) and not record.finished:
                for key in record.holders:
                    holder = self._records.get(key)
                    if not isinstance(holder, Node) or holder.state in FINAL:
                        found.append(f"claim {record.key} is held by {key}, which has ended")
        return found


class _Shapes(dict[str, Shape]):
    """Shapes of stored plans, made when they are asked for."""

    def __init__(self, plans: Plans) -> None:
        self.plans = plans

    def __missing__(self, digest: str) -> Shape:
        plan = self.plans.get(digest)
        if plan is None:
            raise KeyError(digest)
        return self.setdefault(digest, Shape(plan))
