"""Seconds and peak memory of a map over 100,000 items, each in its own process, next to an engine that is idle."""

from __future__ import annotations

import asyncio
import resource
import subprocess
import sys
import time

from measure import registry, same, store_url

from stemflow import Canvas, Stemflow

COUNT = 100_000


async def once(kind: str, what: str) -> None:
    with store_url(kind) as url:
        async with Stemflow(url, registry) as app:
            begun = time.perf_counter()
            if what != "nothing":
                items = range(COUNT) if what == "range" else list(range(COUNT))
                handle = await app.submit(Canvas.map(same.s(), items))
                submitted = time.perf_counter() - begun
                status = "running"
                while status not in ("succeeded", "failed"):
                    status = (await handle.root()).state
                    await asyncio.sleep(0.05)
                assert status == "succeeded"
            else:
                submitted = 0.0
            seconds = time.perf_counter() - begun
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1_024
    print(f"{kind:<8}{what:<10}{submitted:8.2f} s to submit {seconds:8.2f} s in all {peak:8.0f} MiB peak", flush=True)


if __name__ == "__main__":
    if len(sys.argv) == 3:
        asyncio.run(once(sys.argv[1], sys.argv[2]))
    else:
        for kind in ("memory", "sqlite"):
            for what in ("nothing", "range", "list"):
                subprocess.run([sys.executable, __file__, kind, what], check=True)
