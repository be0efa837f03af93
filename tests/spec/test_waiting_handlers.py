"""Handlers that start runs, wait for them and cancel them: slots, lineage, cancellation."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from stemflow import Canvas, RunFailed, Stemflow, TaskContext, TaskRegistry, UnknownRun, current_context
from stemflow.testing import context_for
from tests.spec.conftest import OpenApp


@pytest.fixture
def child(registry: TaskRegistry) -> Any:
    @registry.task("child")
    async def child(x: int) -> int:
        await asyncio.sleep(1)
        return 2 * x

    return child


async def _by_context(context: TaskContext, app: Stemflow, sig: Any) -> Any:
    return await context.run(sig)


async def _by_app(context: TaskContext, app: Stemflow, sig: Any) -> Any:
    return await app.run(sig)


async def _by_handle(context: TaskContext, app: Stemflow, sig: Any) -> Any:
    return (await (await app.submit(sig)).wait(timeout=60)).value


async def _by_id(context: TaskContext, app: Stemflow, sig: Any) -> Any:
    return (await app.wait_for_task(await context.enqueue(sig))).value


async def _by_members(context: TaskContext, app: Stemflow, sig: Any) -> Any:
    handle = await app.submit(Canvas.group(sig))
    (value,) = [member.value async for member in handle.members()]
    return value


@pytest.mark.parametrize("wait", [_by_context, _by_app, _by_handle, _by_id, _by_members])
@pytest.mark.parametrize("concurrency", [1, 2])
async def test_a_handler_that_waits_for_a_run_gives_its_slot_back(
    open_app: OpenApp, registry: TaskRegistry, child: Any, wait: Callable[..., Any], concurrency: int
) -> None:
    @registry.task("parent")
    async def parent(context: TaskContext, x: int) -> Any:
        await asyncio.sleep(1)  # until all slots are taken
        return await wait(context, app, child.s(x))

    app = await open_app(concurrency=concurrency)
    handles = await app.submit_many([parent.s(x) for x in range(3)])
    assert [(await handle.wait(timeout=600)).value for handle in handles] == [0, 2, 4]


async def test_never_more_handlers_work_than_there_are_slots(open_app: OpenApp, registry: TaskRegistry) -> None:
    # Given tasks that work before and after they wait for one another, five levels deep, on two slots
    at_work = most = 0

    async def work() -> None:
        nonlocal at_work, most
        at_work += 1
        most = max(most, at_work)
        await asyncio.sleep(1)
        at_work -= 1

    @registry.task("nested")
    async def nested(context: TaskContext, depth: int) -> int:
        await work()
        below = await context.run(registry.get("nested").s(depth - 1)) if depth else 0  # type: ignore[union-attr]
        await work()
        return int(below) + 1

    app = await open_app(concurrency=2)
    handles = await app.submit_many([nested.s(4) for _ in range(4)])

    # Then all end, and at no time more than two worked
    assert [(await handle.wait(timeout=6_000)).value for handle in handles] == [5] * 4
    assert most == 2
    assert app.service is not None and app.service.slots.released.occupied == 0


async def test_a_handler_that_gives_up_waiting_goes_on(open_app: OpenApp, registry: TaskRegistry, child: Any) -> None:
    @registry.task("impatient")
    async def impatient(context: TaskContext) -> str:
        handle = await app.submit(Canvas.wait("1h"))
        assert (await handle.wait(timeout=5)).timed_out
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(handle.wait(), 5)
        both = asyncio.gather(context.run(child.s(1)), context.run(child.s(2)))
        return f"{await both} {await context.cancel_run(handle.id)}"

    app = await open_app(concurrency=1)
    assert await app.run(impatient.s()) == "[2, 4] held"
    assert app.service is not None and app.service.slots.released.occupied == 0


async def test_a_handler_whose_run_is_cancelled_while_it_waits_ends(open_app: OpenApp, registry: TaskRegistry) -> None:
    @registry.task("waits")
    async def waits(context: TaskContext) -> None:
        await context.run(Canvas.wait("1h"))

    app = await open_app(concurrency=1)
    handle = await app.submit(waits.s())
    await asyncio.sleep(5)
    assert app.service is not None and app.service.slots.released.occupied == 0
    await handle.cancel()
    assert (await handle.wait(timeout=60)).status == "cancelled"
    assert app.service.slots.released.occupied == 0


async def test_a_run_that_fails_fails_the_handler_that_waits_for_it(app: Stemflow, registry: TaskRegistry) -> None:
    @registry.task("parent")
    async def parent(context: TaskContext) -> None:
        await context.run(Canvas.fail("no paper"))

    with pytest.raises(RunFailed, match=r"RunFailed: run .* failed: WorkflowError: no paper|no paper"):
        await app.run(parent.s())


async def test_a_context_cancels_another_run(app: Stemflow, registry: TaskRegistry) -> None:
    @registry.task("stop")
    async def stop(context: TaskContext, run_id: str, force: bool) -> str:
        return await context.cancel_run(run_id, force=force)

    for force in (False, True):
        other = await app.submit(Canvas.wait("1h"))
        assert await app.run(stop.s(other.id, force)) == "held"
        assert (await other.wait(timeout=60)).status == "cancelled"
    with pytest.raises(RunFailed, match=UnknownRun.__name__):
        await app.run(stop.s("nothing", False))


async def test_what_the_engine_submits_in_a_handler_keeps_lineage_and_trace(
    open_app: OpenApp, registry: TaskRegistry
) -> None:
    seen: dict[str, TaskContext] = {}

    @registry.task("see")
    async def see(context: TaskContext, word: str) -> None:
        seen[word] = context

    @registry.task("start")
    async def start(context: TaskContext) -> None:
        await context.run(see.s("context"))
        await app.run(see.s("run"))
        await (await app.submit(see.s("own headers"), headers={"traceparent": "mine"})).wait()
        for handle in await app.submit_many([see.s("many")]):
            await handle.wait()

    app = await open_app()
    handle = await app.submit(Canvas.group(start.s()), run_id="top", headers={"traceparent": "00-1", "other": "x"})
    assert (await handle.wait()).status == "succeeded"
    await app.run(see.s("outside"))

    # Then parent, root and the propagated headers are those of the task that started it
    for word in ("context", "run", "own headers", "many"):
        assert (seen[word].parent_id, seen[word].root_id) == ("top/[0]", "top")
    assert {word: dict(one.headers) for word, one in seen.items()} == {
        "context": {"traceparent": "00-1"}, "run": {"traceparent": "00-1"}, "many": {"traceparent": "00-1"},
        "own headers": {"traceparent": "mine"}, "outside": {},
    }  # fmt: skip
    assert seen["outside"].parent_id is None


async def test_a_run_that_a_handler_starts_does_not_inherit_its_context_variables(
    open_app: OpenApp, registry: TaskRegistry
) -> None:
    # A submission may lease for the worker of the same process: what it starts is no part of the handler.
    contexts: list[TaskContext | None] = []
    registry.signals.received.connect(lambda event: contexts.append(current_context()))

    @registry.task("child")
    async def child() -> None: ...

    @registry.task("parent")
    async def parent(context: TaskContext) -> None:
        await context.run(child.s())

    app = await open_app()
    await app.run(parent.s())
    assert contexts == [None, None]


async def test_a_recorded_context_answers_and_records(registry: TaskRegistry, child: Any) -> None:
    @registry.task("total")
    async def total(context: TaskContext) -> int:
        await context.cancel_run("old")
        return int(await context.run(child.s(1))) + 1

    context = context_for(total)
    context.asked.values = [41]
    assert await total(context) == 42
    assert ([one.args for one in context.asked.enqueued], context.asked.cancelled_runs) == ([(1,)], ["old"])
