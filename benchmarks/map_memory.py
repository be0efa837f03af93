"""Seconds and peak memory of a map over 100,000 items, each in its own process, next to an engine that is idle."""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import statistics
import subprocess
import sys
import time
from collections import defaultdict

from measure import CONSUMERS, bare_queue, registry, same, store_url

from stemflow import Canvas, Stemflow

CASES = [(kind, what) for kind in ("memory", "sqlite") for what in ("nothing", "range", "list")]


def peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1_048_576 if sys.platform == "darwin" else 1_024)


async def once(kind: str, what: str, count: int) -> dict[str, float]:
    """One map in this process: seconds to submit and to the end, peak at the end and with the list of results read."""
    with store_url(kind) as url:
        async with Stemflow(url, registry, concurrency=CONSUMERS) as app:
            begun = time.perf_counter()
            if what == "nothing":
                return {"peak": peak_mib()}
            items = range(count) if what == "range" else list(range(count))
            handle = await app.submit(Canvas.map(same.s(), items))
            submitted = time.perf_counter() - begun
            await app.store.watch(handle.id)
            ended, peak = time.perf_counter() - begun, peak_mib()
            result = await handle.wait()
    assert result.value == list(range(count)), result.status
    return {"submit": submitted, "end": ended, "peak": peak, "read": peak_mib()}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--items", type=int, default=100_000)
    options.add_argument("--one", nargs=2, metavar=("STORE", "ITEMS"), help="one map, here; prints JSON")
    given = options.parse_args()
    if given.one:
        print(json.dumps(asyncio.run(once(*given.one, given.items))))
        return
    found: dict[tuple[str, str], list[dict[str, float]]] = defaultdict(list)
    base = []
    for _ in range(given.rounds):
        base.append(asyncio.run(bare_queue(given.items)))
        for case in CASES:
            command = [sys.executable, __file__, "--one", *case, "--items", str(given.items)]
            found[case].append(json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout))
    print(f"bare queue, a task each: {statistics.median(base):,.0f} /s ({min(base):,.0f} to {max(base):,.0f})")
    print(f"{'':<18}{'submit s':>9}{'end s':>8}{'range':>16}{'peak MiB':>10}{'+ results':>11}")
    for (kind, what), rounds in found.items():
        middle = {name: statistics.median(one[name] for one in rounds) for name in rounds[0]}
        ends = [one.get("end", 0.0) for one in rounds]
        row = f"{kind + ': ' + what:<18}{middle.get('submit', 0):>9.2f}{middle.get('end', 0):>8.2f}"
        row += f"{f'{min(ends):.2f} to {max(ends):.2f}':>16}{middle['peak']:>10.0f}"
        print(row + (f"{middle['read']:>11.0f}" if "read" in middle else ""))


if __name__ == "__main__":
    main()
