"""Admission of rate limited leaves within one exchange: one instant, each key's past starts read once."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from stemflow.core.limits import admissible, next_at_ms, remember
from stemflow.model.policy import RateLimit

Lane = tuple[RateLimit, ...]


class Windows:
    """Counts starts by the key of their limits; tasks that share a key share its past.

    `past(key)` answers the instants (ms, ascending) of the last starts under a key.
    """

    __slots__ = ("_keep", "_left", "_now_ms", "_past", "_read", "_started")

    def __init__(self, now_ms: int, past: Callable[[str], Sequence[int]]) -> None:
        self._now_ms = now_ms
        self._read = past
        self._past: dict[str, Sequence[int]] = {}
        self._left: dict[RateLimit, int] = {}
        self._started: dict[str, int] = {}
        self._keep: dict[str, int] = {}

    def admit(self, lane: Lane) -> bool:
        """Whether one more leaf may start now; if so, it has started."""
        if any(self._room(one) <= 0 for one in lane):
            return False
        keys = {one.key for one in lane}
        for known in self._left:
            if known.key in keys:
                self._left[known] -= 1
        for key in keys:
            self._started[key] = self._started.get(key, 0) + 1
        return True

    def room(self, lane: Lane) -> int:
        """How many leaves of this lane may start now, if no other lane takes their place."""
        return max(0, min(self._room(one) for one in lane))

    def next_at_ms(self, lane: Lane) -> int:
        """The first instant at which one more leaf of this lane may start."""
        return max(self._next(one) for one in lane)

    def span_ms(self, key: str) -> int:
        """The longest window of the limits under `key` that were asked about."""
        return max(one.per_ms for one in self._left if one.key == key)

    def starts(self) -> dict[str, list[int]]:
        """The new past of each key under which something started."""
        return {key: self._after(key, self._keep[key]) for key in self._started}

    def _room(self, one: RateLimit) -> int:
        left = self._left.get(one)
        if left is None:
            past = self._past_of(one.key)
            self._keep[one.key] = max(one.limit, len(past), self._keep.get(one.key, 0))
            left = admissible(past[-one.limit :], one.limit, one.per_ms, self._now_ms)
            left -= self._started.get(one.key, 0)
            self._left[one] = left
        return left

    def _next(self, one: RateLimit) -> int:
        return next_at_ms(self._after(one.key, one.limit), one.limit, one.per_ms, self._now_ms)

    def _past_of(self, key: str) -> Sequence[int]:
        past = self._past.get(key)
        if past is None:
            past = self._past[key] = self._read(key)
        return past

    def _after(self, key: str, keep: int) -> list[int]:
        # Sorted, because a wall clock that was set back may have put a later instant before an earlier one.
        return sorted(remember(self._past_of(key), keep, self._now_ms, self._started.get(key, 0)))
