"""On a server, a plan and all that is derived from it expire with the last run that uses it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from stemflow import Canvas, TaskContext, TaskRegistry
from stemflow.store.redis.layout import KeyFamily
from tests.spec.conftest import OpenApp

DAY_MS = 86_400_000


@pytest.fixture
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    server = request.getfixturevalue("one_server")
    server.flush()
    return str(server.url)


async def lives_ms(app: Any, digest: str) -> dict[str, int]:
    """How long the server keeps a plan, and how many runs use it, by name of the family; in milliseconds."""
    (part,) = app.store._parts
    found = {}
    for family in (KeyFamily.plan, KeyFamily.plan_uses):
        found[family.name] = await part.client.call(b"PTTL", part.prefix + family.value + digest.encode())
    return found


async def plan_of(handle: Any) -> str:
    return str((await handle.root()).plan)


async def test_a_plan_is_kept_while_a_run_uses_it_and_then_as_long_as_its_runs(
    open_app: OpenApp, registry: TaskRegistry
) -> None:
    @registry.task("step", result_ttl="1h")
    async def step(x: int) -> int:
        return x

    app = await open_app()
    chain = Canvas.chain(step.s(1), Canvas.wait("10s"), step.si(2))
    # Given two runs of one plan
    first, second = await app.submit(chain), await app.submit(chain)
    digest = await plan_of(first)
    assert digest == await plan_of(second)
    assert min((await lives_ms(app, digest)).values()) > 300 * DAY_MS
    # When one is cancelled, then the plan lives on for the other
    await first.cancel()
    await first.wait()
    assert min((await lives_ms(app, digest)).values()) > 300 * DAY_MS
    # When both have ended, then it is kept as long as they are
    await second.wait()
    for kept_ms in (await lives_ms(app, digest)).values():
        assert 3_500_000 < kept_ms <= 3_700_000
    # And a run that uses it again keeps it again
    third = await app.submit(chain)
    assert min((await lives_ms(app, digest)).values()) > 300 * DAY_MS
    assert (await third.wait()).value == 2
    assert (await lives_ms(app, digest))["plan"] <= 3_700_000


async def test_a_plan_that_joins_a_run_expires_with_it(open_app: OpenApp, registry: TaskRegistry) -> None:
    gate = asyncio.Event()

    @registry.task("step", result_ttl="1h")
    async def step(x: int) -> int:
        await gate.wait()
        return x

    @registry.task("grow", result_ttl="1h")
    async def grow(context: TaskContext) -> None:
        await context.add_to_group(Canvas.chain(step.si(1), step.si(2)))

    app = await open_app()
    handle = await app.submit(Canvas.group(grow.s()))
    await asyncio.sleep(5)
    (joined,) = {digest for digest, _ in (await handle.root()).extra}
    assert min((await lives_ms(app, joined)).values()) > 300 * DAY_MS
    gate.set()
    assert (await handle.wait()).value == [None, 2]
    assert (await lives_ms(app, joined))["plan"] <= 3_700_000


async def test_many_runs_of_one_task_count_as_many(open_app: OpenApp, registry: TaskRegistry) -> None:
    gate = asyncio.Event()

    @registry.task("step", result_ttl="1h")
    async def step(x: int) -> int:
        if x == 0:
            await gate.wait()
        return x

    app = await open_app()
    handles = await app.submit_many([step.s(x) for x in range(20)])
    digest = await plan_of(handles[0])
    for handle in handles[1:]:
        await handle.wait()
    assert min((await lives_ms(app, digest)).values()) > 300 * DAY_MS
    gate.set()
    await handles[0].wait()
    assert (await lives_ms(app, digest))["plan"] <= 3_700_000
