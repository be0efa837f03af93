"""Tasks that run in processes of the pool; a process finds them by importing this module."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stemflow import (
    Canvas,
    Ignore,
    Middleware,
    Reject,
    RunFailed,
    SyncTaskContext,
    TaskCancelled,
    TaskContext,
    TaskHandler,
    TaskOptions,
    TaskRegistry,
)

WORKER, SLOW_IMPORT = "TEST_WORKER_PID", "TEST_IMPORT_SECONDS"
"""How long every process but the worker takes to import this module."""

registry = TaskRegistry()
task = registry.task


@task("where", isolation="process")
def where(*what: Any) -> list[Any]:
    on_main = threading.current_thread() is threading.main_thread()
    return [os.getpid(), os.getpgrp(), on_main, *what]


@task("where_async", isolation="process")
async def where_async(*what: Any) -> list[Any]:
    await asyncio.sleep(0)
    return [os.getpid(), *what]


@task("place_plain")
def place_plain() -> tuple[int, int]:
    return os.getpid(), threading.get_ident()


@task("place_async")
async def place_async() -> tuple[int, int]:
    return os.getpid(), threading.get_ident()


@task("add")
async def add(a: int, b: int) -> int:
    return a + b


@dataclass
class Point:
    x: int
    y: int


@task("mirrored", isolation="process")
def mirrored(point: Point) -> Point:
    assert isinstance(point, Point)
    return Point(point.y, point.x)


class Doubled(TaskHandler[Point, int]):
    name = "doubled"
    options = TaskOptions(isolation="process")

    def call(self, context: TaskContext, args: Point) -> int:
        return 2 * (args.x + args.y)


doubled = registry.register(Doubled())


@task("asks", isolation="process")
def asks(context: SyncTaskContext) -> dict[str, Any]:
    context.heartbeat()
    context.extend_lease("1m")
    context.progress(50, {"half": True})
    run = context.enqueue(add.si(1, 2), headers={"a": "b"})
    context.add_to_group(add.si(3, 4))
    return {"run": run, "id": context.id, "attempt": context.attempt, "headers": dict(context.headers)}


@task("asks_async", isolation="process")
async def asks_async(context: TaskContext) -> dict[str, Any]:
    await context.heartbeat()
    await context.extend_lease("1m")
    await context.progress(50, {"half": True})
    run = await context.enqueue(add.si(1, 2), headers={"a": "b"})
    await context.add_to_group(add.si(3, 4))
    return {"run": run, "id": context.id, "attempt": context.attempt, "headers": dict(context.headers)}


@task("restless", isolation="process", max_retries=1)
def restless(context: SyncTaskContext) -> None:
    if context.attempt == 0:
        context.retry(countdown=0.001)
    context.replace(add.si(40, 2))


@task("raises", isolation="process")
def raises(how: str) -> Any:
    if how == "set":
        return {1, 2}
    raise {"ValueError": ValueError, "Reject": Reject, "Ignore": Ignore, "SystemExit": SystemExit,
           "CancelledError": asyncio.CancelledError}[how](f"raised {how}")  # fmt: skip


class Impatient:
    """Lets one error be tried again, by what is known of it only where it was raised."""

    def next_delay(self, attempt: int, error: BaseException) -> float | None:
        return 0.001 if getattr(error, "code", None) == 503 else None


class Refused(Exception):
    def __init__(self, code: int) -> None:
        super().__init__(f"refused with {code}")
        self.code = code


@task("refused", isolation="process", max_retries=5, retry_strategy=Impatient())
def refused(context: SyncTaskContext, *codes: int) -> int:
    if context.attempt < len(codes):
        raise Refused(codes[context.attempt])
    return context.attempt


@task("softly", isolation="process", soft_time_limit="20ms")
def softly(context: SyncTaskContext) -> bool:
    return context.soft_timeout.wait(10)


@task("softly_raised", isolation="process", soft_time_limit="20ms", soft_raises=True)
async def softly_raised(context: TaskContext) -> str:
    try:
        await asyncio.sleep(10)
    except Exception as error:
        return f"{type(error).__name__} {context.soft_timeout.is_set()}"
    return "nothing was raised"


@task("spins", isolation="process", hard_time_limit="100ms")
def spins() -> None:
    while True:
        pass


@task("listens", isolation="process")
def listens(context: SyncTaskContext) -> str:
    context.progress(1)
    assert context.cancelled.wait(10)
    try:
        context.heartbeat()
    except TaskCancelled:
        return "heard"
    return "deaf"


@task("listens_async", isolation="process")
async def listens_async(context: TaskContext) -> str:
    try:
        await context.progress(1)
        await asyncio.sleep(10)
    except asyncio.CancelledError:
        return f"heard {context.cancelled.is_set()}"
    return "deaf"


@task("deaf", isolation="process")
def deaf(context: SyncTaskContext) -> None:
    context.progress(1)
    threading.Event().wait()


@task("dies", isolation="process", max_deliveries=3)
def dies(how: str, note: str) -> None:
    with Path(note).open("a") as file:
        file.write("begun\n")
    if how == "exit":
        os._exit(0)
    os.kill(os.getpid(), getattr(signal, how))


@task("dies_once", isolation="process")
def dies_once(context: SyncTaskContext, note: str) -> int:
    if not Path(note).exists():
        Path(note).touch()
        os._exit(7)
    return context.attempt


@task("at_most_once", isolation="process", acks_late=False)
def at_most_once() -> None:
    os._exit(7)


@task("leaves_behind", isolation="process")
def leaves_behind(how: str) -> int:
    """Starts a program that would outlive it; answers its pid."""
    program = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"])
    return program.pid


@task("grows", isolation="process")
def grows(size: int) -> int:
    kept.append(b"x" * size)
    return os.getpid()


kept: list[bytes] = []


@task("files", isolation="process")
def files() -> list[str]:
    """What the process has open, but for its standard streams."""
    found = []
    for descriptor in os.listdir("/proc/self/fd"):
        try:
            found.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        except OSError:
            pass
    return sorted(found)


@task("prints", isolation="process")
def prints() -> None:
    print("a process prints")


@task("rests", isolation="process", hard_time_limit="2s")
def rests(seconds: float) -> str:
    threading.Event().wait(seconds)
    return "rested"


class Doubling(Middleware):
    async def on_execute(self, context: TaskContext, call_next: Callable[[], Awaitable[Any]]) -> Any:
        return 2 * await call_next()


watched = TaskRegistry()
watched.use(Doubling())


@watched.task("watched.plain", isolation="process")
def watched_plain(n: int) -> int:
    return n


@watched.task("watched.async", isolation="process")
async def watched_async(n: int) -> int:
    return n


if WORKER in os.environ and os.environ[WORKER] != str(os.getpid()):
    threading.Event().wait(float(os.environ.get(SLOW_IMPORT, "0")))


@task("brief", isolation="process", hard_time_limit="300ms")
def brief() -> int:
    return os.getpid()


@task("starts_programs", isolation="process")
def starts_programs(context: SyncTaskContext, note: str) -> None:
    """Starts programs in a session of their own, one of them a daemon, and waits forever."""
    daemon = "import os, subprocess, sys; subprocess.Popen(sys.argv[1:], start_new_session=True)"
    programs = [["sleep", "600"], [sys.executable, "-c", daemon, "sleep", "601"]]
    bare = subprocess.Popen(["sleep", "602"], start_new_session=True, env={})
    for program in programs:
        subprocess.Popen(program, start_new_session=True)
    Path(note).write_text(str(bare.pid))
    context.progress(1)
    threading.Event().wait(600)


@task("starts_a_program_async", isolation="process")
async def starts_a_program_async(context: TaskContext) -> int:
    program = await asyncio.create_subprocess_exec("sleep", "603")
    await context.progress(1)
    return await program.wait()


@task("tower", isolation="process")
def tower(context: SyncTaskContext, height: int) -> int:
    """Each level waits for the one below it."""
    return 1 + (context.run(tower.s(height - 1)) if height > 1 else 0)


@task("fails_below", isolation="process")
async def fails_below(context: TaskContext) -> str:
    try:
        await context.run(Canvas.fail("no floor"))
    except RunFailed as error:
        assert error.error is not None and error.error.message == "no floor"
    return await context.cancel_run(f"{context.run_id}-gone", force=True)


@registry.lifespan
def in_each_process() -> Iterator[dict[str, Any]]:
    state: dict[str, Any] = {"pid": os.getpid()}
    yield state
    if "log" in state:
        Path(state["log"]).write_text(f"left {state['pid']}\n")


@task("state_of", isolation="process")
def state_of(context: SyncTaskContext, log: str) -> int:
    context.state["log"] = log
    return int(context.state["pid"])


@task("state_of_async", isolation="process")
async def state_of_async(context: TaskContext, log: str) -> int:
    return int(context.state["pid"])
