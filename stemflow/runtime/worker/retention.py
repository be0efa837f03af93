"""Retention: every worker deletes expired records in small transactions."""

from __future__ import annotations

import asyncio
import logging

from stemflow.store.base import Store, StoreError

log = logging.getLogger("stemflow.prune")

PRUNE_MS = 60_000
"""How often a worker looks for expired records."""
STEP = 1_000
"""Records deleted in one transaction; other writers get their turn between two."""


async def prune(store: Store) -> int:
    """Delete all expired records; return how many. Raises StoreError."""
    deleted = 0
    while step := await store.prune(STEP):
        deleted += step
        await asyncio.sleep(0)
    return deleted


async def keep_pruned(store: Store) -> None:
    """Prune at once, then every PRUNE_MS, until cancelled. A store that fails is tried again."""
    while True:
        try:
            deleted = await prune(store)
            if deleted:
                log.info("deleted %d expired records", deleted)
        except StoreError as error:
            log.warning("could not delete expired records: %s", error)
        await asyncio.sleep(PRUNE_MS / 1_000)
