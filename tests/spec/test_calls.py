"""What a task costs in calls of the engine's own functions: deterministic, where a time is not.

A bound is what is true now, with a little room. Who adds a feature to the path of every task pays for it elsewhere, or
raises the bound knowingly; `python benchmarks/calls.py` shows which functions are called how often.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import pytest

import stemflow
from stemflow import Canvas, Stemflow, TaskRegistry
from stemflow.model.records import SUCCEEDED, Node
from tests.spec.conftest import OpenApp

TASKS = 100
OWN = os.path.dirname(stemflow.__file__) + os.sep
TESTING = OWN + "testing" + os.sep

BOUNDS = {
    ("memory", "submit"): 150, ("memory", "drain"): 178, ("memory", "chain"): 392, ("memory", "group"): 277,
    ("sqlite", "submit"): 160, ("sqlite", "drain"): 174, ("sqlite", "chain"): 381, ("sqlite", "group"): 276,
    ("redis", "submit"): 212, ("redis", "drain"): 268, ("redis", "chain"): 432, ("redis", "group"): 286,
}  # fmt: skip
"""Calls a task, by store."""


@pytest.fixture(autouse=True)
def tasks(registry: TaskRegistry) -> Any:
    @registry.task("same")
    async def same(value: int) -> int:
        return value

    return same


@contextmanager
def counted() -> Iterator[list[int]]:
    """Counts the calls of functions in stemflow, without those that only tests run."""
    calls = [0]

    def count(frame: FrameType, event: str, argument: object) -> None:
        file = frame.f_code.co_filename
        if event == "call" and file.startswith(OWN) and not file.startswith(TESTING):
            calls[0] += 1

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        yield calls
    finally:
        sys.setprofile(before)


async def work(what: str, app: Stemflow, same: Any, open_app: OpenApp) -> float:
    """Calls a task: of submitting tasks alone, of running those that wait, of a chain or a group from end to end."""
    if what in ("chain", "group"):
        steps = [same.s(1), *(same.s() for _ in range(TASKS - 1))]
        canvas = Canvas.chain(steps) if what == "chain" else Canvas.group([same.s(1) for _ in range(TASKS)])
        with counted() as calls:
            await app.run(canvas)
        return calls[0] / TASKS
    with counted() as submitting:
        handles = [await app.submit(same.s(1)) for _ in range(TASKS)]
    if what == "submit":
        return submitting[0] / TASKS
    worker = await open_app(worker=True)
    with counted() as calls:
        await asyncio.sleep(1)
    roots = await worker.store.read([(one.id, "") for one in handles])
    assert all(isinstance(root, Node) and root.state == SUCCEEDED for root in roots)
    return calls[0] / TASKS


@pytest.mark.parametrize(("url", "what"), BOUNDS, indirect=["url"])
async def test_a_task_makes_few_calls(
    open_app: OpenApp, tasks: Any, url: str, what: str, request: pytest.FixtureRequest
) -> None:
    # Given an engine that has loaded and compiled what it needs
    app = await open_app(worker=what in ("chain", "group"))
    if what in ("chain", "group"):
        await app.run(Canvas.chain([tasks.s(1), Canvas.group([tasks.s(), tasks.s()])]))
    else:
        await app.submit(tasks.s(1))

    # When many tasks are worked on; then each costs at most this
    calls = await work(what, app, tasks, open_app)
    store = next(kind for kind in ("memory", "sqlite", "redis") if url.startswith(kind))
    assert calls <= BOUNDS[store, what], f"{calls:.1f} calls a task"
