"""Pruning: every worker deletes what is past its time, in small steps, so that nobody has to."""

from __future__ import annotations

import asyncio
import logging

from stemflow.store.base import Store, StoreError

log = logging.getLogger("stemflow.prune")

PRUNE_MS = 60_000
"""How often a worker looks for what is past its time."""
STEP = 1_000
"""Records deleted in one transaction; others get their turn between two."""


async def prune(store: Store) -> int:
    """Delete all that is past its time; answers how many records that were."""
    gone = 0
    while step := await store.prune(STEP):
        gone += step
        await asyncio.sleep(0)
    return gone


async def keep_pruned(store: Store) -> None:
    """Prune at once, then every minute."""
    while True:
        try:
            gone = await prune(store)
            if gone:
                log.info("deleted %d records that were past their time", gone)
        except StoreError as error:
            log.warning("what is past its time could not be deleted: %s", error)
        await asyncio.sleep(PRUNE_MS / 1_000)
