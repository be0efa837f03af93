"""A rate limiter of one's own, which a worker asks before it starts a task of a group."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Sequence
from typing import Final, Protocol

from stemflow.core.rates import group_key, is_late
from stemflow.errors import OptionError, StemflowError
from stemflow.model.plan import LeafPlan
from stemflow.model.policy import Options
from stemflow.model.rates import RateLimit
from stemflow.model.records import Node, task_id
from stemflow.runtime.payloads.headers import merged
from stemflow.runtime.values.binding import Binder, rate_keys
from stemflow.runtime.values.resolver import Values

log = logging.getLogger("stemflow.worker")

PATIENCE_S: Final = 1.0
"""How long a limiter may think before it counts as one that fails."""
CLOSED_MS: Final = 1_000
"""For how long a task is handed back that fails closed."""


class RateLimiter(Protocol):
    """Decides outside the store whether a task of a group may start: `TaskRegistry(rate_limiter=...)`."""

    async def acquire(self, key: str, limits: Sequence[RateLimit]) -> float | None:
        """None: one task may start now under `key`; else in how many seconds to ask again.

        `limits`: what `group_rate_limit` says, if anything. To raise, or not to answer within a second, is to fail.
        """
        ...


def checked_limiter(given: RateLimiter | None) -> RateLimiter | None:
    """The limiter as given; raises OptionError."""
    if given is not None and not inspect.iscoroutinefunction(getattr(given, "acquire", None)):
        raise OptionError(
            f"registry: rate_limiter: expected an object with `async def acquire(self, key, limits)`, got {given!r}"
        )
    return given


async def refused_ms(
    limiter: RateLimiter | None, values: Values, binder: Binder, node: Node, leaf: LeafPlan, options: Options
) -> int | None:
    """None when the task may start, else for how many ms it is to be handed back.

    Without a limiter the store's own limits are enough; a group that has none of those is one whose limiter fails.
    """
    if options.group_key is None and not options.group_rates:
        return None
    if limiter is None and options.group_rates:
        return None
    try:
        key = await _group_key(values, binder, node, leaf, options)
        return _delay_ms(limiter, await _asked(limiter, key, [RateLimit.shown(one) for one in options.group_rates]))
    except Exception as error:
        is_open = options.group_failure == "open"
        then = "it starts all the same" if is_open else f"it is handed back for {CLOSED_MS} ms"
        log.warning("task %s: its rate limiter failed (%s: %s); %s (group_rate_limiter_failure_mode=%s)",
                    task_id(node.key), type(error).__name__, error, then, options.group_failure)  # fmt: skip
        return None if is_open else CLOSED_MS


async def _asked(limiter: RateLimiter | None, key: str, limits: Sequence[RateLimit]) -> float | None:
    """The limiter's answer. One that does not end although it is cancelled is left behind."""
    if limiter is None:
        raise StemflowError("there is none here; give the registry one, or the task a group_rate_limit")
    asking = asyncio.ensure_future(limiter.acquire(key, limits))
    try:
        done, _ = await asyncio.wait((asking,), timeout=PATIENCE_S)
    finally:
        asking.cancel()
    if not done:
        raise TimeoutError(f"it did not answer within {PATIENCE_S:g} s")
    return asking.result()


def _delay_ms(limiter: object, answer: float | None) -> int | None:
    if answer is None:
        return None
    if isinstance(answer, bool) or not isinstance(answer, (int, float)) or not 0 <= answer < float("inf"):
        raise StemflowError(f"{type(limiter).__name__}.acquire: expected None or seconds from 0, got {answer!r}")
    return max(1, round(answer * 1_000))


async def _group_key(values: Values, binder: Binder, node: Node, leaf: LeafPlan, options: Options) -> str:
    if options.group_rates:
        return node.limits[-1].key
    given = (await rate_keys(values, binder, node, leaf, options))[-1] if is_late(options) else options.group_key or ""
    return group_key(given, options, merged((await values.library.header(node.run)).headers, leaf.headers))
