"""An engine is used between opening and closing, on one event loop; else it raises at once and says what to do."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from stemflow import NotOpen, Stemflow, StemflowError, StoreClosed, TaskRegistry
from stemflow.testing.servers.server import Server

registry = TaskRegistry()


@registry.task("wait")
async def wait(seconds: float) -> float:
    await asyncio.sleep(seconds)
    return seconds


@pytest.fixture(params=["memory", "sqlite", "redis"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "redis":
        server: Server = request.getfixturevalue("one_server")
        server.flush()
        return str(server.url)
    return "memory:" if request.param == "memory" else f"sqlite:{tmp_path / 'runs.db'}"


CALLS: dict[str, Callable[[Stemflow], Awaitable[Any]]] = {
    "run": lambda app: app.run(wait.s(0)),
    "submit": lambda app: app.submit(wait.s(0)),
    "submit_many": lambda app: app.submit_many([wait.s(0)]),
    "handle": lambda app: app.handle("x"),
    "result": lambda app: app.result("x"),
    "wait_for_task": lambda app: app.wait_for_task("x"),
    "cancel": lambda app: app.cancel("x"),
    "rerun": lambda app: app.rerun("x", failed=True),
    "dead_letters": lambda app: app.dead_letters(),
    "replay": lambda app: app.replay([]),
    "purge": lambda app: app.purge([]),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
async def test_an_engine_that_is_not_open_says_so(url: str, call: Callable[[Stemflow], Awaitable[Any]]) -> None:
    app = Stemflow(url, registry)
    with pytest.raises(NotOpen, match="never opened; write `async with"):
        await call(app)
    async with app:
        pass
    with pytest.raises(NotOpen, match="is closed; open it again"):
        await call(app)


async def test_an_engine_may_be_opened_again(url: str) -> None:
    app = Stemflow(url, registry)
    for _ in range(3):
        async with app:
            assert await asyncio.wait_for(app.run(wait.s(0)), 5) == 0


def test_an_engine_may_be_opened_again_on_another_loop(url: str) -> None:
    app = Stemflow(url, registry)

    async def once() -> Any:
        async with app:
            return await asyncio.wait_for(app.run(wait.s(0)), 5)

    assert [asyncio.run(once()) for _ in range(2)] == [0, 0]


async def test_what_was_stored_before_closing_is_there_after_opening_again(url: str) -> None:
    app = Stemflow(url, registry)
    async with app:
        handle = await app.submit(wait.s(0))
        await handle.wait(5)
    async with app:
        assert (await app.result(handle.id)).value == 0


async def test_an_engine_is_not_opened_twice_at_once(url: str) -> None:
    async with Stemflow(url, registry) as app:
        with pytest.raises(StemflowError, match="expected an engine that is not open"):
            async with app:
                raise AssertionError("opened")
        assert await asyncio.wait_for(app.run(wait.s(0)), 5) == 0


async def test_an_engine_is_used_on_the_loop_that_opened_it(url: str) -> None:
    async with Stemflow(url, registry) as app:
        with pytest.raises(NotOpen, match="run_coroutine_threadsafe"):
            await asyncio.to_thread(lambda: asyncio.run(app.run(wait.s(0))))


async def test_a_waiter_of_an_engine_that_closes_gets_an_error(url: str) -> None:
    async with Stemflow(url, registry) as app:
        handle = await app.submit(wait.s(60))
        waiter = asyncio.create_task(handle.wait())
        await asyncio.sleep(0.05)
    with pytest.raises(StoreClosed, match="the run goes on"):
        await asyncio.wait_for(waiter, 5)
    with pytest.raises(NotOpen):
        await handle.wait()
