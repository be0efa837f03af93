"""stemflow on Redis with all semantics on: typed argument, lease with token and renewal, stored and announced result,
context, time limit, a middleware chain of one."""

from __future__ import annotations

import asyncio
import signal
import time

from peer import CONCURRENCY, URL, Counter, main, tell, timed

from stemflow import Canvas, Stemflow, TaskContext, TaskRegistry

registry = TaskRegistry()
count = Counter()


@registry.task("noop", hard_time_limit="60s")
async def noop(context: TaskContext) -> int:
    return count()


@registry.task("echo", hard_time_limit="60s")
async def echo(context: TaskContext, x: int) -> int:
    return x


@registry.task("inc", hard_time_limit="60s")
async def inc(context: TaskContext, x: int) -> int:
    return x + 1


@registry.task("total", hard_time_limit="60s")
async def total(context: TaskContext, values: list[int]) -> int:
    return sum(values)


async def worker() -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with Stemflow(URL, registry, concurrency=CONCURRENCY):
        await stop.wait()


async def enqueue(tasks: int) -> None:
    async with Stemflow(URL, registry, worker=False) as app:
        begun = time.perf_counter()
        for start in range(0, tasks, 500):
            await app.submit_many([noop.s() for _ in range(min(500, tasks - start))])
        tell(n=tasks, seconds=time.perf_counter() - begun)


async def latency(tasks: int) -> None:
    async with Stemflow(URL, registry, worker=False) as app:

        async def one() -> None:
            assert await app.run(echo.s(7)) == 7

        await timed(one, tasks)


async def chain(hops: int) -> None:
    async with Stemflow(URL, registry, worker=False) as app:
        await app.run(echo.s(1))
        begun = time.perf_counter()
        assert await app.run(Canvas.chain([echo.s(1), *(inc.s() for _ in range(hops - 1))])) == hops
        tell(n=hops, seconds=time.perf_counter() - begun)


async def chord(width: int) -> None:
    async with Stemflow(URL, registry, worker=False) as app:
        await app.run(echo.s(1))
        begun = time.perf_counter()
        value = await app.run(Canvas.chord([echo.s(i) for i in range(width)], total.s()))
        assert value == width * (width - 1) // 2
        tell(n=width, seconds=time.perf_counter() - begun)


if __name__ == "__main__":
    main(worker=worker, enqueue=enqueue, latency=latency, chain=chain, chord=chord)
