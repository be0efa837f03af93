"""Handlers that block the event loop of their worker: the report of one is committed before the next is called."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from stemflow import TaskRegistry
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
