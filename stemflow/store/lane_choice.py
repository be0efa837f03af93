"""Whose turn it is: the best of what is ready, where rate limits make whole lanes of it wait.

A lane is what is ready in one queue under one set of limits. Where it is known to wait it stands behind one of its
limits, and a limit that admits nothing is shut until a known instant, with all that stands behind it. So a round looks
at what may start, and at no more, however many lanes and limits there are.
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
"""Orders entries over all lanes of a store: the highest priority first, then the first that became known."""


class Plain(Protocol[E_co]):
    """What is ready in one queue without limits."""

    def first(self) -> Rank | None: ...
    def take(self) -> E_co: ...


class Shelf(Protocol[E_co]):
    """The lanes of one queue, and where they stand: open, or behind a limit. Ranks of lanes may be too good."""

    def first(self) -> tuple[Rank, Lane] | None:
        """The best lane that is open, or stands behind a limit that is not shut."""
        ...

    def leave(self, lane: Lane) -> None:
        """It stands nowhere."""
        ...

    def stand(self, lane: Lane, rank: Rank, behind: Rate | None) -> None:
        """It stands open, or behind a limit."""
        ...

    def shut(self, limit: Rate, until_ms: int) -> None: ...

    def head(self, lane: Lane) -> Rank | None:
        """The rank of the best entry of a lane; None when there is none."""
        ...

    def take(self, lane: Lane) -> E_co:
        """The best entry, which is no longer ready."""
        ...


def choose(plains: Sequence[Plain[E]], shelves: Sequence[Shelf[E]], windows: Windows, limit: int) -> list[E]:
    """Up to `limit` entries, best first."""
    taken: list[E] = []
    if len(plains) == 1 and not shelves:
        (only,) = plains
        while len(taken) < limit and only.first() is not None:
            taken.append(only.take())
        return taken
    hand = _Hand[E]()
    while len(taken) < limit:
        plain = _best(plains, lambda one: one.first())
        shelf = _best(shelves, lambda one: (one.first() or (None,))[0])
        firsts = (_rank(plain), hand.first(), _rank(shelf))
        ranks = [(rank, place) for place, rank in enumerate(firsts) if rank is not None]
        if not ranks:
            break
        place = min(ranks)[1]
        if place == 0:
            assert plain is not None
            taken.append(plain[1].take())
        elif place == 1:
            taken += hand.try_first(windows)
        else:
            assert shelf is not None
            hand.lift(shelf[1])
    hand.put_back()
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


class _Hand(Generic[E]):
    """Lanes that were taken from their shelves, of which the best entries are tried."""

    def __init__(self) -> None:
        self._heap: list[tuple[Rank, int, Shelf[E], Lane]] = []
        self._number = count()

    def first(self) -> Rank | None:
        return self._heap[0][0] if self._heap else None

    def lift(self, shelf: Shelf[E]) -> None:
        found = shelf.first()
        assert found is not None
        rank, lane = found
        shelf.leave(lane)
        self._push(rank, shelf, lane)

    def try_first(self, windows: Windows) -> tuple[E, ...]:
        """The head of the best lane if it may start; else the lane stands behind the limit that keeps it longest."""
        rank, _, shelf, lane = heappop(self._heap)
        head = shelf.head(lane)
        if head is None:
            return ()
        if head > rank:
            self._push(head, shelf, lane)
            return ()
        if windows.admit(lane):
            entry = shelf.take(lane)
            following = shelf.head(lane)
            if following is not None:
                self._push(following, shelf, lane)
            return (entry,)
        limit, until_ms = windows.obstacle(lane)
        shelf.stand(lane, rank, limit)
        shelf.shut(limit, until_ms)
        return ()

    def put_back(self) -> None:
        for rank, _, shelf, lane in self._heap:
            shelf.stand(lane, rank, None)

    def _push(self, rank: Rank, shelf: Shelf[E], lane: Lane) -> None:
        heappush(self._heap, (rank, next(self._number), shelf, lane))


class Passing(Generic[E]):
    """The lanes of one run, gathered for one exchange: where lanes stand is not changed by it."""

    def __init__(self, lanes: dict[Lane, list[tuple[Rank, E]]]) -> None:
        """`lanes`: the entries of each, best last."""
        self._lanes = lanes
        self._here = {lane: entries[-1][0] for lane, entries in lanes.items() if entries}
        self.next_at_ms: int | None = None

    def first(self) -> tuple[Rank, Lane] | None:
        if not self._here:
            return None
        lane = min(self._here, key=lambda one: self._here[one])
        return self._here[lane], lane

    def leave(self, lane: Lane) -> None:
        del self._here[lane]

    def stand(self, lane: Lane, rank: Rank, behind: Rate | None) -> None:
        """Those that are put back stay where they always were."""

    def shut(self, limit: Rate, until_ms: int) -> None:
        self.next_at_ms = until_ms if self.next_at_ms is None else min(self.next_at_ms, until_ms)

    def head(self, lane: Lane) -> Rank | None:
        entries = self._lanes[lane]
        return entries[-1][0] if entries else None

    def take(self, lane: Lane) -> E:
        return self._lanes[lane].pop()[1]
