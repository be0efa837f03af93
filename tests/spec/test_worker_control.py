"""One worker from outside: drained, given other slots, asked for its stacks."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from stemflow import OptionError, Stemflow, TaskRegistry
from stemflow.runtime.catalog.controls import DUMPS
from stemflow.runtime.catalog.heartbeats import heartbeats
from stemflow.store.base import StoreUnavailable
from tests.spec.conftest import OpenApp


@pytest.fixture
def nap(registry: TaskRegistry) -> Any:
    """A task that takes ten seconds."""

    @registry.task("nap")
    async def nap() -> str:
        await asyncio.sleep(10)
        return "rested"

    return nap


async def running(app: Stemflow, name: str) -> int:
    (beat,) = [one for one in (await heartbeats(app.store)).values() if one.name == name]
    return beat.running


async def test_a_drained_worker_leases_nothing_until_that_is_undone(open_app: OpenApp, nap: Any) -> None:
    # Given
    client, _ = await open_app(worker=False), await open_app(name="w1")
    await asyncio.sleep(1)
    before = await client.submit(nap.s())
    # When
    await client.control.order_worker("w1", drain=True, by="ann", reason="its disk")
    assert await client.control.silent_workers() == []
    after = await client.submit(nap.s())
    # Then
    assert (await before.wait(30)).value == "rested"
    assert (await after.wait(30)).timed_out
    assert "queue-unserved" in [one.code for one in (await client.why(after.id)).nodes[0].reasons]
    await client.control.order_worker("w1", drain=False)
    assert (await after.wait(30)).value == "rested"
    assert [(one.action, one.target, one.reason) for one in await client.control.audit()] == [
        ("worker", "worker:w1", ""), ("worker", "worker:w1", "its disk"),
    ]  # fmt: skip


async def test_a_worker_gets_other_slots_and_a_drained_one_keeps_them(open_app: OpenApp, nap: Any) -> None:
    client, _ = await open_app(worker=False), await open_app(name="w1", concurrency=1)
    await asyncio.sleep(1)
    handles = [await client.submit(nap.s()) for _ in range(9)]
    for slots, most in ((3, 3), (0, 1)):
        order = await client.control.order_worker("w1", concurrency=slots)
        assert order.concurrency == (slots or None)
        assert await client.control.silent_workers() == []
        await asyncio.sleep(12)
        assert await running(client, "w1") == most
    order = await client.control.order_worker("w1", drain=True)
    assert (order.drain, order.concurrency) == (True, None)
    await client.control.order_worker("w1", drain=False)
    assert [(await handle.wait(120)).value for handle in handles] == ["rested"] * 9


async def test_the_stacks_of_a_worker_show_where_its_handlers_wait(open_app: OpenApp, nap: Any) -> None:
    client, _ = await open_app(worker=False), await open_app(name="w1")
    await asyncio.sleep(1)
    handle = await client.submit(nap.s())
    await asyncio.sleep(2)
    (text,) = (await client.control.dump("w1")).values()
    assert f"task nap ({handle.id}), attempt 1, for " in text
    assert "await asyncio.sleep(10)" in text
    await asyncio.sleep(12)
    (text,) = (await client.control.dump("w1")).values()
    assert "no handler runs" in text


async def test_two_operators_at_once_both_get_what_they_want(open_app: OpenApp) -> None:
    ann, bob, _ = await open_app(worker=False), await open_app(worker=False), await open_app(name="w1")
    await asyncio.sleep(1)
    await asyncio.gather(ann.control.order_worker("w1", drain=True), bob.control.order_worker("w1", concurrency=3))
    order = await ann.control.order_worker("w1")
    assert (order.drain, order.concurrency) == (True, 3)


async def test_stacks_that_could_not_be_stored_are_stored_a_second_later(
    open_app: OpenApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, worker = await open_app(worker=False), await open_app(name="w1")
    await asyncio.sleep(1)
    put, failed = worker.store.put_hint, []

    async def once_away(topic: str, *rest: Any) -> None:
        if topic == DUMPS and not failed:
            failed.append(topic)
            raise StoreUnavailable("away for a moment")
        await put(topic, *rest)

    monkeypatch.setattr(worker.store, "put_hint", once_away)
    (text,) = (await client.control.dump("w1")).values()
    assert failed and "no handler runs" in text


async def test_a_name_that_no_live_worker_has_is_refused(open_app: OpenApp) -> None:
    client, _ = await open_app(worker=False), await open_app(name="w1")
    await asyncio.sleep(1)
    with pytest.raises(OptionError, match="'w2': expected the name of a live worker, of which there are: w1"):
        await client.control.order_worker("w2", drain=True)
    with pytest.raises(OptionError, match="w1"):
        await client.control.dump("w2")
