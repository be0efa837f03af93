"""Bounded caches of what never changes: recently used entries, and records of nodes that have ended."""

from __future__ import annotations

from itertools import islice
from typing import TypeVar

from stemflow.model.records import Key, Node

K = TypeVar("K")
V = TypeVar("V")

FINISHED_NODES, RESULT_BYTES = 10_000, 4_096
"""How many ended nodes are kept with their results, and the longest result that is kept, in bytes."""


class RecentlyUsed(dict[K, V]):
    """A dict that `use` keeps in order of use and below a number of entries; readers may take it for a plain dict.

    `limit`: entries kept. `evict`: how many of the oldest go at once. Removing them one by one from a large dict would
    skip over all entries that were removed before, each time.
    """

    def __init__(self, limit: int, evict: int = 1) -> None:
        super().__init__()
        self.limit, self.evict = limit, evict

    def use(self, key: K, value: V) -> None:
        """Add an entry, or mark it as used last."""
        self.pop(key, None)
        self[key] = value
        if len(self) > self.limit:
            for oldest in list(islice(self, self.evict)):
                del self[oldest]


class FinishedNodes:
    """Nodes that have ended, by run: their records never change, and the steps after them ask for their results.

    `enabled`: False keeps nothing, for stores whose records are signed and therefore verified at each read.
    """

    def __init__(self, enabled: bool = True) -> None:
        self._enabled = enabled
        self._runs: dict[str, dict[str, Node]] = {}
        self._size = 0

    def add(self, node: Node) -> None:
        """Keep a node that has ended, unless its result is too long."""
        if not self._enabled or (node.result is not None and len(node.result) > RESULT_BYTES):
            return
        nodes = self._runs.setdefault(node.run, {})
        self._size += node.path not in nodes
        nodes[node.path] = node
        if self._size > FINISHED_NODES:
            self._size -= len(self._runs.pop(next(iter(self._runs))))

    def get(self, key: Key) -> Node | None:
        """The node, if it is kept."""
        nodes = self._runs.get(key[0])
        return None if nodes is None else nodes.get(key[1])

    def drop_run(self, run: str) -> None:
        """Forget the nodes of a run."""
        self._size -= len(self._runs.pop(run, ()))

    def clear(self) -> None:
        """Forget everything: the store has lost data, so what had ended may not have ended any more."""
        self._runs.clear()
        self._size = 0
