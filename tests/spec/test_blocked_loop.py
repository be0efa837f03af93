"""Handlers that block the event loop of their worker: the report of one is committed before the next is called."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from stemflow import TaskRegistry
from stemflow.model.facts import Ended, Ok
from stemflow.model.records import RUNNING, Node
from stemflow.runtime.worker.slots import Slots
from stemflow.testing.simulation.virtual_loop import VirtualLoop
from tests.spec.conftest import OpenApp

STORE_S = 0.2
"""How long the store takes for an exchange."""


@pytest.mark.parametrize("blocked_s", [0.15, 0.4, 3.0])
async def test_no_handler_is_called_while_the_report_of_one_that_blocked_the_loop_waits(
    blocked_s: float, registry: TaskRegistry, open_app: OpenApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting: list[int] = []

    @registry.task("block")
    async def block() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        assert app.service is not None
        waiting.append(len(app.service.slots.unreported))
        loop.pass_time(blocked_s)

    app = await open_app(registry, concurrency=20)
    exchange = app.store.exchange

    async def slow(*args: Any) -> Any:
        await asyncio.sleep(STORE_S)
        return await exchange(*args)

    monkeypatch.setattr(app.store, "exchange", slow)
    handles = await app.submit_many([block.s() for _ in range(20)])
    for handle in handles:
        await handle.wait()
    assert waiting == [0] * 20


async def test_a_lease_that_arrives_in_the_next_iteration_of_the_loop_waits_for_that_report_as_well(
    registry: TaskRegistry, open_app: OpenApp
) -> None:
    slots = Slots((await open_app(registry)).store, owner="w")
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    node = Node(run="r", path="a", plan="p", node=0, state=RUNNING, delivery=1, lease_ms=1_000)
    # Given a handler that has blocked the loop and ended
    await slots.wait_for_reports()
    loop.pass_time(0.2)
    slots.await_commit(node)
    # When, iterations of the loop later, another one is about to be called
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    waiting = asyncio.create_task(slots.wait_for_reports())
    await asyncio.sleep(0.1)
    # Then it waits until the report is committed
    assert not waiting.done()
    slots.settled([Ended(node.key, 1, Ok(None), 0)])
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert waiting.done()
