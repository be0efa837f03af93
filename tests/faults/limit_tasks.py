"""Tasks of the fault tests of time limits; also a program that works on a store: `python limit_tasks.py URL [RUN]`."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from stemflow import Stemflow, SyncTaskContext, TaskRegistry

registry = TaskRegistry()
task = registry.task


def note(path: str, what: str) -> None:
    """A line of (what, pid, instant) that other processes read."""
    with Path(path).open("a") as file:
        file.write(f"{what} {os.getpid()} {time.monotonic()}\n")


def block_in_c() -> Any:
    """Keeps the interpreter's lock for hours: nothing in Python can run in this process."""
    return re.match(r"(a+)+$", "a" * 64 + "b")


def spin() -> None:
    while True:
        pass


@task("overruns", isolation="process", hard_time_limit="500ms")
def overruns(path: str, how: str) -> None:
    note(path, "begun")
    {"spins": spin, "blocks in C": block_in_c, "sleeps": lambda: time.sleep(1_000)}[how]()


@task("quick", isolation="process")
def quick() -> int:
    return os.getpid()


@task("holds", visibility_timeout="1s")
async def holds(path: str, seconds: float) -> str:
    note(path, "begun")
    time.sleep(seconds)
    return "done"


@task("holds_beyond", visibility_timeout="1s", hard_time_limit="500ms", max_deliveries=2)
async def holds_beyond(path: str, seconds: float) -> str:
    note(path, "begun")
    time.sleep(seconds)
    return "done"


@task("holds_unlimited", visibility_timeout="200ms")
async def holds_unlimited(path: str, seconds: float) -> str:
    note(path, "begun")
    time.sleep(seconds)
    return "done"


@task("parent", isolation="process")
def parent(context: SyncTaskContext, path: str) -> None:
    program = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"])
    with Path(path).open("a") as file:
        file.write(f"{os.getpid()} {program.pid}\n")
    time.sleep(1_000)


@task("kills_worker")
async def kills_worker(path: str) -> None:
    note(path, "culprit")
    await asyncio.sleep(0.05)
    os._exit(9)


@task("neighbour")
async def neighbour(path: str, number: int) -> int:
    note(path, "neighbour")
    await asyncio.sleep(0.3)
    return number


async def main(url: str, *runs: str) -> None:
    async with Stemflow(url, registry, concurrency=10) as app:
        if not runs:
            await asyncio.sleep(1_000)
        for run in runs:
            await (await app.handle(run)).wait(60)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
