"""Batches of facts that are decided together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set

from stemflow.model.facts import Damaged, Distrusted, Fact, InboxRead
from stemflow.model.records import Key, Node, Record


def batches_of(
    facts: Sequence[Fact], records: Mapping[Key, Record | None], hot: Set[str]
) -> list[tuple[set[str], list[Fact]]]:
    """Split facts into batches; with each, the names of the runs and concurrency keys that its decision changes.

    A batch has the facts of one run, and of the runs whose tasks share a concurrency key (by `records`). In runs that
    other processes change at the same time (`hot`), an inbox is a batch of its own: a small decision is seldom stale.
    """
    met: dict[str, str] = {}
    joined: dict[str, str] = {}

    def group(run: str) -> str:
        while run in joined:
            run = joined[run]
        return run

    for fact in facts:
        node = records.get(fact.key)
        if isinstance(node, Node) and node.slot is not None:
            run, other = group(fact.key[0]), group(met.setdefault(node.slot, fact.key[0]))
            if run != other:
                joined[run] = other
    groups: dict[tuple[str, str], tuple[set[str], list[Fact]]] = {}
    for fact in facts:
        run = group(fact.key[0])
        names, batch = groups.setdefault((run, _part(fact, hot)), (set(), []))
        names.add(fact.key[0])
        batch.append(fact)
    for slot, run in met.items():
        for part in ("", "distrusted", "inbox"):
            if (group(run), part) in groups:
                groups[group(run), part][0].add(slot)
    return list(groups.values())


def _part(fact: Fact, hot: Set[str]) -> str:
    """The part of its run's facts that a fact is decided with."""
    if isinstance(fact, (Distrusted, Damaged)):
        return "distrusted"
    return "inbox" if isinstance(fact, InboxRead) and fact.key[0] in hot else ""
