"""Timers below a second end when they are due, not at the next look of an idle worker."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from stemflow import Stemflow, TaskRegistry
from stemflow.dsl import parse_workflow
from stemflow.testing.simulation.virtual_loop import VirtualClock
from tests.spec.conftest import OpenApp

HEAD = 'stemflow: "1"\nname: x\n'
FILES = {
    "run timeout": "timeout: 150ms\nsteps:\n  a: {task: slow}\n",
    "scope timeout": "steps:\n  g: {timeout: 150ms, chain: [{task: slow}]}\n",
    "wait": "steps:\n  w: {wait: {for: 150ms}}\n  a: {task: f, needs: [w]}\n",
}
LATEST_MS = {"embedded": 30, "another process": 80}


def tasks(registry: TaskRegistry) -> dict[str, Any]:
    @registry.task("slow")
    async def slow() -> None:
        await asyncio.sleep(5)

    @registry.task("f", max_retries=1)
    async def f() -> None: ...

    @registry.task("limited", rate_limit="1/h", expires="150ms")
    async def limited() -> None: ...

    found: dict[str, Any] = {name: parse_workflow(HEAD + body, name).workflow for name, body in FILES.items()}
    found["expiry"] = limited.s()
    found["countdown"] = f.with_options(countdown="150ms").s()
    return found


@pytest.mark.parametrize("where", LATEST_MS)
async def test_a_timer_of_150_ms_is_acted_upon_when_it_is_due(
    app: Stemflow, open_app: OpenApp, registry: TaskRegistry, clock: VirtualClock, where: str
) -> None:
    what = tasks(registry)
    client = app if where == "embedded" else await open_app(worker=False)
    await client.run(registry.get("limited").s())  # type: ignore[union-attr]
    late: dict[str, list[int]] = {}
    for name, one in what.items():
        for _ in range(2):
            await asyncio.sleep(3.07)  # the worker is idle
            began = clock.now_ms()
            await (await client.submit(one)).wait(4)
            late.setdefault(name, []).append(clock.now_ms() - began - 150)
    assert {name: some for name, some in late.items() if not 0 <= min(some) <= max(some) <= LATEST_MS[where]} == {}
