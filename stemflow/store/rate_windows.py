"""Admission of rate limited leaves within one exchange: one instant, each key's past read once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache

import msgspec
from msgspec import Struct

from stemflow.core.limits import Tat, admissible, next_at_ms, paced, paced_after, paced_at_ms, remember
from stemflow.model.rates import Rate
from stemflow.store.health import LaneInventory

Lane = tuple[Rate, ...]


@lru_cache(maxsize=16_384)
def lane_name(limits: Lane) -> str:
    """The name of a lane in a store's indexes; "" for leaves without limits."""
    return msgspec.json.encode(limits).decode() if limits else ""


@lru_cache(maxsize=16_384)
def lane_of(name: str) -> Lane:
    """The limits of the lane of this name."""
    return msgspec.json.decode(name, type=tuple[Rate, ...]) if name else ()


class Past(Struct, array_like=True):
    """What is remembered under a key: of the longest limit asked about its period, of the widest its number of starts.

    `starts`: the instants (ms, ascending) of the last `keep` starts; `tats`: (limit, per_ms, ms, parts) of each pace.
    """

    span_ms: int = 0
    keep: int = 0
    starts: list[int] = []
    tats: list[tuple[int, int, int, int]] = []


class Windows:
    """Counts starts by the key of their limits; tasks that share a key share its past.

    `past(key)` answers what is remembered under a key, None if nothing.
    """

    __slots__ = ("_keys", "_now_ms", "_past")

    def __init__(self, now_ms: int, past: Callable[[str], Past | None]) -> None:
        self._now_ms = now_ms
        self._past = past
        self._keys: dict[str, _Key] = {}

    def admit(self, lane: Lane) -> bool:
        """Whether one more leaf may start now; if so, it has started: all limits are checked, then all are taken."""
        for one in lane:
            self._key(one).know(one)
        if self.room(lane) <= 0:
            return False
        for key in {one.key for one in lane}:
            self._keys[key].start()
        return True

    def room(self, lane: Lane) -> int:
        """How many leaves of this lane may start now, if no other lane takes their place."""
        return max(0, min(self._key(one).room(one) for one in lane))

    def obstacle(self, lane: Lane) -> tuple[Rate, int]:
        """The limit that keeps this lane longest, and the first instant at which it admits one more."""
        at_ms = [self._key(one).next_at_ms(one) for one in lane]
        longest = max(range(len(lane)), key=at_ms.__getitem__)
        return lane[longest], at_ms[longest]

    def closed(self, lane: Lane) -> tuple[Rate, int] | None:
        """As `obstacle`, or None if a leaf of this lane may start now."""
        for one in lane:
            self._key(one).know(one)
        return None if not lane or self.room(lane) > 0 else self.obstacle(lane)

    def started(self) -> dict[str, Past]:
        """The new past of each key under which something started."""
        return {key: one.after() for key, one in self._keys.items() if one.started}

    def _key(self, one: Rate) -> _Key:
        found = self._keys.get(one.key)
        if found is None:
            found = self._keys[one.key] = _Key(self._past(one.key) or Past(), self._now_ms)
        return found


class _Key:
    """One key: its past, and what has started since under any of its limits."""

    __slots__ = ("keep", "left", "now_ms", "past", "span_ms", "started", "tats")

    def __init__(self, past: Past, now_ms: int) -> None:
        self.past, self.now_ms = past, now_ms
        self.keep, self.span_ms, self.started = past.keep, past.span_ms, 0
        self.tats: dict[tuple[int, int], Tat] = {(limit, per): (ms, parts) for limit, per, ms, parts in past.tats}
        self.left: dict[Rate, int] = {}

    def room(self, one: Rate) -> int:
        """How many more may start now under this limit."""
        left = self.left.get(one)
        if left is None:
            left = self.left[one] = self._admissible(one) - self.started
        return left

    def know(self, one: Rate) -> None:
        """Somebody wants to start under this limit, so that starts are remembered for it."""
        self.span_ms = max(self.span_ms, one.per_ms)
        if one.burst:
            self.tats.setdefault((one.limit, one.per_ms), (0, 0))
        else:
            self.keep = max(self.keep, one.limit)

    def start(self) -> None:
        """One start, which every limit of the key counts."""
        self.started += 1
        for known in self.left:
            self.left[known] -= 1

    def next_at_ms(self, one: Rate) -> int:
        if one.burst:
            tat = self._tat_after(one.limit, one.per_ms)
            return paced_at_ms(tat, one.limit, one.per_ms, one.burst, self.now_ms)
        return next_at_ms(self._starts_after(one.limit), one.limit, one.per_ms, self.now_ms)

    def after(self) -> Past:
        tats = [(*pace, *self._tat_after(*pace)) for pace in self.tats]
        return Past(self.span_ms, self.keep, self._starts_after(self.keep), tats)

    def _admissible(self, one: Rate) -> int:
        if one.burst:
            tat = self.tats.get((one.limit, one.per_ms), (0, 0))
            return paced(tat, one.limit, one.per_ms, one.burst, self.now_ms)
        return admissible(self.past.starts[-one.limit :], one.limit, one.per_ms, self.now_ms)

    def _tat_after(self, limit: int, per_ms: int) -> Tat:
        tat = self.tats[limit, per_ms]
        return paced_after(tat, limit, per_ms, self.now_ms, self.started) if self.started else tat

    def _starts_after(self, keep: int) -> list[int]:
        # Sorted, because a wall clock that was set back may have put a later instant before an earlier one.
        return sorted(remember(self.past.starts, keep, self.now_ms, self.started))


def lanes_of(counts: Mapping[Lane, int], windows: Windows) -> tuple[LaneInventory, ...]:
    """Lanes by the number of their ready leaves; those without limits are left out."""
    found = []
    for lane, ready in sorted(counts.items(), key=lambda pair: lane_name(pair[0])):
        if lane and ready:
            limit, admits_at_ms = windows.closed(lane) or (None, None)
            found.append(LaneInventory(limits=lane, ready=ready, limit=limit, admits_at_ms=admits_at_ms))
    return tuple(found)
