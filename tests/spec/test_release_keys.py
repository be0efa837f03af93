"""Keys are released by hand if their holders are gone; the next waiter gets them once."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from stemflow import Concurrency, OptionError, RunHandle, Stemflow, TaskRegistry
from stemflow.runtime.client.control import KeyIsHeld
from stemflow.runtime.client.overview import key_overview
from tests.spec.conftest import OpenApp


@pytest.fixture
def tasks(registry: TaskRegistry) -> TaskRegistry:
    """`alone` and `unique` take a minute under the keys `pay` and `order`."""

    async def work() -> str:
        await asyncio.sleep(60)
        return "done"

    registry.task("alone", concurrency=Concurrency("pay", 1))(work)
    registry.task("unique", unique=True, unique_by="'order'", unique_for="1h", unique_mode="keep_last")(work)
    return registry


async def submit(app: Stemflow, tasks: TaskRegistry, name: str, count: int = 1) -> list[RunHandle[Any]]:
    task = tasks.get(name)
    assert task is not None
    return [await app.submit(task.s()) for _ in range(count)]


async def key_of(app: Stemflow, part: str) -> str:
    (key,) = [one.key for one in await app.store.claims(10) if part in one.key]
    return key


async def test_a_live_holder_keeps_its_key_unless_that_is_forced_with_a_reason(
    open_app: OpenApp, tasks: TaskRegistry
) -> None:
    # Given one that runs and two that wait
    app = await open_app()
    first, second, third = await submit(app, tasks, "alone", 3)
    await asyncio.sleep(5)
    key = await key_of(app, "pay")
    # When
    with pytest.raises(KeyIsHeld, match=first.id):
        await app.control.release_key(key)
    with pytest.raises(OptionError, match="expected a reason"):
        await app.control.release_key(key, force=True)
    assert await app.control.release_key(key, force=True, by="ann", reason="the first one hangs")
    # Then the second one runs next to it, and the third one after the second
    await asyncio.sleep(5)
    found = await key_overview(app.store, key)
    assert [one.key[0] for one in found.holders] == [second.id]
    assert [(await one.wait(200)).value for one in (first, second, third)] == ["done"] * 3
    assert await key_overview(app.store, key) is None
    (action, *_) = await app.control.audit()
    assert (action.action, action.target, action.details["force"]) == ("release", f"key:{key}", True)


async def test_the_key_of_a_dead_holder_goes_to_the_next_waiter_once(open_app: OpenApp, tasks: TaskRegistry) -> None:
    # Given a worker that died, and nobody who takes its task over
    client, dead = await open_app(worker=False), await open_app()
    first, second = await submit(client, tasks, "alone", 2)
    await asyncio.sleep(5)
    for task in asyncio.all_tasks():
        if task.get_name() in ("renew", "recover", "exchange loop", "presence", "control"):
            task.cancel()
    await asyncio.sleep(60)
    key = await key_of(client, "pay")
    # When
    assert await client.control.release_key(key)
    # Then the next one has it; it is live, so releasing again is refused
    found = await key_overview(client.store, key)
    assert [one.key[0] for one in found.holders] == [second.id]
    with pytest.raises(KeyIsHeld):
        await client.control.release_key(key)
    # And both end under another worker
    await open_app()
    assert [(await one.wait(300)).value for one in (first, second)] == ["done"] * 2
    assert dead.service is not None


async def test_the_window_of_a_unique_key_ends_and_others_follow(open_app: OpenApp, tasks: TaskRegistry) -> None:
    app = await open_app()
    (first,) = await submit(app, tasks, "unique")
    assert (await first.wait(100)).value == "done"
    (second,) = await submit(app, tasks, "unique")
    await asyncio.sleep(5)
    key = await key_of(app, "order")
    assert await app.control.release_key(key)
    assert (await second.wait(100)).value == "done"


async def test_a_key_that_is_not_in_use_is_refused(open_app: OpenApp) -> None:
    app = await open_app(worker=False)
    with pytest.raises(OptionError, match="expected a key in use"):
        await app.control.release_key("nothing")
    assert await app.control.audit() == []
