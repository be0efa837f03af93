"""Heaps of what is ready, delayed or timed. An entry that is no longer true of its record is skipped at the top."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from heapq import heappop, heappush

from stemflow.model.facts import Due
from stemflow.model.records import READY, Key, Node, Record
from stemflow.store.base import TIMER_PAGE, Want
from stemflow.store.windows import Lane, Windows

_Ready = tuple[int, int, Key, int]
"""(-priority, order, key, rev)"""
_Delayed = tuple[int, int, Key, int]
"""(at_ms, order, key, rev)"""


class Queues:
    """By queue: a heap of delayed leaves, and one heap of ready leaves for each lane."""

    __slots__ = ("_delayed", "_ready")

    def __init__(self) -> None:
        self._ready: dict[str, dict[Lane, list[_Ready]]] = {}
        self._delayed: dict[str, list[_Delayed]] = {}

    def add(self, node: Node, order: int, now_ms: int) -> None:
        """A leaf became READY."""
        if node.at_ms > now_ms:
            heappush(self._delayed.setdefault(node.queue, []), (node.at_ms, order, node.key, node.rev))
            return
        lanes = self._ready.get(node.queue)
        if lanes is None:
            lanes = self._ready[node.queue] = {}
        heap = lanes.get(node.limits)
        if heap is None:
            heap = lanes[node.limits] = []
        heappush(heap, (-node.priority, order, node.key, node.rev))

    def take(
        self, want: Want, records: Mapping[Key, Record], windows: Windows, now_ms: int
    ) -> tuple[list[Node], int | None]:
        """Up to `want.limit` leaves, best first; and when a lane that had to wait may go on."""
        heaps: list[tuple[Lane, list[_Ready]]] = []
        for queue in self._named(want.queues):
            self._wake(queue, records, now_ms)
            heaps += self._ready.get(queue, {}).items()
        taken: list[Node] = []
        aside: list[tuple[list[_Ready], _Ready]] = []
        waits: list[int] = []
        heaps = [pair for pair in heaps if _surface(pair[1], records, want.only_run, aside, now_ms)]
        while heaps and len(taken) < want.limit:
            pair = heaps[0] if len(heaps) == 1 else min(heaps, key=_head)
            lane, heap = pair
            if lane and not windows.admit(lane):
                waits.append(windows.next_at_ms(lane))
                heaps.remove(pair)
                continue
            taken.append(records[heappop(heap)[2]])  # type: ignore[arg-type]
            if not _surface(heap, records, want.only_run, aside, now_ms):
                heaps.remove(pair)
        for heap, entry in aside:
            heappush(heap, entry)
        self._sweep(self._named(want.queues))
        return taken, min(waits, default=None)

    def _named(self, queues: Sequence[str] | None) -> Sequence[str]:
        """All queues where none is named."""
        return tuple(dict.fromkeys((*self._ready, *self._delayed))) if queues is None else queues

    def next_at_ms(self, queues: Sequence[str] | None, records: Mapping[Key, Record], now_ms: int) -> int | None:
        """When the first delayed leaf of these queues may be leased."""
        instants = []
        for queue in self._named(queues):
            self._wake(queue, records, now_ms)
            if delayed := self._delayed.get(queue):
                instants.append(delayed[0][0])
        return min(instants, default=None)

    def _wake(self, queue: str, records: Mapping[Key, Record], now_ms: int) -> None:
        """Move what is due, and drop what is stale, until the first delayed entry is true and in the future."""
        delayed = self._delayed.get(queue)
        while delayed:
            at_ms, order, key, rev = delayed[0]
            node = records.get(key)
            live = node.__class__ is Node and node.rev == rev and node.state == READY
            if live and at_ms > now_ms:
                return
            heappop(delayed)
            if live:
                self.add(node, order, now_ms)  # type: ignore[arg-type]

    def _sweep(self, queues: Sequence[str]) -> None:
        """Forget lanes that are empty."""
        for queue in queues:
            lanes = self._ready.get(queue)
            if lanes is not None and not all(lanes.values()):
                self._ready[queue] = {lane: heap for lane, heap in lanes.items() if heap}


class Timers:
    """The instants of timers: a heap of those to come, and those that are due and not yet moved."""

    __slots__ = ("_at", "_due", "_heap")

    def __init__(self) -> None:
        self._at: dict[Key, int] = {}
        self._heap: list[tuple[int, Key]] = []
        self._due: dict[Key, int] = {}

    def __contains__(self, key: Key) -> bool:
        return key in self._at

    def set(self, key: Key, at_ms: int | None) -> None:
        """Set, move or drop (None) the timer of a node."""
        if self._at.get(key) == at_ms:
            return
        self._due.pop(key, None)
        if at_ms is None:
            del self._at[key]
        else:
            self._at[key] = at_ms
            heappush(self._heap, (at_ms, key))

    def overdue_since_ms(self, now_ms: int) -> int | None:
        """The instant of the first timer that is due."""
        return min((at_ms for at_ms in self._at.values() if at_ms <= now_ms), default=None)

    def due(self, only_run: str | None, now_ms: int) -> tuple[tuple[Due, ...], int | None]:
        """A page of timers that are due, and the instant of the next one to come."""
        heap = self._heap
        while heap and (self._at.get(heap[0][1]) != heap[0][0] or heap[0][0] <= now_ms):
            at_ms, key = heappop(heap)
            if self._at.get(key) == at_ms:
                self._due[key] = at_ms
        next_at_ms = heap[0][0] if heap else None
        if not self._due:
            return (), next_at_ms
        found = [(at_ms, key) for key, at_ms in self._due.items() if only_run is None or key[0] == only_run]
        page = tuple(Due(key, at_ms) for at_ms, key in sorted(found)[:TIMER_PAGE])
        return page, now_ms if len(found) > TIMER_PAGE else next_at_ms


def _head(pair: tuple[Lane, list[_Ready]]) -> _Ready:
    return pair[1][0]


def _surface(
    heap: list[_Ready],
    records: Mapping[Key, Record],
    only_run: str | None,
    aside: list[tuple[list[_Ready], _Ready]],
    now_ms: int,
) -> bool:
    """Bring an entry to the top that is true, wanted and not expired; False when there is none."""
    while heap:
        entry = heap[0]
        node = records.get(entry[2])
        if node is not None and node.rev == entry[3] and node.state == READY:  # type: ignore[union-attr]
            expires = node.due_at_ms  # type: ignore[union-attr]
            if (only_run is None or entry[2][0] == only_run) and (expires is None or expires > now_ms):
                return True
            aside.append((heap, entry))
        heappop(heap)
    return False
