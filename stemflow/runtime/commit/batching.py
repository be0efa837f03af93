"""Which facts are decided together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set

from stemflow.model.facts import Damaged, Distrusted, Fact, InboxRead
from stemflow.model.records import Key, Node, Record


def grouped(
    facts: Sequence[Fact], records: Mapping[Key, Record | None], hot: Set[str]
) -> list[tuple[set[str], list[Fact]]]:
    """Facts that must be decided together, with the names of their runs and concurrency keys.

    Where others change a run at the same time (`hot`), what was heard is decided alone, so that it is quickly done.
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
        names, batch = groups.setdefault((run, _apart(fact, hot)), (set(), []))
        names.add(fact.key[0])
        batch.append(fact)
    for slot, run in met.items():
        for apart in ("", "distrusted", "heard"):
            if (group(run), apart) in groups:
                groups[group(run), apart][0].add(slot)
    return list(groups.values())


def _apart(fact: Fact, hot: Set[str]) -> str:
    """What keeps a fact apart from others of its run."""
    if isinstance(fact, (Distrusted, Damaged)):
        return "distrusted"
    return "heard" if isinstance(fact, InboxRead) and fact.key[0] in hot else ""
