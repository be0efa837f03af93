"""Selects the next tasks to lease, by rank, while rate limits block whole lanes of what is ready.

A lane is what is ready in one queue under one set of limits. A lane that is known to wait is indexed under one of its
limits. A limit that admits nothing is blocked until a known instant, and with it all lanes that are indexed under it.
So the cost is proportional to the number of tasks that start, however many lanes and limits there are (ADR 36).
"""

from __future__ import annotations

from collections.abc import Sequence
from heapq import heappop, heappush
from itertools import count
from typing import Any, Generic, Protocol, TypeVar

from stemflow.model.rates import Rate
from stemflow.store.rate_windows import Lane, Windows

E = TypeVar("E")
E_co = TypeVar("E_co", covariant=True)
Rank = Any
"""Orders entries over all lanes of a store: the highest level first, then the first that became known."""


class Unlimited(Protocol[E_co]):
    """What is ready in one queue without limits."""

    def first(self) -> Rank | None: ...
    def take(self) -> E_co: ...

    def oldest(self) -> int | None:
        """When the entry that became known first did so, by its order; None when there is none."""
        ...

    def take_oldest(self) -> E_co: ...


class LaneIndex(Protocol[E_co]):
    """The lanes of one queue: each waits for nothing, or for a limit. The rank of a lane is a lower bound: its
    first entry may have left since."""

    def first(self) -> tuple[Rank, Lane] | None:
        """The best lane that waits for nothing, or for a limit that is not blocked."""
        ...

    def remove(self, lane: Lane) -> None:
        """Take a lane out of the index."""
        ...

    def put(self, lane: Lane, rank: Rank, blocked_by: Rate | None) -> None:
        """Index a lane under the limit that it waits for, or under none."""
        ...

    def block(self, limit: Rate, until_ms: int) -> None: ...

    def head(self, lane: Lane) -> Rank | None:
        """The rank of the best entry of a lane; None when there is none."""
        ...

    def take(self, lane: Lane) -> E_co:
        """The best entry, which is no longer ready."""
        ...


def choose(
    unlimited: Sequence[Unlimited[E]],
    limited: Sequence[LaneIndex[E]],
    windows: Windows,
    limit: int,
    oldest: int = 0,
) -> list[E]:
    """Up to `limit` entries: `oldest` of them by age (see `Want.oldest`), then the best."""
    taken: list[E] = []
    while len(taken) < min(oldest, limit) and (found := _best(unlimited, lambda one: one.oldest())) is not None:
        taken.append(found[1].take_oldest())
    if len(unlimited) == 1 and not limited:
        (only,) = unlimited
        while len(taken) < limit and only.first() is not None:
            taken.append(only.take())
        return taken
    candidates = _Candidates[E]()
    while len(taken) < limit:
        plain = _best(unlimited, lambda one: one.first())
        index = _best(limited, lambda one: (one.first() or (None,))[0])
        firsts = (_rank(plain), candidates.first(), _rank(index))
        ranks = [(rank, source) for source, rank in enumerate(firsts) if rank is not None]
        if not ranks:
            break
        source = min(ranks)[1]
        if source == 0:
            assert plain is not None
            taken.append(plain[1].take())
        elif source == 1:
            taken += candidates.try_first(windows)
        else:
            assert index is not None
            candidates.add_first_of(index[1])
    candidates.restore()
    return taken


S = TypeVar("S")


def _best(sources: Sequence[S], rank_of: Any) -> tuple[Rank, S] | None:
    found = [(rank, n) for n, one in enumerate(sources) if (rank := rank_of(one)) is not None]
    if not found:
        return None
    rank, n = min(found)
    return rank, sources[n]


def _rank(found: tuple[Rank, Any] | None) -> Rank | None:
    return None if found is None else found[0]


class _Candidates(Generic[E]):
    """Lanes that were taken from their index, of which the best entries are tried."""

    def __init__(self) -> None:
        self._heap: list[tuple[Rank, int, LaneIndex[E], Lane]] = []
        self._number = count()

    def first(self) -> Rank | None:
        return self._heap[0][0] if self._heap else None

    def add_first_of(self, index: LaneIndex[E]) -> None:
        found = index.first()
        assert found is not None
        rank, lane = found
        index.remove(lane)
        self._push(rank, index, lane)

    def try_first(self, windows: Windows) -> tuple[E, ...]:
        """The head of the best lane if it may start; else the lane waits for the limit that keeps it longest."""
        rank, _, index, lane = heappop(self._heap)
        head = index.head(lane)
        if head is None:
            return ()
        if head > rank:
            self._push(head, index, lane)
            return ()
        if windows.admit(lane):
            entry = index.take(lane)
            following = index.head(lane)
            if following is not None:
                self._push(following, index, lane)
            return (entry,)
        limit, until_ms = windows.obstacle(lane)
        index.put(lane, rank, limit)
        index.block(limit, until_ms)
        return ()

    def restore(self) -> None:
        for rank, _, index, lane in self._heap:
            index.put(lane, rank, None)

    def _push(self, rank: Rank, index: LaneIndex[E], lane: Lane) -> None:
        heappush(self._heap, (rank, next(self._number), index, lane))


class LanesOfRun(Generic[E]):
    """The lanes of one run, gathered for one exchange; the index of all lanes is not changed."""

    def __init__(self, lanes: dict[Lane, list[tuple[Rank, E]]]) -> None:
        """`lanes`: the entries of each, best last."""
        self._lanes = lanes
        self._ready = {lane: entries[-1][0] for lane, entries in lanes.items() if entries}
        self.next_at_ms: int | None = None

    def first(self) -> tuple[Rank, Lane] | None:
        if not self._ready:
            return None
        lane = min(self._ready, key=lambda one: self._ready[one])
        return self._ready[lane], lane

    def remove(self, lane: Lane) -> None:
        del self._ready[lane]

    def put(self, lane: Lane, rank: Rank, blocked_by: Rate | None) -> None:
        """The index of all lanes has not changed."""

    def block(self, limit: Rate, until_ms: int) -> None:
        self.next_at_ms = until_ms if self.next_at_ms is None else min(self.next_at_ms, until_ms)

    def head(self, lane: Lane) -> Rank | None:
        entries = self._lanes[lane]
        return entries[-1][0] if entries else None

    def take(self, lane: Lane) -> E:
        return self._lanes[lane].pop()[1]
