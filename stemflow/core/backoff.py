"""The delay before the next attempt."""

from __future__ import annotations

import hashlib

from stemflow.model.policy import RetryPolicy


def delay_ms(policy: RetryPolicy, run: str, path: str, attempt: int) -> int:
    """The delay in milliseconds after attempt `attempt` (counted from 0) failed.

    The jitter is a digest of the node and the attempt, so the same facts lead to the same decision.
    """
    if policy.backoff == "fixed":
        capped = float(policy.initial_ms)  # `max` limits growing delays only
    elif policy.backoff == "linear":
        capped = min(policy.initial_ms + policy.initial_ms * policy.factor * attempt, float(policy.max_ms))
    else:
        capped = min(policy.initial_ms * policy.factor ** min(attempt, 64), float(policy.max_ms))
    return int(capped * (1.0 - policy.jitter * _share(run, path, attempt)))


def _share(run: str, path: str, attempt: int) -> float:
    digest = hashlib.blake2b(f"{run}/{path}/{attempt}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64
