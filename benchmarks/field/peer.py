"""What every adapter shares, in its own environment: the standard library alone.

An adapter is a program with the verbs `worker`, `enqueue N`, `latency N`, `chain N` and `chord N`; each but `worker`
prints one line `RESULT {json}`. The environment gives BENCH_REDIS_URL, and to a worker BENCH_TARGET (how many no-ops it
waits for) and BENCH_MARK (the file that it writes once it has run them: {"n", "first", "last"}, epoch seconds).
"""

from __future__ import annotations

import asyncio
import inspect
import json
import os
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

URL = os.environ.get("BENCH_REDIS_URL", "redis://127.0.0.1:6379/0")
CONCURRENCY = int(os.environ.get("BENCH_CONCURRENCY", "100"))
WARM_UP = 5
sys.setrecursionlimit(10_000)  # some engines nest the steps of a chain in one another


class Counter:
    """Counts the no-ops that a worker has run, and writes the mark when the last one has."""

    def __init__(self) -> None:
        self.target = int(os.environ.get("BENCH_TARGET", "0"))
        self.file = os.environ.get("BENCH_MARK")
        self.count, self.first = 0, 0.0

    def __call__(self) -> int:
        self.count += 1
        if self.count == 1:
            self.first = time.time()
        if self.count == self.target and self.file:
            part = self.file + ".part"
            with open(part, "w", encoding="utf-8") as out:
                json.dump({"n": self.count, "first": self.first, "last": time.time()}, out)
            os.replace(part, self.file)
        return 1


def tell(**figures: Any) -> None:
    print("RESULT " + json.dumps(figures), flush=True)


def tell_latencies(seconds: Sequence[float]) -> None:
    """Percentiles of `seconds`, in milliseconds."""
    ordered = sorted(seconds)
    p50, p99 = (ordered[min(len(ordered) - 1, int(share * len(ordered)))] * 1_000 for share in (0.5, 0.99))
    tell(n=len(ordered), p50_ms=p50, p99_ms=p99)


async def timed(one: Callable[[], Awaitable[Any]], count: int) -> None:
    """Latencies of `count` calls of `one`, one after the other."""
    taken = []
    for i in range(WARM_UP + count):
        begun = time.perf_counter()
        await one()
        if i >= WARM_UP:
            taken.append(time.perf_counter() - begun)
    tell_latencies(taken)


def main(**verbs: Callable[..., Any]) -> None:
    """Call the verb that the command line names."""
    verb, *numbers = sys.argv[1:]
    answer = verbs[verb](*map(int, numbers))
    if inspect.iscoroutine(answer):
        asyncio.new_event_loop().run_until_complete(answer)
    os._exit(0)  # the figures are told; some clients wait for their blocking reads to end
