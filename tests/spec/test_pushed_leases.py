"""What a task that was pushed to an idle worker is owed; see `tests/store/test_pushed_leases.py` for when one is."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from stemflow import Stemflow, TaskContext, TaskRegistry
from stemflow.store.redis.notifications import Notifications
from tests.spec.conftest import OpenApp

pytestmark = pytest.mark.parametrize("url", ["redis"], indirect=True)


@pytest.fixture
def handed(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The news of leases that were handed, as they came."""
    found: list[bytes] = []
    hear = Notifications.on_message

    def heard(self: Notifications, channel: bytes, news: bytes) -> None:
        if b":k:" in channel and news:
            found.append(news)
        hear(self, channel, news)

    monkeypatch.setattr(Notifications, "on_message", heard)
    return found


async def test_tasks_that_come_one_after_the_other_are_all_pushed(
    open_app: OpenApp, registry: TaskRegistry, handed: list[bytes]
) -> None:
    @registry.task("double")
    async def double(x: int) -> int:
        return 2 * x

    await open_app()
    producer = await open_app(worker=False)
    await asyncio.sleep(5)
    for n in range(5):
        assert await producer.run(double.s(n)) == 2 * n
        await asyncio.sleep(n)
    assert len(handed) == 5


async def test_no_more_run_at_once_than_there_are_slots(
    open_app: OpenApp, registry: TaskRegistry, handed: list[bytes]
) -> None:
    at_once: list[int] = [0]

    @registry.task("slow")
    async def slow() -> None:
        at_once.append(at_once[-1] + 1)
        await asyncio.sleep(1)
        at_once.append(at_once[-1] - 1)

    await open_app(concurrency=2)
    producer = await open_app(worker=False)
    await asyncio.sleep(5)
    handles = [await producer.submit(slow.s()) for _ in range(6)]
    assert [(await handle.wait()).status for handle in handles] == ["succeeded"] * 6
    assert max(at_once) == 2
    assert handed


async def test_a_lease_pushed_to_a_worker_that_is_about_to_end_is_returned_uncharged(
    open_app: OpenApp, registry: TaskRegistry, handed: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[tuple[int, int]] = []

    @registry.task("work")
    async def work(context: TaskContext) -> None:
        begun.append((context.attempt, context.delivery))

    producer, ending = await open_app(worker=False), await open_app()
    await asyncio.sleep(5)
    # Given a task that is handed over just before a worker says that it takes no more
    handles: list[Any] = []
    exchange = ending.store.exchange

    async def meanwhile(*asked: Any) -> Any:
        if not handles:
            handles.append(None)
            handles[0] = await producer.submit(work.s())
        return await exchange(*asked)

    monkeypatch.setattr(ending.store, "exchange", meanwhile)
    await ending.__aexit__(None, None, None)
    assert len(handed) == 1
    assert begun == []
    # Then another one runs it at once
    other, since = await open_app(), producer.store.now_ms()
    await handles[0].wait()
    assert producer.store.now_ms() - since < 2_000
    root = await handles[0].root()
    assert (root.attempt, root.losses) == (0, 0)
    assert len(begun) == 1
    assert isinstance(other, Stemflow)


async def test_a_pushed_task_whose_notification_was_lost_runs_when_its_lease_expires_and_blocks_no_other(
    open_app: OpenApp, registry: TaskRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    @registry.task("work", visibility_timeout="10s")
    async def work(context: TaskContext) -> int:
        return context.delivery

    # Given news of work that is lost on its way, from some instant on
    hear, deaf = Notifications.on_message, list[bool]()

    def heard(self: Notifications, channel: bytes, news: bytes) -> None:
        if not (deaf and b":k:" in channel):
            hear(self, channel, news)

    monkeypatch.setattr(Notifications, "on_message", heard)
    await open_app()
    producer = await open_app(worker=False)
    await asyncio.sleep(5)
    deaf.append(True)
    first = await producer.submit(work.s())
    began = producer.store.now_ms()
    await asyncio.sleep(2)
    # Then the next are found when the worker looks around, though it goes on to hear nothing
    for _ in range(3):
        since = producer.store.now_ms()
        await producer.run(work.s())
        assert producer.store.now_ms() - since < 3_000
    assert (await first.wait()).status == "succeeded"
    assert 8_000 < producer.store.now_ms() - began < 14_000
    assert (await first.root()).losses == 1
