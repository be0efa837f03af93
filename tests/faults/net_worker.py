"""A process with workers for tests of faults: `python -m tests.faults.net_worker URL WITNESS ENGINES CONCURRENCY`.

It says `ready`, and ends when its input does.
"""

from __future__ import annotations

import asyncio
import sys
import time
from contextlib import AsyncExitStack
from pathlib import Path

from stemflow import Stemflow, TaskContext, TaskRegistry
from stemflow.runtime.clock import SystemClock
from stemflow.store.open import open_store
from stemflow.testing.history.witness import Witness


def registry_of(witness: Witness) -> TaskRegistry:
    """The tasks of these tests; each is seen by `witness`."""
    registry = TaskRegistry()

    @registry.task("until", max_retries=0)
    async def until(context: TaskContext, value: int, at_ns: int) -> int:
        """Ends at an instant of the machine's monotonic clock."""
        with witness.sees(context):
            await asyncio.sleep(max(0.0, (at_ns - time.monotonic_ns()) / 1e9))
            return value

    @registry.task("total", max_retries=0)
    async def total(context: TaskContext, values: list[int]) -> int:
        with witness.sees(context):
            return sum(values)

    @registry.task("hold", max_retries=0, unique=True, unique_by="the key", visibility_timeout="1s")
    async def hold(context: TaskContext, seconds: float) -> float:
        """Holds a unique key."""
        with witness.sees(context):
            await asyncio.sleep(seconds)
            return seconds

    return registry


async def main(url: str, path: str, engines: int, concurrency: int) -> None:
    witness = Witness(Path(path))
    registry = registry_of(witness)
    async with AsyncExitStack() as opened:
        for _ in range(engines):
            store = witness.watching(open_store(url, SystemClock()))
            await opened.enter_async_context(Stemflow(url, registry, store=store, concurrency=concurrency))
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))
