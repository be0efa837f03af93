"""Plain functions run in threads: what they can ask of the engine, and what happens when they do not end."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from stemflow import Canvas, OptionError, Stemflow, SyncTaskContext, TaskCancelled, TaskContext, TaskRegistry


@pytest.fixture
def registry() -> TaskRegistry:
    return TaskRegistry()


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """Handlers that wait for it end with the test at the latest."""
    gate = threading.Event()
    yield gate
    gate.set()


@pytest.fixture
async def app(registry: TaskRegistry) -> AsyncIterator[Stemflow]:
    async with Stemflow("memory:", registry, concurrency=2) as app:
        yield app


async def test_a_plain_function_asks_the_engine_with_methods_that_block(
    app: Stemflow, registry: TaskRegistry
) -> None:
    @registry.task("child")
    async def child(n: int) -> int:
        return n + 1

    @registry.task("parent")
    def parent(context: SyncTaskContext) -> dict[str, Any]:
        context.heartbeat()
        context.progress(50, {"half": True})
        run = context.enqueue(child.s(1))
        context.add_to_group(child.si(2))
        return {"run": run, "cancelled": context.cancelled.wait(0), "soft": context.soft_timeout.is_set()}

    result = await (await app.submit(Canvas.group(parent.s()))).wait(10)
    assert result.status == "succeeded", result.error
    asked, added = result.value
    assert (asked["cancelled"], asked["soft"], added) == (False, False, 3)
    assert (await (await app.handle(asked["run"])).wait(10)).value == 2


async def test_a_plain_function_retries_and_replaces_itself(app: Stemflow, registry: TaskRegistry) -> None:
    @registry.task("child")
    async def child(n: int) -> int:
        return n + 1

    @registry.task("restless", max_retries=1)
    def restless(context: SyncTaskContext) -> None:
        if context.attempt == 0:
            context.retry(countdown=0.001)
        context.replace(child.s(41))

    assert await app.run(Canvas.chain(restless.s())) == 42


async def test_a_thread_can_poll_its_soft_limit(app: Stemflow, registry: TaskRegistry) -> None:
    @registry.task("polls", soft_time_limit="20ms")
    def polls(context: SyncTaskContext) -> bool:
        return context.soft_timeout.wait(10)

    assert await app.run(polls.s()) is True


async def test_a_thread_that_overruns_its_hard_limit_keeps_its_slot_until_it_ends(
    app: Stemflow, registry: TaskRegistry, gate: threading.Event, caplog: pytest.LogCaptureFixture
) -> None:
    # Given a worker with two slots and a thread that nothing can end
    caplog.set_level(logging.WARNING, "stemflow")
    ended = threading.Event()
    inside: list[int] = []
    most: list[int] = []

    @registry.task("stuck", hard_time_limit="20ms")
    def stuck() -> str:
        gate.wait()
        ended.set()
        return "too late"

    @registry.task("quick")
    def quick() -> None:
        inside.append(1)
        most.append(len(inside))
        inside.pop()

    # When its limit has passed, it is disowned and the log names it
    handle = await app.submit(stuck.s())
    result = await handle.wait(10)
    assert result.error is not None
    assert result.error.type == "TaskTimeout"
    assert f"task stuck ({handle.id}) does not end" in caplog.text
    worker = app.service.slots if app.service else None
    assert worker is not None and len(worker.leaked) == 1

    # Then the others go on one at a time, and what it gives in the end changes nothing
    for other in [await app.submit(quick.s()) for _ in range(20)]:
        assert (await other.wait(10)).status == "succeeded"
    assert max(most) == 1
    gate.set()
    assert await asyncio.to_thread(ended.wait, 10)
    while worker.leaked:  # noqa: ASYNC110
        await asyncio.sleep(0)
    assert (await handle.wait(10)).status == "failed"


async def test_a_thread_whose_run_is_cancelled_is_notified_and_may_end_by_itself(
    app: Stemflow, registry: TaskRegistry
) -> None:
    begun = threading.Event()

    @registry.task("listens")
    def listens(context: SyncTaskContext) -> str:
        begun.set()
        assert context.cancelled.wait(10)
        with pytest.raises(TaskCancelled):
            context.heartbeat()
        return "heard"

    handle = await app.submit(Canvas.chain(listens.s()))
    assert await asyncio.to_thread(begun.wait, 10)
    await handle.cancel()
    assert (await handle.wait(10)).status == "cancelled"
    assert await handle.value_of("[0]") == "heard"


@pytest.mark.parametrize("force", [False, True])
async def test_a_thread_that_does_not_end_when_its_run_is_cancelled_is_disowned_and_keeps_its_slot(
    app: Stemflow, registry: TaskRegistry, gate: threading.Event, force: bool
) -> None:
    # Given a handler in a thread that is notified of nothing
    begun = threading.Event()

    @registry.task("deaf")
    def deaf() -> None:
        begun.set()
        gate.wait(30)

    handle = await app.submit(deaf.s())
    assert await asyncio.to_thread(begun.wait, 10)
    assert app.service is not None
    # When its run is cancelled, then the run ends all the same, and the slot is free once the thread has ended
    await handle.cancel(force=force)
    assert (await handle.wait(0 if force else 10)).status == "cancelled"
    async with asyncio.timeout(10):
        while not app.service.slots.leaked:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        gate.set()
        while app.service.slots.leaked:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_a_thread_that_outlives_its_engine_gets_an_error(
    registry: TaskRegistry, gate: threading.Event
) -> None:
    begun, told = threading.Event(), threading.Event()

    @registry.task("outlives")
    def outlives(context: SyncTaskContext) -> None:
        begun.set()
        gate.wait()
        try:
            context.progress(1)
        except TaskCancelled:
            told.set()

    async def short() -> None:
        async with Stemflow("memory:", registry) as app:
            await app.submit(outlives.s())
            assert await asyncio.to_thread(begun.wait, 10)

    await asyncio.to_thread(asyncio.run, short())
    gate.set()
    assert await asyncio.to_thread(told.wait, 10)


def test_the_context_that_blocks_is_not_for_async_functions(registry: TaskRegistry) -> None:
    async def wrong(context: SyncTaskContext) -> None: ...

    with pytest.raises(OptionError, match="expected an `async def` to take a TaskContext"):
        registry.task("wrong")(wrong)


async def test_a_plain_function_that_names_the_other_context_gets_the_one_that_blocks(
    app: Stemflow, registry: TaskRegistry
) -> None:
    @registry.task("old")
    def old(context: TaskContext) -> str:
        return type(context).__name__

    assert await app.run(old.s()) == "SyncTaskContext"


async def test_a_thread_that_waits_for_a_run_gives_its_slot_back(app: Stemflow, registry: TaskRegistry) -> None:
    # Given more levels that wait for one another than slots and threads
    @registry.task("tower")
    def tower(context: SyncTaskContext, height: int) -> int:
        below = context.run(registry.get("tower").s(height - 1)) if height > 1 else 0  # type: ignore[union-attr]
        return 1 + int(below)

    assert await asyncio.wait_for(app.run(tower.s(5)), 10) == 5


async def test_a_thread_that_waits_on_a_loop_of_its_own_gives_its_slot_back(
    registry: TaskRegistry, tmp_path: Path
) -> None:
    url = f"sqlite:{tmp_path / 'threads.db'}"

    @registry.task("child")
    async def child(n: int) -> int:
        return n + 1

    @registry.task("parent")
    def parent() -> int:
        async def wait() -> int:
            async with Stemflow(url, registry, worker=False) as other:
                return int(await other.run(child.s(1)))

        return asyncio.run(wait())

    async with Stemflow(url, registry, concurrency=1) as app:
        assert await asyncio.wait_for(app.run(parent.s()), 10) == 2
