"""Which indexes of a store a record belongs to: derived from the record and the table, never decided here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from stemflow.core.table import KINDS, TABLE
from stemflow.model.effects import Decision
from stemflow.model.records import LAST_TURN, RUNNING, STOPPING, Claim, Key, Node, Shared, State, Topic

_TIMED: Final[dict[str, frozenset[State]]] = {
    kind: frozenset(state for of, state, event in TABLE if of == kind and event == "due") for kind in KINDS
}
_SCOPE: Final = _TIMED["scope"]
_SINGLE: Final = _TIMED["leaf"] | _TIMED["wait"]


def timer_of(node: Node) -> int | None:
    """The instant at which `Due` would change this node, or None where the table has no such cell."""
    at_ms = node.due_at_ms
    if at_ms is None or node.state not in (_SINGLE if node.tally is None else _SCOPE):
        return None
    return at_ms


def level_of(node: Node) -> int:
    """Where a ready leaf ranks: the highest level is leased first, and within a level what became ready first. Each
    priority has a level for each turn."""
    return node.priority * (LAST_TURN + 1) + LAST_TURN - node.turn


HIGHEST_LEVEL: Final = 10 * (LAST_TURN + 1) - 1


def may_hold_lease(node: Node) -> bool:
    """Whether a lease on this node outlives the commit that wrote it; a leaf that became a scope has none."""
    return node.tally is None and (node.state == RUNNING or node.state == STOPPING)


def commit_each(decisions: Sequence[Decision], commit: Callable[[Decision], bool]) -> tuple[bool, ...]:
    """Commit decisions in order, but none that rests on one that was stale; returns which were committed."""
    committed: list[bool] = []
    for decision in decisions:
        committed.append(all(committed[place] for place in decision.after) and commit(decision))
    return tuple(committed)


def guarded(decisions: Sequence[Decision], committed: Sequence[bool]) -> tuple[Key, ...]:
    """The keys that the guards of stale decisions named, each once."""
    stale = [decision for decision, ok in zip(decisions, committed, strict=True) if not ok]
    keys = [put.key for one in stale for put in one.puts] + [key for one in stale for key, *_ in one.seen]
    return tuple(dict.fromkeys(keys))


def window_of(record: Shared) -> int | None:
    """The instant from which this record may be deleted; None while a node holds it or waits for it."""
    if isinstance(record, Claim):
        return (record.until_ms or 0) if record.finished and not record.waiters else None
    return None if isinstance(record, Topic) and record.waiters else record.until_ms


def changes_something(decision: Decision) -> bool:
    """Whether committing it writes anything; a decision that only refuses facts does not."""
    records = decision.puts or decision.headers or decision.plans or decision.pages
    return bool(records or decision.dead or decision.purged or decision.posts or decision.consumed)
