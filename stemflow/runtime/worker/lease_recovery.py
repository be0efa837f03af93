"""Lease recovery: every worker looks for lost leases, takes them over and reports the loss."""

from __future__ import annotations

import asyncio
import logging

from stemflow.runtime.catalog.heartbeats import losers
from stemflow.runtime.worker.worker import Worker
from stemflow.store.base import StoreError

log = logging.getLogger("stemflow.recovery")

SWEEP_MS = 1_000
"""How often a worker looks for lost leases."""
BATCH = 200
"""Leases taken over in one transaction."""


async def sweep(worker: Worker) -> int:
    """Take over all leases that are lost now; return how many. Raises StoreError."""
    found = 0
    while True:
        leases = await worker.store.take_expired(worker.slots.owner, BATCH)
        for lease, loser in zip(leases, await losers(worker.store, leases), strict=True):
            worker.lost(lease, *loser)
        found += len(leases)
        if len(leases) < BATCH:
            return found


async def recover(worker: Worker, sweep_ms: int = SWEEP_MS) -> None:
    """Sweep at once, then every `sweep_ms` milliseconds, until cancelled. A store that fails is tried again."""
    while True:
        try:
            found = await sweep(worker)
            if found:
                log.warning("took over %d lost leases", found)
        except StoreError as error:
            log.warning("could not look for lost leases: %s", error)
        await asyncio.sleep(sweep_ms / 1_000)
