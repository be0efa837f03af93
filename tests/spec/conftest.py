"""What tasks promise, as tests: on virtual time, and on every store, that on a server among them.

An `async def` test here runs on a `VirtualLoop`: `await asyncio.sleep(3_600)` takes no time. `app` is an engine with an
embedded worker whose tasks a test registers with `@registry.task(...)`; `open_app` opens more engines on the same data.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from stemflow import Stemflow, TaskRegistry
from stemflow.store.base import Store
from stemflow.store.open import open_store
from stemflow.store.redis.open import open_redis
from stemflow.testing.simulation.virtual_connections import VirtualWire
from stemflow.testing.simulation.virtual_files import VirtualSqlite
from stemflow.testing.simulation.virtual_loop import SeededIds, VirtualClock, VirtualLoop

OpenApp = Callable[..., Awaitable[Stemflow]]


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"virtual": lambda: VirtualLoop(horizon_s=10_000_000.0)}


@pytest.fixture(params=["memory", "sqlite", "redis"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "redis":
        server = request.getfixturevalue("one_server")
        server.flush()
        return str(server.url)
    return "memory:" if request.param.startswith("memory") else f"sqlite:{tmp_path / 'spec.db'}"


@pytest.fixture
async def clock() -> VirtualClock:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    return VirtualClock(loop)


@pytest.fixture
def registry() -> TaskRegistry:
    return TaskRegistry()


@pytest.fixture
async def wire(url: str) -> AsyncIterator[VirtualWire | None]:
    """The connections to a server, where the store is on one."""
    if not url.startswith("redis:"):
        yield None
        return
    yield VirtualWire(url)


@pytest.fixture
async def open_app(
    url: str, clock: VirtualClock, registry: TaskRegistry, wire: VirtualWire | None
) -> AsyncIterator[OpenApp]:
    """Opens an engine on this test's data, as another process would: `await open_app(worker=False)`.

    The registry is the test's own unless another is given; all engines are closed after the test.
    """
    ids = SeededIds(random.Random(0))
    shared: list[Store] = []

    def store() -> Store:
        if wire is not None:
            return open_redis(url, clock, test_time=True, wire=wire)
        if url != "memory:":
            return VirtualSqlite(url, clock)
        if not shared:
            shared.append(open_store(url, clock))
        return shared[0]

    async with AsyncExitStack() as opened:

        async def open_one(tasks: TaskRegistry | None = None, **settings: Any) -> Stemflow:
            return await opened.enter_async_context(
                Stemflow(url, registry if tasks is None else tasks, clock=clock, ids=ids, store=store(), **settings)
            )

        yield open_one


@pytest.fixture
async def app(open_app: OpenApp) -> Stemflow:
    """An engine with an embedded worker."""
    return await open_app()


def pass_time(passed_s: float) -> None:
    """Let `passed_s` seconds pass in which nothing happens, as on a machine that sleeps: cheap, however long."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    loop.pass_time(passed_s)


def renew_no_more() -> None:
    """From now on no worker of this test renews a lease."""
    for task in asyncio.all_tasks():
        if task.get_name() == "renew":
            task.cancel()
