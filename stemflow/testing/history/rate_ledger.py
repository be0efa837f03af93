"""Records every start under a rate limit and checks invariant I7 directly from its definition."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from stemflow.model.rates import Rate


class Ledger:
    """The instants of all starts by key. Tasks with one key are assumed to have the same limits."""

    def __init__(self) -> None:
        self.starts: defaultdict[str, list[int]] = defaultdict(list)

    def start(self, limits: Iterable[Rate], now_ms: int) -> list[str]:
        """Record one start; returns descriptions of the limits that it violates."""
        limits = tuple(limits)
        for key in {one.key for one in limits}:
            self.starts[key].append(now_ms)
        return [text for one in limits if (text := self._broken(one, now_ms))]

    def _broken(self, one: Rate, now_ms: int) -> str | None:
        starts = self.starts[one.key]
        if not one.burst:
            count = sum(now_ms - one.per_ms < start <= now_ms for start in starts)
            text = f"{count} starts under {one.key} in {one.per_ms} ms, at most {one.limit} may be"
            return text if count > one.limit else None
        for first, start in enumerate(starts):
            count, ms = len(starts) - first, now_ms - start
            # Of `burst` at once and one for each space since; the clock cannot see into a millisecond.
            if (count - one.burst) * one.per_ms >= (ms + 1) * one.limit:
                pace = f"paced at {one.limit} in {one.per_ms} ms with {one.burst} at once"
                return f"{count} starts under {one.key} in {ms} ms, {pace}"
        return None
