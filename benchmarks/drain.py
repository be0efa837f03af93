"""No-op tasks a second through one process, next to a bare asyncio queue with as many consumers."""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
from collections import defaultdict

from measure import noop, registry, same, series, store_url

from stemflow import Canvas, Stemflow

CONSUMERS = 100


async def bare_queue(count: int) -> float:
    """Items a second through an asyncio queue, each in a call of its own."""
    queue: asyncio.Queue[int] = asyncio.Queue()
    for i in range(count):
        queue.put_nowait(i)

    async def consume() -> None:
        while not queue.empty():
            await queue.get()
            await asyncio.create_task(noop.function())

    begun = time.perf_counter()
    await asyncio.gather(*(consume() for _ in range(CONSUMERS)))
    return count / (time.perf_counter() - begun)


async def group(kind: str, count: int) -> tuple[float, float, float]:
    """(tasks a second from submission to the end, of draining alone, members a second of submission)."""
    with store_url(kind) as url:
        async with Stemflow(url, registry, concurrency=CONSUMERS) as app:
            members = Canvas.group([noop.s() for _ in range(count)])
            begun = time.perf_counter()
            handle = await app.submit(members)
            submitted = time.perf_counter()
            result = await handle.wait()
            ended = time.perf_counter()
    assert result.status == "succeeded", result
    return count / (ended - begun), count / (ended - submitted), count / (submitted - begun)


async def chain(kind: str, count: int) -> float:
    """Hops a second, from submission to the end."""
    with store_url(kind) as url:
        async with Stemflow(url, registry, concurrency=CONSUMERS) as app:
            steps = Canvas.chain([same.s(1), *(same.s() for _ in range(count - 1))])
            begun = time.perf_counter()
            assert await app.run(steps) == 1
            return count / (time.perf_counter() - begun)


async def lone(kind: str, count: int) -> float:
    """Submissions a second of tasks alone, each a run of its own, one after the other."""
    with store_url(kind) as url:
        async with Stemflow(url, registry, worker=False) as app:
            begun = time.perf_counter()
            for _ in range(count):
                await app.submit(noop.s())
            return count / (time.perf_counter() - begun)


async def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--tasks", type=int, default=20_000)
    options.add_argument("--hops", type=int, default=2_000)
    given = options.parse_args()
    found: dict[str, list[float]] = defaultdict(list)
    for _ in range(given.rounds):
        found["bare asyncio queue"].append(await bare_queue(given.tasks))
        for kind in ("memory", "sqlite"):
            whole, drained, submitted = await group(kind, given.tasks)
            found[f"{kind}: group, submit to end"].append(whole)
            found[f"{kind}: group, draining"].append(drained)
            found[f"{kind}: group, submitting"].append(submitted)
            found[f"{kind}: chain"].append(await chain(kind, given.hops))
            found[f"{kind}: lone tasks, submitting"].append(await lone(kind, given.hops))
    bare = statistics.median(found["bare asyncio queue"])
    for label, values in found.items():
        print(series(label, values, "/s", bare))


if __name__ == "__main__":
    asyncio.run(main())
