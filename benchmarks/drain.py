"""No-op tasks a second through one process, next to a bare asyncio queue with as many consumers."""

from __future__ import annotations

import argparse
import asyncio
import time
from collections import defaultdict

from measure import CONSUMERS, bare_queue, noop, registry, same, series, store_url

from stemflow import Canvas, Stemflow


async def group(kind: str, count: int) -> dict[str, float]:
    """Tasks a second: from submission to the end, of draining alone, of submission alone."""
    with store_url(kind) as url:
        async with Stemflow(url, registry, concurrency=CONSUMERS) as app:
            members = Canvas.group([noop.s() for _ in range(count)])
            begun = time.perf_counter()
            handle = await app.submit(members)
            submitted = time.perf_counter()
            result = await handle.wait()
            ended = time.perf_counter()
    assert result.status == "succeeded", result
    assert len(result.required()) == count
    return {
        "group, submit to end": count / (ended - begun),
        "group, draining alone": count / (ended - submitted),
        "group, enqueue alone": count / (submitted - begun),
    }


async def chain(kind: str, count: int) -> dict[str, float]:
    """Hops a second, from submission to the end."""
    with store_url(kind) as url:
        async with Stemflow(url, registry, concurrency=CONSUMERS) as app:
            steps = Canvas.chain([same.s(1), *(same.s() for _ in range(count - 1))])
            begun = time.perf_counter()
            assert await app.run(steps) == 1
            return {"chain, hops": count / (time.perf_counter() - begun)}


async def lone(kind: str, count: int) -> dict[str, float]:
    """Submissions a second of tasks alone, each a run and a commit of its own, one after the other."""
    with store_url(kind) as url:
        async with Stemflow(url, registry, worker=False) as app:
            begun = time.perf_counter()
            for _ in range(count):
                await app.submit(noop.s())
            return {"lone tasks, enqueue": count / (time.perf_counter() - begun)}


async def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--tasks", type=int, default=20_000)
    options.add_argument("--hops", type=int, default=2_000)
    given = options.parse_args()
    found: dict[str, list[float]] = defaultdict(list)
    ratios: dict[str, list[float]] = defaultdict(list)
    for _ in range(given.rounds):
        found["bare queue, handlers awaited"].append(await bare_queue(given.tasks, tasks=False))
        for kind in ("memory", "sqlite"):
            for work, count in ((group, given.tasks), (chain, given.hops), (lone, given.hops)):
                base = await bare_queue(given.tasks)
                found["bare queue, a task each (base)"].append(base)
                for label, rate in (await work(kind, count)).items():
                    found[f"{kind}: {label}"].append(rate)
                    ratios[f"{kind}: {label}"].append(rate / base)
    print(f"{'':<38}{'median':>12} {'':<4} {'range':>27}   to base")
    for label, values in found.items():
        print(series(label, values, "/s", ratios[label]))


if __name__ == "__main__":
    asyncio.run(main())
