"""The admission rules of rate limits: exact sliding windows over past starts, and even pacing by one instant."""

from __future__ import annotations

from collections.abc import Sequence

Tat = tuple[int, int]
"""The theoretical arrival time of pacing as (ms, parts): `ms + parts / limit`, so that no fraction is ever rounded."""


def admissible(starts: Sequence[int], limit: int, per_ms: int, now_ms: int) -> int:
    """How many may start now so that no window of `per_ms` holds more than `limit` starts.

    `starts` are the instants (epoch ms, ascending) of at most the last `limit` starts.
    """
    return limit - sum(1 for start in starts if start > now_ms - per_ms)


def next_at_ms(starts: Sequence[int], limit: int, per_ms: int, now_ms: int) -> int:
    """The first instant at which at least one more may start."""
    if admissible(starts, limit, per_ms, now_ms) > 0:
        return now_ms
    recent = [start for start in starts if start > now_ms - per_ms]
    return recent[len(recent) - limit] + per_ms


def remember(starts: Sequence[int], limit: int, now_ms: int, count: int) -> list[int]:
    """`starts` after `count` more at `now_ms`, trimmed to the last `limit`."""
    return [*starts, *([now_ms] * count)][-limit:] if limit else []


def paced(tat: Tat, limit: int, per_ms: int, burst: int, now_ms: int) -> int:
    """How many may start now, evenly spaced `per_ms / limit` apart, with up to `burst` at once after a pause.

    The generic cell rate algorithm as virtual scheduling (ITU-T I.371): a start conforms unless it comes more than
    `burst - 1` spaces before its theoretical arrival time. Less than a millisecond counts as none, else what the clock
    cannot tell apart would slow the pace down.
    """
    return burst - 1 - (_ahead(tat, limit, now_ms) - limit) // per_ms


def paced_at_ms(tat: Tat, limit: int, per_ms: int, burst: int, now_ms: int) -> int:
    """The first instant at which one more may start."""
    early = _ahead(tat, limit, now_ms) - (burst - 1) * per_ms
    return now_ms + max(0, early // limit)


def paced_after(tat: Tat, limit: int, per_ms: int, now_ms: int, count: int) -> Tat:
    """The theoretical arrival time after `count` starts at `now_ms`."""
    parts = _ahead(tat, limit, now_ms) + count * per_ms
    return now_ms + parts // limit, parts % limit


def _ahead(tat: Tat, limit: int, now_ms: int) -> int:
    """How far `tat` is in the future, in parts of a millisecond; 0 if it has passed."""
    return max(0, (tat[0] - now_ms) * limit + tat[1])
