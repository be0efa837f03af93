"""stemflow on Redis or Valkey: the server on one core, a worker process on the other; rounds interleaved over engines.

Each engine is a class below with the same few methods, so that a peer joins by one more class. Measures: tasks a second
that one worker process drains, bulk enqueue, a lone task on an idle worker, hops of a chain, a chord from submission to
its callback, and what the server has to keep and to read for it.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

from measure import CONSUMERS, noop, registry, same

from stemflow import Canvas, Stemflow
from stemflow.testing.servers.executables import server_binaries
from stemflow.testing.servers.server import Server

SERVER_CORE, WORKER_CORE = 0, 1
PAYLOAD = "x" * 40
"""Together with its frame, an argument of up to 60 bytes."""
CHUNK = 500


@registry.task("sink")
async def sink(value: str) -> None:
    """Takes a payload and gives nothing."""


@registry.task("gathered")
async def gathered(values: list[int]) -> int:
    return len(values)


def pinned(core: int) -> None:
    if hasattr(os, "sched_setaffinity") and len(os.sched_getaffinity(0)) > core:
        os.sched_setaffinity(0, {core})


class Probe:
    """What the server says of itself."""

    def __init__(self, server: Server) -> None:
        self.server = server

    def info(self, name: str) -> int:
        text = self.server.ask("INFO", "everything").decode(errors="replace")
        return int(text.split(f"\r\n{name}:", 1)[1].split("\r\n", 1)[0])

    def counts(self) -> dict[str, int]:
        names = ("total_reads_processed", "total_commands_processed", "used_memory")
        return {name: self.info(name) for name in names}


class StemflowEngine:
    """One engine in this process; `worker` says whether it runs tasks."""

    name = "stemflow"

    def __init__(self, url: str, *, worker: bool) -> None:
        self.app = Stemflow(url, registry, worker=worker, concurrency=CONSUMERS)

    async def __aenter__(self) -> StemflowEngine:
        await self.app.__aenter__()
        return self

    async def __aexit__(self, *what: Any) -> None:
        await self.app.__aexit__(*what)

    async def enqueue(self, count: int, payload: str | None = None) -> list[Any]:
        handles: list[Any] = []
        for first in range(0, count, CHUNK):
            some = range(first, min(first + CHUNK, count))
            handles += await self.app.submit_many([noop.s() if payload is None else sink.s(payload) for _ in some])
        return handles

    async def lone(self) -> None:
        await self.app.run(same.s(7))

    async def chain(self, hops: int) -> None:
        assert await self.app.run(Canvas.chain([same.s(1), *(same.s() for _ in range(hops - 1))])) == 1

    async def chord(self, members: int) -> None:
        header = [same.s(i) for i in range(members)]
        assert await self.app.run(Canvas.chord(header, gathered.s())) == members


ENGINES = {engine.name: engine for engine in (StemflowEngine,)}


async def wait_for_all(handles: list[Any]) -> None:
    await asyncio.gather(*(handle.wait() for handle in handles))


async def drain(engine: Any, url: str, server: Server, count: int) -> dict[str, float]:
    """Fill the queue, then start one worker process on a core of its own and wait for the last end."""
    probe, found = Probe(server), {}
    async with engine(url, worker=False) as app:
        await app.enqueue(CHUNK)
        server.flush()
    async with engine(url, worker=False) as app:
        before = probe.counts()
        begun = time.perf_counter()
        await app.enqueue(count, PAYLOAD)
        found["bulk enqueue /s"] = count / (time.perf_counter() - begun)
        pending = probe.counts()
        found["bytes a pending task"] = (pending["used_memory"] - before["used_memory"]) / count
    command = [sys.executable, __file__, "--work", engine.name, url, str(count)]
    worker = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
    out, _ = await worker.communicate()
    assert worker.returncode == 0
    told = json.loads(out)
    done = probe.counts()
    found["drain tasks/s"] = count / told["seconds"]
    found["bytes a finished task"] = (done["used_memory"] - before["used_memory"]) / count
    found["reads a drained task"] = (done["total_reads_processed"] - pending["total_reads_processed"]) / count
    found["commands a drained task"] = (done["total_commands_processed"] - pending["total_commands_processed"]) / count
    found["decides a drained task"] = told["decides"] / count
    return found


async def work(engine: Any, url: str, count: int) -> None:
    """The worker process: from the first lease to the last commit."""
    async with engine(url, worker=True) as app:
        slots, decider = app.app.service.slots, app.app.decider
        report, decide = slots.report, decider.decide
        reports, decides = itertools.count(), itertools.count()

        def reported(*what: Any) -> None:
            next(reports)
            report(*what)

        async def decided(*what: Any) -> Any:
            next(decides)
            return await decide(*what)

        slots.report, decider.decide = reported, decided
        begun = time.perf_counter()
        while _so_far(reports) < count or slots.running or slots.facts:
            await asyncio.sleep(0.002)
        seconds = time.perf_counter() - begun
        print(json.dumps({"seconds": seconds, "decides": _so_far(decides)}))


def _so_far(counter: itertools.count[int]) -> int:
    return int(repr(counter)[6:-1])


async def waits(engine: Any, url: str, server: Server, options: argparse.Namespace) -> dict[str, float]:
    """What somebody waits for: a lone task, a chain, chords; submitted and worked on in one process."""
    found, probe = {}, Probe(server)
    async with engine(url, worker=True) as app:
        for _ in range(50):
            await app.lone()
        times = []
        for _ in range(options.lone):
            begun = time.perf_counter()
            await app.lone()
            times.append(time.perf_counter() - begun)
        found["lone task, p50 ms"] = statistics.median(times) * 1e3
        before = probe.counts()
        await app.chain(2)
        begun = time.perf_counter()
        await app.chain(options.hops)
        found["chain, ms a hop"] = (time.perf_counter() - begun) / options.hops * 1e3
        reads = probe.counts()["total_reads_processed"] - before["total_reads_processed"]
        found["chain, reads a hop"] = reads / options.hops
        for members in options.chords:
            begun = time.perf_counter()
            await app.chord(members)
            found[f"chord of {members}, s"] = time.perf_counter() - begun
    return found


async def rounds(options: argparse.Namespace) -> dict[str, list[float]]:
    found: dict[str, list[float]] = defaultdict(list)
    binary = server_binaries()[options.server]
    with tempfile.TemporaryDirectory() as folder, Server(binary, Path(folder)) as server:
        os.sched_setaffinity(server.pid, {SERVER_CORE})
        for _ in range(options.rounds):
            for name in options.engines:
                engine = ENGINES[name]
                server.flush()
                for label, value in (await drain(engine, server.url, server, options.tasks)).items():
                    found[f"{name}: {label}"].append(value)
                server.flush()
                for label, value in (await waits(engine, server.url, server, options)).items():
                    found[f"{name}: {label}"].append(value)
    return found


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--tasks", type=int, default=20_000)
    options.add_argument("--lone", type=int, default=1_000)
    options.add_argument("--hops", type=int, default=500)
    options.add_argument("--chords", type=int, nargs="*", default=[1_000, 10_000])
    options.add_argument("--server", default=next(iter(server_binaries()), "valkey"))
    options.add_argument("--engines", nargs="*", default=list(ENGINES))
    options.add_argument("--work", nargs=3, metavar=("ENGINE", "URL", "COUNT"), help="be the worker process")
    given = options.parse_args()
    pinned(WORKER_CORE)
    if given.work:
        name, url, count = given.work
        asyncio.run(work(ENGINES[name], url, int(count)))
        return
    for label, values in asyncio.run(rounds(given)).items():
        print(f"{label:<42}{statistics.median(values):>14,.3f}   {min(values):>14,.3f} to {max(values):,.3f}")


if __name__ == "__main__":
    main()
