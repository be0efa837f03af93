"""Worker processes on a real server, and what becomes of them."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from stemflow import Stemflow
from stemflow.testing.history.witness import Sight
from stemflow.testing.servers.server import Server
from tests.faults import proc_tasks
from tests.faults.net_world import Net

ROOT = Path(__file__).parents[2]
TASKS = "tests.faults.proc_tasks"
READY = " serves "
"""What the first line of a worker's log says."""


class Process:
    """A command that runs; its standard error goes to a file. `settings`: the variables of the launcher."""

    def __init__(self, folder: Path, *words: str, **settings: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.log = folder / f"log-{len(list(folder.glob('log-*')))}"
        environment = {**os.environ, "WITNESS": str(folder / "witness"), "PYTHONPATH": str(ROOT)}
        environment |= settings
        with self.log.open("wb") as log:
            self.popen = subprocess.Popen(
                [sys.executable, "-m", "tests.faults.launcher", *words], cwd=ROOT, env=environment, stderr=log,
                stdout=subprocess.DEVNULL,
            )  # fmt: skip

    @property
    def said(self) -> str:
        return self.log.read_text("utf-8", "replace")

    def signal(self, number: int) -> None:
        self.popen.send_signal(number)

    async def ready(self) -> Process:
        await until(lambda: READY in self.said or self.popen.poll() is not None, 30, lambda: self.said)
        assert READY in self.said, self.said
        return self

    async def ends(self, patience_s: float = 30.0) -> int:
        """Its exit code."""
        await until(lambda: self.popen.poll() is not None, patience_s, lambda: self.said)
        return self.popen.wait()

    def kill_now(self) -> None:
        """As `kill -9` does; nothing happens if it has ended."""
        if self.popen.poll() is None:
            self.popen.kill()
        self.popen.wait(30)


async def until(true: Callable[[], object], patience_s: float = 20.0, story: Callable[[], str] = lambda: "") -> None:
    """Wait until it is so."""
    end = time.monotonic() + patience_s
    while not true():
        assert time.monotonic() < end, f"not so after {patience_s} s; {story()}"
        await asyncio.sleep(0.01)


class Place(Net):
    """A partition of its own on a server, with worker processes next to the engines of the test."""

    def __init__(self, server: Server, folder: Path, prefix: str) -> None:
        super().__init__(server, folder)
        self.registry = proc_tasks.registry
        self.url = f"{server.url}?prefix={prefix}"
        self.processes: list[Process] = []

    def launch(self, *words: str, **settings: str) -> Process:
        process = Process(self.folder, *words, **settings)
        self.processes.append(process)
        return process

    def worker(self, *words: str, url: str | None = None, **settings: str) -> Process:
        """A worker that may not be ready yet."""
        command = ("worker", "--store", url or self.url, "--tasks", TASKS, *words)
        return self.launch(*command, **settings)

    async def producer(self) -> Stemflow:
        return await self.engine(self.url, worker=False)

    async def seen(self, event: str, count: int = 1, patience_s: float = 20.0) -> list[Sight]:
        """Wait until the witness has so many of these."""
        found: list[Sight] = []

        def enough() -> bool:
            found[:] = [one for one in self.witness.sights() if one.event == event]
            return len(found) >= count

        await until(enough, patience_s, lambda: "\n".join(process.said for process in self.processes))
        return found


@asynccontextmanager
async def place_on(server: Server, folder: Path, prefix: str = "stemflow") -> AsyncIterator[Place]:
    """Its processes are killed at the end."""
    folder.mkdir(parents=True, exist_ok=True)
    place = Place(server, folder, prefix)
    proc_tasks.witness.set(place.witness)
    try:
        async with place._opened:
            yield place
    finally:
        proc_tasks.witness.set(None)
        for process in place.processes:
            process.kill_now()
        place.witness.close()
