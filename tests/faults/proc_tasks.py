"""Tasks for worker processes under test; `WITNESS` names the log that they write."""

from __future__ import annotations

import asyncio
import ctypes
import os
import resource
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from stemflow import Canvas, RateLimit, Signature, TaskContext, TaskRegistry
from stemflow.testing.history.witness import Witness, sights_in

registry = TaskRegistry()
_own = Witness(Path(os.environ["WITNESS"])) if "WITNESS" in os.environ else None
witness: ContextVar[Witness | None] = ContextVar("witness", default=_own)
"""Set by a test that runs these tasks in its own process."""


@contextmanager
def _seen(context: TaskContext) -> Iterator[None]:
    with _log().sees(context):
        yield


def _log() -> Witness:
    found = witness.get()
    assert found is not None, "WITNESS must name a file"
    return found


@registry.task("step", max_retries=0, visibility_timeout="1s")
async def step(context: TaskContext, value: Any = None, pause_s: float = 0.0) -> Any:
    with _seen(context):
        await asyncio.sleep(pause_s)
        return value


@registry.task("first_slow", max_retries=0, visibility_timeout="1s")
async def first_slow(context: TaskContext, pause_s: float, later_s: float = 0.0) -> str:
    """Takes `pause_s` at its first delivery, `later_s` at others."""
    before = [one for one in sights_in(_log().path) if (one.run, one.node) == (context.run_id, context.node)]
    with _seen(context):
        await asyncio.sleep(later_s if before else pause_s)
        return "again" if before else "first"


@registry.task(
    "limited", rate_limit=RateLimit(10, "1s"), max_retries=1, retry={"initial": "10ms"}, visibility_timeout="2s"
)
async def limited(context: TaskContext, number: int) -> int:
    """Ten in a second; every second one fails at first."""
    with _seen(context):
        await asyncio.sleep(0.3)
    if number % 2 and context.attempt == 0:
        raise ValueError
    return number


@registry.task("hold", max_retries=0, visibility_timeout="1s")
async def hold(context: TaskContext, pause_s: float) -> str:
    """Holds the event loop."""
    with _seen(context):
        time.sleep(pause_s)
        return "held"


@registry.task("stubborn", max_retries=0, visibility_timeout="1s", hard_time_limit="500ms")
async def stubborn(context: TaskContext, pause_s: float) -> None:
    """Swallows every cancellation and loops in `finally`."""
    until = time.monotonic() + pause_s
    with _seen(context):
        while time.monotonic() < until:
            try:
                try:
                    await asyncio.sleep(pause_s)
                finally:
                    while time.monotonic() < until:
                        await asyncio.sleep(0.05)
            except asyncio.CancelledError:
                pass


@registry.task("leave", max_retries=3, max_deliveries=3, visibility_timeout="1s")
async def leave(context: TaskContext, how: str) -> None:
    """Ends its whole process without a word."""
    with _seen(context):
        if how == "exit":
            os._exit(0)
        if how == "segv":
            ctypes.string_at(0)
        if how == "kernel":
            # More than its group may have, and touched.
            bytearray(b"x") * (1 << 31)
        if how == "oom":
            # As the kernel does it to a process that has passed its limit.
            resource.setrlimit(resource.RLIMIT_AS, (1 << 30, resource.RLIM_INFINITY))
            try:
                bytearray(1 << 34)
            except MemoryError:
                os.kill(os.getpid(), signal.SIGKILL)


@registry.task("sys_exit", max_retries=0, visibility_timeout="1s")
async def sys_exit(context: TaskContext) -> None:
    with _seen(context):
        sys.exit(0)


@registry.task("forks", max_retries=0, visibility_timeout="2s")
async def forks(context: TaskContext, calls: int) -> list[str]:
    """A child that was forked uses the parent's engine, on a loop of its own."""
    with _seen(context):
        said = []
        for _ in range(calls):
            reading, writing = os.pipe()
            pid = os.fork()
            if pid == 0:
                os.write(writing, _use(context).encode()[:4_000])
                os._exit(0)
            os.close(writing)
            os.waitpid(pid, 0)
            said.append(os.read(reading, 4_000).decode())
            os.close(reading)
        return said


def _use(context: TaskContext) -> str:
    try:
        asyncio.run(context.progress(50))
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "carried out"


def order() -> Signature[Any, Any]:
    """A chord of two with its callback, and a task after it."""
    return Canvas.chord(Canvas.group(step.s(1), step.s(2)), step.s()) | step.s()


def big_order() -> Signature[Any, Any]:
    """A map over many items, and a task after it."""
    return Canvas.map(step.s(), list(range(40))) | step.s()


@registry.task("blocks", max_retries=0, visibility_timeout="2s")
async def blocks(context: TaskContext, pause_s: float) -> str:
    """Holds the event loop of its worker for `pause_s` seconds."""
    with _seen(context):
        time.sleep(pause_s)
        return context.run_id
