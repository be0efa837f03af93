"""The admission rule of rate limits: exact sliding windows over the instants of past starts."""

from __future__ import annotations

from collections.abc import Sequence


def admissible(starts: Sequence[int], limit: int, per_ms: int, now_ms: int) -> int:
    """How many may start now so that no window of `per_ms` holds more than `limit` starts.

    `starts` are the instants (ms, ascending) of the last `limit` starts at most.
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
    return [*starts, *([now_ms] * count)][-limit:]
