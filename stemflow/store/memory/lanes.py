"""The rate limited lanes of one queue in memory."""

from __future__ import annotations

from collections.abc import Mapping
from heapq import heappop, heappush
from itertools import count
from typing import Generic, TypeVar

from stemflow.model.rates import Rate
from stemflow.model.records import READY, Key, Node, Record
from stemflow.store.lane_choice import LanesOfRun
from stemflow.store.rate_windows import Lane

T = TypeVar("T")
Rank = tuple[int, int]
"""(-level, order)"""
Entry = tuple[int, int, Key, int]
"""(-level, order, key, rev) of a leaf that became ready; one that is no longer true of its record is dropped."""


class Ranked(Generic[T]):
    """Items by rank; what was moved or dropped is skipped when it comes to the top."""

    def __init__(self) -> None:
        self._heap: list[tuple[Rank, int, T]] = []
        self._ranks: dict[T, Rank] = {}
        self._number = count()

    def put(self, item: T, rank: Rank) -> None:
        if self._ranks.get(item) != rank:
            self._ranks[item] = rank
            heappush(self._heap, (rank, next(self._number), item))

    def drop(self, item: T) -> None:
        self._ranks.pop(item, None)

    def first(self) -> tuple[Rank, T] | None:
        heap = self._heap
        while heap and self._ranks.get(heap[0][2]) != heap[0][0]:
            heappop(heap)
        return (heap[0][0], heap[0][2]) if heap else None

    def __contains__(self, item: object) -> bool:
        return item in self._ranks

    def rank(self, item: T) -> Rank:
        return self._ranks[item]


class MemoryLanes:
    """As `lane_choice.LaneIndex`; the entries of a lane are a heap."""

    def __init__(self) -> None:
        self._heaps: dict[Lane, list[Entry]] = {}
        self._blocked_by: dict[Lane, Rate | None] = {}
        self._open = Ranked[Lane | Rate]()
        self._waiting_for: dict[Rate, Ranked[Lane]] = {}
        self._until: dict[Rate, int] = {}
        self._due: list[tuple[int, int, Rate]] = []
        self._number = count()
        self._records: Mapping[Key, Record] = {}
        self._now_ms = 0

    def __bool__(self) -> bool:
        return bool(self._heaps)

    def add(self, lane: Lane, entry: Entry) -> None:
        """A leaf became ready."""
        heap = self._heaps.setdefault(lane, [])
        heappush(heap, entry)
        if lane not in self._blocked_by:
            self.put(lane, entry[:2], None)
        else:
            self._better(lane, entry[:2])

    def look(self, records: Mapping[Key, Record], now_ms: int) -> None:
        """Open the limits whose instant has come."""
        self._records, self._now_ms = records, now_ms
        while self._due and self._due[0][0] <= now_ms:
            at_ms, _, limit = heappop(self._due)
            if self._until.get(limit) == at_ms:
                del self._until[limit]
                self._show(limit)

    def next_at_ms(self) -> int | None:
        """When the first limit that is blocked opens."""
        while self._due and self._until.get(self._due[0][2]) != self._due[0][0]:
            heappop(self._due)
        return self._due[0][0] if self._due else None

    def of_run(self, run: str, limit: int) -> LanesOfRun[Node]:
        """The lanes of one run, each with its best entries."""
        lanes: dict[Lane, list[tuple[Rank, Node]]] = {}
        for lane, heap in self._heaps.items():
            mine = sorted(entry for entry in heap if entry[2][0] == run)
            entries = [(entry[:2], node) for entry in mine if (node := self._node(entry)) is not None]
            lanes[lane] = entries[:limit][::-1]
        return LanesOfRun(lanes)

    # -- as lane_choice.LaneIndex

    def first(self) -> tuple[Rank, Lane] | None:
        found = self._open.first()
        if found is None or isinstance(found[1], tuple):
            return found  # type: ignore[return-value]
        return self._waiting_for[found[1]].first()

    def remove(self, lane: Lane) -> None:
        limit = self._blocked_by.pop(lane)
        if limit is None:
            self._open.drop(lane)
            return
        self._waiting_for[limit].drop(lane)
        if limit not in self._until:
            self._show(limit)

    def put(self, lane: Lane, rank: Rank, blocked_by: Rate | None) -> None:
        self._blocked_by[lane] = blocked_by
        if blocked_by is None:
            self._open.put(lane, rank)
        else:
            self._waiting_for.setdefault(blocked_by, Ranked()).put(lane, rank)

    def block(self, limit: Rate, until_ms: int) -> None:
        self._open.drop(limit)
        self._until[limit] = until_ms
        heappush(self._due, (until_ms, next(self._number), limit))

    def head(self, lane: Lane) -> Rank | None:
        heap = self._heaps[lane]
        while heap:
            if self._node(heap[0]) is not None:
                return heap[0][:2]
            heappop(heap)
        del self._heaps[lane]
        return None

    def take(self, lane: Lane) -> Node:
        node = self._node(heappop(self._heaps[lane]))
        assert node is not None
        return node

    def _node(self, entry: Entry) -> Node | None:
        """The leaf, if it is still ready and has not expired."""
        node = self._records.get(entry[2])
        if not isinstance(node, Node) or node.rev != entry[3] or node.state != READY:
            return None
        return node if node.due_at_ms is None or node.due_at_ms > self._now_ms else None

    def _better(self, lane: Lane, rank: Rank) -> None:
        limit = self._blocked_by[lane]
        among: Ranked[Lane] | Ranked[Lane | Rate] = self._open if limit is None else self._waiting_for[limit]
        if rank < among.rank(lane):
            among.put(lane, rank)
            if limit is not None and limit not in self._until:
                self._show(limit)

    def _show(self, limit: Rate) -> None:
        """Rank a limit that is not blocked as the best of the lanes that wait for it."""
        best = self._waiting_for[limit].first()
        if best is None:
            self._open.drop(limit)
            del self._waiting_for[limit]
        else:
            self._open.put(limit, best[0])
