"""Asking a rate limiter that was plugged into the registry, before a task with rate limits starts."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Final

from stemflow.core.rates import group_key, is_late
from stemflow.errors import StemflowError
from stemflow.model.plan import LeafPlan
from stemflow.model.policy import Options
from stemflow.model.rates import RateLimit
from stemflow.model.records import Node, task_id
from stemflow.runtime.payloads.headers import merged
from stemflow.runtime.tasks.rate_limiter import RateLimiter
from stemflow.runtime.values.binding import Binder, rate_keys
from stemflow.runtime.values.resolver import Values

log = logging.getLogger("stemflow.worker")

ANSWER_TIMEOUT_S: Final = 1.0
"""How long a limiter may take before it counts as failed."""
CLOSED_DELAY_MS: Final = 1_000
"""How long a task is handed back for when its limiter failed and the failure mode is `closed`."""


def asks_limiter(options: Options) -> bool:
    """Whether tasks with these options may have a limiter of their registry to ask."""
    return options.group_key is not None or bool(options.group_rates) or bool(options.rate_limits)


async def rate_delay_ms(
    limiter: RateLimiter | None, values: Values, binder: Binder, node: Node, leaf: LeafPlan, options: Options
) -> int | None:
    """None if the task may start now, else the milliseconds after which to ask again.

    Without a limiter the limits in the store decide; a group without those and without a limiter is treated as one
    whose limiter failed. A limiter that raises, or does not answer in time, is logged, and the task starts or waits as
    `group_rate_limiter_failure_mode` says.
    """
    grouped = options.group_key is not None or bool(options.group_rates)
    if limiter is None and (options.group_rates or not grouped):
        return None
    try:
        limits: dict[str, list[RateLimit]] = {}
        for rate in node.limits[: len(options.rate_limits)]:
            limits.setdefault(rate.key, []).append(RateLimit.shown(rate))
        if grouped:
            key = await _group_key(values, binder, node, leaf, options)
            limits[key] = [RateLimit.shown(one) for one in options.group_rates]
        for key, under in limits.items():
            delay_ms = _delay_ms(limiter, await _answer(limiter, key, under))
            if delay_ms is not None:
                return delay_ms
        return None
    except Exception as error:
        is_open = options.group_failure == "open"
        then = "it starts all the same" if is_open else f"it is handed back for {CLOSED_DELAY_MS} ms"
        log.warning("task %s: its rate limiter failed (%s: %s); %s (group_rate_limiter_failure_mode=%s)",
                    task_id(node.key), type(error).__name__, error, then, options.group_failure)  # fmt: skip
        return None if is_open else CLOSED_DELAY_MS


async def _answer(limiter: RateLimiter | None, key: str, limits: Sequence[RateLimit]) -> float | None:
    """The limiter's answer. A call that does not end although it is cancelled is abandoned."""
    if limiter is None:
        raise StemflowError("none is registered; give the registry a rate_limiter, or the task a group_rate_limit")
    call = asyncio.ensure_future(limiter.acquire(key, limits))
    try:
        done, _ = await asyncio.wait((call,), timeout=ANSWER_TIMEOUT_S)
    finally:
        call.cancel()
    if not done:
        raise TimeoutError(f"it did not answer within {ANSWER_TIMEOUT_S:g} s")
    return call.result()


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
