"""What the programs here share: the no-op tasks, a store in a new folder, a bare queue, and how a series is printed."""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from stemflow import TaskRegistry
from stemflow.testing.servers.executables import server_binaries
from stemflow.testing.servers.server import Server

CONSUMERS = 100

registry = TaskRegistry()


@registry.task("noop")
async def noop() -> None:
    return None


@registry.task("same")
async def same(value: int) -> int:
    return value


@contextmanager
def store_url(kind: str) -> Iterator[str]:
    """The URL of an empty store of this kind: memory, sqlite or redis, which starts a server."""
    with tempfile.TemporaryDirectory() as folder:
        if kind == "redis":
            with Server(next(iter(server_binaries().values())), Path(folder)) as server:
                yield server.url
            return
        yield "memory:" if kind == "memory" else f"sqlite:{Path(folder) / 'runs.db'}"


async def bare_queue(count: int, *, tasks: bool = True) -> float:
    """Items a second through an asyncio queue with CONSUMERS consumers; with `tasks` each handler is an asyncio task.

    With tasks it is the base of the ratios: the engine, too, gives each handler a task of its own.
    """
    queue: asyncio.Queue[int] = asyncio.Queue()
    for i in range(count):
        queue.put_nowait(i)

    async def consume() -> None:
        while not queue.empty():
            await queue.get()
            if tasks:
                await asyncio.create_task(noop.function())
            else:
                await noop.function()

    begun = time.perf_counter()
    await asyncio.gather(*(consume() for _ in range(CONSUMERS)))
    return count / (time.perf_counter() - begun)


def series(label: str, values: Sequence[float], unit: str, ratios: Sequence[float] = ()) -> str:
    """One line: median and range, and the median of `ratios`, each taken against the base just before its value."""
    ratio = f"   {statistics.median(ratios):7.3f}" if ratios else ""
    middle = statistics.median(values)
    return f"{label:<38}{middle:>12,.0f} {unit:<4} {min(values):>12,.0f} to {max(values):<12,.0f}{ratio}"
