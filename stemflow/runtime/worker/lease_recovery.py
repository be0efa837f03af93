"""Recovery: every worker looks for leases that were lost, takes them over under a new token, and reports the loss."""

from __future__ import annotations

import asyncio
import logging

from stemflow.runtime.worker.worker import Worker
from stemflow.store.base import StoreError

log = logging.getLogger("stemflow.recovery")

SWEEP_MS = 1_000
BATCH = 200


async def sweep(worker: Worker) -> int:
    """One look; the number of leases that were found lost."""
    found = 0
    while True:
        leases = await worker.store.take_expired(worker.owner, BATCH)
        for lease in leases:
            worker.lost(lease)
        found += len(leases)
        if len(leases) < BATCH:
            return found


async def recover(worker: Worker, sweep_ms: int = SWEEP_MS) -> None:
    """Sweep at once, then every `sweep_ms`."""
    while True:
        try:
            found = await sweep(worker)
            if found:
                log.warning("leases that were lost and taken over: %d", found)
        except StoreError as error:
            log.warning("lost leases could not be looked for: %s", error)
        await asyncio.sleep(sweep_ms / 1_000)
