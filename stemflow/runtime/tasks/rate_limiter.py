"""The interface of a rate limiter that a registry brings, instead of the limits that the store enforces."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Protocol

from stemflow.errors import OptionError
from stemflow.model.rates import RateLimit


class RateLimiter(Protocol):
    """Decides outside the store whether a task may start.

    Workers ask it before they start a task that has `rate_limit`, `group_rate_limit` or `group_rate_key`, once for each
    key:

        class Budget:
            async def acquire(self, key, limits):
                return None if await self.take(key) else 0.5  # ask again in half a second

        registry = TaskRegistry(rate_limiter=Budget())
    """

    async def acquire(self, key: str, limits: Sequence[RateLimit]) -> float | None:
        """Return None if one task may start now under `key`, else the seconds after which to ask again.

        `limits`: those of the task under this key; none for a `group_rate_key` without a limit. A call that raises, or
        takes longer than a second, counts as failed: `group_rate_limiter_failure_mode` of the task decides.
        """
        ...


def checked_limiter(limiter: RateLimiter | None) -> RateLimiter | None:
    """Return the limiter as given; raises OptionError if it has no async method `acquire`."""
    if limiter is not None and not inspect.iscoroutinefunction(getattr(limiter, "acquire", None)):
        raise OptionError(
            f"registry: rate_limiter: expected an object with `async def acquire(self, key, limits)`, got {limiter!r}"
        )
    return limiter
