"""Where a task's time goes: a group of no-ops under cProfile, its own time summed by package."""

from __future__ import annotations

import asyncio
import cProfile
import pstats
import sys
from collections import Counter

from measure import noop, registry, store_url

from stemflow import Canvas, Stemflow

COUNT = 10_000
PARTS = ("core", "store", "runtime", "compile", "expr", "model", "canvas")


def part_of(file: str) -> str:
    if "/stemflow/" in file:
        inside = file.rsplit("/stemflow/", 1)[1].removesuffix(".py").split("/")[0]
        return f"stemflow.{inside}" if inside in PARTS else "stemflow"
    for name in ("asyncio", "networkx", "sqlite3", "msgspec", "copy", "concurrent"):
        if name in file:
            return name
    return "built in" if file == "~" else "other"


async def work(kind: str) -> None:
    with store_url(kind) as url:
        async with Stemflow(url, registry) as app:
            await app.run(Canvas.group([noop.s() for _ in range(COUNT)]))


def main() -> None:
    profile = cProfile.Profile()
    profile.runcall(asyncio.run, work(sys.argv[1] if len(sys.argv) > 1 else "memory"))
    spent: Counter[str] = Counter()
    for (file, _, _), (_, _, own, _, _) in pstats.Stats(profile).stats.items():  # type: ignore[attr-defined]
        spent[part_of(file)] += own
    total = sum(spent.values())
    for part, seconds in spent.most_common():
        print(f"{part:<20}{seconds / COUNT * 1e6:8.1f} us a task (profiled) {seconds / total:7.1%}")


if __name__ == "__main__":
    main()
