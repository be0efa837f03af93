"""Background tasks that are started again when they fail."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

log = logging.getLogger("stemflow.supervised")

FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 30.0
STEADY_S = 60.0
"""A task that has worked for so long starts with the shortest pause again."""


async def supervised(
    name: str, work: Callable[[], Awaitable[None]], on_error: Callable[[BaseException], None] | None = None
) -> None:
    """Run `work()` until it is cancelled; start it again, after a growing pause, when it raises or returns.

    Each failure is logged at ERROR with its traceback, and given to `on_error`.
    """
    loop, pause = asyncio.get_running_loop(), FIRST_PAUSE_S
    while True:
        since = loop.time()
        try:
            await work()
            error: Exception = RuntimeError(f"{name} ended by itself")
        except Exception as raised:
            error = raised
        if loop.time() - since >= STEADY_S:
            pause = FIRST_PAUSE_S
        log.error("%s has failed; it starts again in %.1f s", name, pause, exc_info=error)
        if on_error is not None:
            on_error(error)
        await asyncio.sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE_S)
