"""What is ready, delayed or timed, in heaps. An entry that is no longer true of its record is skipped at the top."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from heapq import heappop, heappush

from stemflow.model.facts import Due
from stemflow.model.records import READY, Key, Node, Record
from stemflow.store.base import TIMER_PAGE, Want
from stemflow.store.index_rules import level_of
from stemflow.store.lane_choice import LanesOfRun, choose
from stemflow.store.memory.lanes import Entry, MemoryLanes, Rank
from stemflow.store.rate_windows import Windows

_Delayed = tuple[int, int, Key, int]
"""(at_ms, order, key, rev)"""


class Queues:
    """By place: a heap of delayed leaves, heaps of ready leaves without limits by level, and lanes of those with
    limits."""

    __slots__ = ("_delayed", "_ready", "_lanes")

    def __init__(self) -> None:
        self._ready: dict[str, dict[int, list[Entry]]] = {}
        self._lanes: dict[str, MemoryLanes] = {}
        self._delayed: dict[str, list[_Delayed]] = {}

    def add(self, node: Node, place: str, order: int, now_ms: int) -> None:
        """A leaf became READY at a place."""
        if node.at_ms > now_ms:
            heappush(self._delayed.setdefault(place, []), (node.at_ms, order, node.key, node.rev))
            return
        entry = (-level_of(node), order, node.key, node.rev)
        if node.limits:
            self._lanes.setdefault(place, MemoryLanes()).add(node.limits, entry)
            return
        levels = self._ready.get(place)
        if levels is None:
            levels = self._ready[place] = {}
        heap = levels.get(entry[0])
        if heap is None:
            heap = levels[entry[0]] = []
        heappush(heap, entry)

    def take(
        self, want: Want, records: Mapping[Key, Record], windows: Windows, now_ms: int
    ) -> tuple[list[Node], int | None]:
        """Up to `want.limit` leaves, best first; and when a limit opens behind which others wait."""
        unlimited, limited = [], []
        named = self._accepted(want)
        for place in named:
            self._wake(place, records, now_ms)
            if levels := self._ready.get(place):
                unlimited.append(_Heaps(levels, records, want.only_run, now_ms))
            if lanes := self._lanes.get(place):
                lanes.look(records, now_ms)
                limited.append(lanes)
        if want.only_run is None:
            taken = choose(unlimited, limited, windows, want.limit, want.oldest)
            waits = [lanes.next_at_ms() for lanes in limited]
        else:
            passing: list[LanesOfRun[Node]] = [lanes.of_run(want.only_run, want.limit) for lanes in limited]
            taken = choose(unlimited, passing, windows, want.limit)
            waits = [one.next_at_ms for one in passing]
        for one in unlimited:
            one.restore()
        self._sweep(named)
        return taken, min((at_ms for at_ms in waits if at_ms is not None and want.limit), default=None)

    def places(self) -> Sequence[str]:
        """The places that may hold anything."""
        return tuple(dict.fromkeys((*self._ready, *self._lanes, *self._delayed)))

    def _accepted(self, want: Want) -> Sequence[str]:
        places = self.places()
        return places if want.accepts_all else [one for one in places if want.accepts(one)]

    def next_at_ms(self, want: Want, records: Mapping[Key, Record], now_ms: int) -> int | None:
        """When the first delayed leaf that is wanted may be leased."""
        instants = []
        for place in self._accepted(want):
            self._wake(place, records, now_ms)
            if delayed := self._delayed.get(place):
                instants.append(delayed[0][0])
        return min(instants, default=None)

    def _wake(self, place: str, records: Mapping[Key, Record], now_ms: int) -> None:
        """Move what is due, and drop what is stale, until the first delayed entry is true and in the future."""
        delayed = self._delayed.get(place)
        while delayed:
            at_ms, order, key, rev = delayed[0]
            node = records.get(key)
            live = node.__class__ is Node and node.rev == rev and node.state == READY
            if live and at_ms > now_ms:
                return
            heappop(delayed)
            if live:
                self.add(node, place, order, now_ms)  # type: ignore[arg-type]

    def _sweep(self, places: Sequence[str]) -> None:
        """Forget places that are empty."""
        for place in places:
            if place in self._ready and not self._ready[place]:
                del self._ready[place]
            if place in self._lanes and not self._lanes[place]:
                del self._lanes[place]
            if place in self._delayed and not self._delayed[place]:
                del self._delayed[place]


class _Heaps:
    """As `lane_choice.Unlimited`: the heaps of one place, within one exchange. Entries of other runs are put aside."""

    __slots__ = ("_aside", "_levels", "_now_ms", "_only_run", "_order", "_records")

    def __init__(
        self, levels: dict[int, list[Entry]], records: Mapping[Key, Record], only_run: str | None, now_ms: int
    ) -> None:
        self._levels, self._records, self._only_run, self._now_ms = levels, records, only_run, now_ms
        self._order = sorted(levels, reverse=True)
        """The levels that may hold an entry, the best last."""
        self._aside: list[Entry] = []

    def first(self) -> Rank | None:
        while self._order:
            found = self._head(self._order[-1])
            if found is not None:
                return found
            self._order.pop()
        return None

    def take(self) -> Node:
        return self._records[heappop(self._levels[self._order[-1]])[2]]  # type: ignore[return-value]

    def oldest(self) -> int | None:
        return min((head[1] for level in self._order if (head := self._head(level)) is not None), default=None)

    def take_oldest(self) -> Node:
        level = min((head[1], level) for level in self._order if (head := self._head(level)) is not None)[1]
        return self._records[heappop(self._levels[level])[2]]  # type: ignore[return-value]

    def _head(self, level: int) -> Rank | None:
        """Bring an entry to the top of a heap that is true, wanted and not expired."""
        heap = self._levels[level]
        while heap:
            entry = heap[0]
            node = self._records.get(entry[2])
            if node is not None and node.rev == entry[3] and node.state == READY:  # type: ignore[union-attr]
                if self._only_run is not None and entry[2][0] != self._only_run:
                    self._aside.append(entry)
                elif (expires := node.due_at_ms) is None or expires > self._now_ms:  # type: ignore[union-attr]
                    return entry[:2]
            heappop(heap)
        return None

    def restore(self) -> None:
        """Put back what was put aside, and forget levels that are empty."""
        for entry in self._aside:
            heappush(self._levels[entry[0]], entry)
        for level in [level for level, heap in self._levels.items() if not heap]:
            del self._levels[level]


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
