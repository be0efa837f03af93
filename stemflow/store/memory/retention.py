"""What the store in memory keeps for a time: dead letters, ended runs, the plans that runs use."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator
from heapq import heappop, heappush

from stemflow.model.effects import DeadLetter
from stemflow.model.plan import Plan
from stemflow.model.records import CANCELLED, FAILED, Key, Node
from stemflow.store.base import DeadLetterFilter


class DeadLetters:
    """Dead letters by (run, path), in the order in which they were written."""

    __slots__ = ("_letters", "_paths")

    def __init__(self) -> None:
        self._letters: dict[Key, DeadLetter] = {}
        self._paths: dict[str, set[str]] = {}

    def add(self, letters: Iterable[DeadLetter]) -> None:
        for letter in letters:
            self._letters.setdefault(letter.key, letter)
            self._paths.setdefault(letter.run, set()).add(letter.path)

    def drop(self, keys: Iterable[Key]) -> int:
        return sum(self._drop(key) for key in keys)

    def _drop(self, key: Key) -> bool:
        if self._letters.pop(key, None) is None:
            return False
        paths = self._paths[key[0]]
        paths.remove(key[1])
        if not paths:
            del self._paths[key[0]]
        return True

    def drop_run(self, run: str) -> None:
        self.drop([(run, path) for path in self._paths.get(run, ())])

    def until_ms(self, run: str) -> int:
        """When the last one of a run expires."""
        return max((_until_ms(self._letters[(run, path)]) for path in self._paths.get(run, ())), default=0)

    def fitting(self, run: str | None, which: DeadLetterFilter, now_ms: int) -> list[DeadLetter]:
        of_run = [one for one in reversed(self._letters.values()) if run is None or one.run == run]
        alive = [one for one in of_run if _until_ms(one) > now_ms and which.fit(one)]
        return sorted(alive, key=lambda one: -one.at_ms)[: which.limit]

    def past(self, now_ms: int, limit: int) -> list[Key]:
        return [key for key, one in self._letters.items() if _until_ms(one) <= now_ms][:limit]


def _until_ms(letter: DeadLetter) -> int:
    return letter.at_ms + letter.keep_ms


class BadlyEnded:
    """Runs that failed or were cancelled, in the order in which they were created."""

    __slots__ = ("_by_order", "_of_run")

    def __init__(self) -> None:
        self._by_order: dict[str, list[tuple[int, str]]] = {FAILED: [], CANCELLED: []}
        self._of_run: dict[str, tuple[str, int]] = {}

    def add(self, root: Node, order: int) -> None:
        """Note how a run ended; `order` is the number of its root."""
        if root.state in self._by_order and root.run not in self._of_run:
            insort(self._by_order[root.state], (order, root.run))
            self._of_run[root.run] = (root.state, order)

    def of(self, state: str, before: int | None) -> Iterator[str]:
        """Those that ended in this state, the newest first, of those created before the one of this number."""
        found = self._by_order[state]
        at = len(found) if before is None else bisect_left(found, (before, ""))
        return (found[i][1] for i in range(at - 1, -1, -1))

    def drop(self, run: str) -> None:
        """Forget a run."""
        if run in self._of_run:
            state, order = self._of_run.pop(run)
            found = self._by_order[state]
            del found[bisect_left(found, (order, run))]


class Ends:
    """Ended runs by the instant at which they expire."""

    __slots__ = ("_heap", "_until")

    def __init__(self) -> None:
        self._until: dict[str, int] = {}
        self._heap: list[tuple[int, str]] = []

    def set(self, run: str, until_ms: int) -> None:
        self._until[run] = until_ms
        heappush(self._heap, (until_ms, run))

    def forget(self, run: str) -> None:
        self._until.pop(run, None)

    def count(self, now_ms: int) -> int:
        """The number of runs that have expired."""
        return sum(until_ms <= now_ms for until_ms in self._until.values())

    def next(self, now_ms: int) -> str | None:
        """An expired run, the one that expired first."""
        heap = self._heap
        while heap and (heap[0][0] <= now_ms or self._until.get(heap[0][1]) != heap[0][0]):
            until_ms, run = heap[0]
            if self._until.get(run) == until_ms:
                return run
            heappop(heap)
        return None


class Plans:
    """Plans by digest, each as long as a run uses it."""

    __slots__ = ("_plans", "_runs", "_used")

    def __init__(self) -> None:
        self._plans: dict[str, Plan] = {}
        self._runs: dict[str, set[str]] = {}
        self._used: dict[str, set[str]] = {}

    def add(self, plan: Plan) -> None:
        self._plans.setdefault(plan.digest, plan)

    def get(self, digest: str) -> Plan | None:
        return self._plans.get(digest)

    def use(self, run: str, digest: str) -> None:
        self._runs.setdefault(digest, set()).add(run)
        self._used.setdefault(run, set()).add(digest)

    def drop_run(self, run: str) -> None:
        for digest in self._used.pop(run, ()):
            self._runs[digest].discard(run)
            if not self._runs[digest]:
                del self._runs[digest]
                self._plans.pop(digest, None)
