"""Waiting for runs inside a handler, which holds no slot of its worker meanwhile."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from stemflow.runtime.tasks.context import current_context


@asynccontextmanager
async def slot_released() -> AsyncIterator[None]:
    """Give the slot of the handler that runs here back, until it is left; outside of handlers nothing happens."""
    context = current_context()
    if context is None:
        yield
        return
    services = context._services
    await services.release_slot(context)
    try:
        yield
    except BaseException:
        await services.retake_slot(context, True)
        raise
    await services.retake_slot(context, False)
