"""Where a task's time goes: the shares of its parts under cProfile, laid on the time that it takes without.

On a server `client` is redis-py with its sockets, and `waiting` the time in which there was nothing to do but wait for
it; `script` is what the server says that its scripts took, a task.
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import pstats
import statistics
import time
from collections import Counter
from contextlib import ExitStack
from typing import Any

import redis
from measure import CONSUMERS, noop, registry, same, store_url

from stemflow import Canvas, Stemflow

FOLDERS = {
    "core": "decide",
    "store": "store",
    "compile": "plan",
    "canvas": "plan",
    "model": "records",
    "runtime": "worker",
    "expr": "bind",
}
FILES = {
    "runtime/values/binding.py": "bind",
    "runtime/values/library.py": "bind",
    "runtime/tasks/context.py": "bind",
    "runtime/payloads/json_data.py": "codec",
    "model/wire.py": "codec",
    "store/redis/replies.py": "codec",
    "store/redis/requests.py": "codec",
    "store/redis/codec.py": "codec",
    "store/redis/client.py": "client",
    "store/redis/subscriber.py": "client",
}
WORDS = {
    "sqlite3": "store",
    "msgspec": "codec",
    "networkx": "plan",
    "/redis/": "client",
    "hiredis": "client",
    "_socket": "client",
    "epoll": "waiting",
    "asyncio": "asyncio",
    "selectors": "asyncio",
}


def part_of(file: str, name: str) -> str | None:
    """The part that a function belongs to; None for what is a part of its caller, as a dict's `get` is."""
    if "/stemflow/" in file:
        inside = file.rsplit("/stemflow/", 1)[1]
        return FILES.get(inside) or FOLDERS.get(inside.split("/")[0], "worker")
    return next((part for word, part in WORDS.items() if word in file or word in name), None)


def shares(profile: cProfile.Profile) -> dict[str, float]:
    """Each part's share of the time. What has no part of its own goes to its callers, as they have used it."""
    spent: Counter[str] = Counter()
    for (file, _, name), (_, _, own, _, callers) in pstats.Stats(profile).stats.items():  # type: ignore[attr-defined]
        part = part_of(file, name)
        if part is not None:
            spent[part] += own
            continue
        for (caller, _, called_by), (_, _, seconds, _) in callers.items():
            spent[part_of(caller, called_by) or "other"] += seconds
    total = sum(spent.values())
    return {part: seconds / total for part, seconds in spent.most_common()}


def script_us(url: str) -> int:
    """Microseconds that a server has spent in scripts since it began."""
    with redis.Redis.from_url(url) as client:
        found: Any = client.info("commandstats")
    return int(found.get("cmdstat_evalsha", {"usec": 0})["usec"])


async def work(kind: str, what: str, count: int, scripts: list[float]) -> float:
    """Microseconds a task, from submission to the end; on a server, `scripts` gets those of its scripts."""
    with store_url(kind) as url, ExitStack() as after:
        if kind == "redis":
            after.callback(lambda: scripts.append(script_us(url) / count))
        async with Stemflow(url, registry, concurrency=CONSUMERS) as app:
            if what == "group":
                signature = Canvas.group([noop.s() for _ in range(count)])
            else:
                signature = Canvas.chain([same.s(1), *(same.s() for _ in range(count - 1))])
            begun = time.perf_counter()
            await app.run(signature)
            return (time.perf_counter() - begun) / count * 1e6


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rounds", type=int, default=3)
    rounds = options.parse_args().rounds
    for what, count in (("group", 10_000), ("chain", 2_000)):
        for kind in ("memory", "sqlite", "redis"):
            scripts: list[float] = []
            whole = statistics.median(asyncio.run(work(kind, what, count, scripts)) for _ in range(rounds))
            profile = cProfile.Profile()
            profile.runcall(asyncio.run, work(kind, what, count, []))
            parts = [f"{part} {share * whole:.1f} ({share:.0%})" for part, share in shares(profile).items()]
            parts += [f"beside it, script {statistics.median(scripts):.1f}"] if scripts else []
            print(f"{kind}: {what}: {whole:.0f} us a task; of these " + ", ".join(parts), flush=True)


if __name__ == "__main__":
    main()
