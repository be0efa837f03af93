"""Faults that were found by hand in the runtime, each held by a test."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from stemflow import (
    Canvas,
    OptionError,
    Reject,
    RetryPolicy,
    RunConflict,
    RunFailed,
    Stemflow,
    TaskContext,
    TaskRegistry,
)
from stemflow.dsl import parse_workflow
from stemflow.model.effects import Decision
from stemflow.model.records import Key, Record
from stemflow.runtime.clock import SystemClock
from stemflow.store.base import BackpressureError, Exchange, Request, StoreUnavailable, Want
from stemflow.store.memory.store import MemoryStore
from stemflow.testing.simulation.virtual_loop import VirtualClock, VirtualLoop
from tests.conftest import VirtualRun

registry = TaskRegistry()
attempts: list[str] = []


@registry.task("same")
async def same(value: Any) -> Any:
    return value


@registry.task("once_bad")
async def once_bad(ctx: TaskContext) -> str:
    attempts.append(ctx.run_id)
    if len(attempts) == 1:
        raise Reject("the first run fails")
    return "good"


@registry.task("stubborn")
async def stubborn(ctx: TaskContext) -> str:
    attempts.append("begun")
    try:
        await asyncio.sleep(30)
    except asyncio.CancelledError:
        return "done all the same"
    return "done"


@registry.task("hurried", expires="50ms")
async def hurried() -> str:
    attempts.append("hurried")
    return "late"


@registry.task("by_order", unique=True, unique_by="${{ args.order }}", unique_for="1h")
async def by_order(order: str, note: str = "") -> str:
    attempts.append(note)
    return order


@registry.task("too_slow", hard_time_limit="30ms", max_retries=3, retry=RetryPolicy.of(never_retry_on=("TaskTimeout",)))
async def too_slow() -> None:
    attempts.append("slow")
    await asyncio.sleep(30)


@pytest.fixture(autouse=True)
def none_so_far(caplog: pytest.LogCaptureFixture) -> None:
    attempts.clear()
    caplog.set_level(logging.CRITICAL, "stemflow")


class Hiccup(MemoryStore):
    """Fails to read as often as `fails` says."""

    fails = 0

    async def read(self, keys: Sequence[Key]) -> list[Record | None]:
        if self.fails > 0:
            self.fails -= 1
            raise StoreUnavailable("the store is away for a moment")
        return await super().read(keys)


async def test_a_store_that_cannot_be_read_for_a_moment_costs_no_attempt_and_stops_no_worker() -> None:
    store = Hiccup("memory:", SystemClock())
    async with Stemflow(registry=registry, store=store) as app:
        handle = await app.submit(Canvas.chain(same.s(1), same.s(), same.s()))
        store.fails = 2
        future = store.watch(handle.id)
        await asyncio.wait_for(future, 10)
        assert (await handle.wait(5)).value == 1
        assert all(node.attempt == 0 for node in await handle.records())


async def test_a_lone_task_can_be_rerun() -> None:
    async with Stemflow("memory:", registry) as app:
        handle = await app.submit(once_bad.s())
        assert (await handle.wait(5)).status == "failed"
        again = await app.rerun(handle.id, failed=True)
        assert (await again.wait(5)).value == "good"


async def test_a_rerun_has_the_items_of_a_map_that_never_opened() -> None:
    async with Stemflow("memory:", registry) as app:
        handle = await app.submit(Canvas.chain([once_bad.s(), Canvas.map(same.s(), [1, 2, 3])]))
        assert (await handle.wait(5)).status == "failed"
        assert (await (await app.rerun(handle.id, failed=True)).wait(5)).value == [1, 2, 3]


async def test_submitting_a_run_id_again_leaves_the_items_of_the_run_alone() -> None:
    async with Stemflow("memory:", registry) as app:
        first = await app.submit(Canvas.map(same.s(), [1, 2, 3, 4], concurrency=1), run_id="r")
        with pytest.raises(RunConflict):
            await app.submit(Canvas.map(same.s(), [10, 20, 30, 40], concurrency=1), run_id="r")
        assert (await first.wait(5)).value == [1, 2, 3, 4]


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_a_task_that_has_expired_is_not_started(kind: str, tmp_path: Path) -> None:
    store_url = "memory:" if kind == "memory" else f"sqlite:{tmp_path / 'runs.db'}"
    async with Stemflow(store_url, registry, worker=False) as producer:
        handle = await producer.submit(hurried.s())
        while producer.store.now_ms() <= (await handle.root()).opened_at_ms + 60:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        async with Stemflow(registry=registry, store=producer.store) as app:
            result = await (await app.handle(handle.id)).wait(5)
            assert (result.status, attempts) == ("failed", [])
            assert result.error is not None
            assert result.error.type == "Expired"


async def test_a_handler_that_ends_well_after_a_cancel_keeps_its_result() -> None:
    async with Stemflow("memory:", registry) as app:
        handle = await app.submit(Canvas.chain([stubborn.s()]))
        while not attempts:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        await handle.cancel()
        assert (await handle.wait(5)).status == "cancelled"
        assert await handle.value_of("[0]") == "done all the same"


async def test_unique_by_reads_arguments_by_name_however_they_were_given() -> None:
    async with Stemflow("memory:", registry) as app:
        first = await app.submit(by_order.s("A1", "first"))
        await first.wait(5)
        second = await app.submit(by_order.s(order="A1", note="second"))
        assert second.existing
        assert (second.id, attempts) == (first.id, ["first"])


async def test_a_hard_time_limit_is_judged_by_the_retry_policy() -> None:
    async with Stemflow("memory:", registry) as app:
        with pytest.raises(RunFailed, match="TaskTimeout"):
            await app.run(too_slow.s())
        assert attempts == ["slow"]


@registry.task("stops")
def stops() -> None:
    raise StopIteration


@registry.task("leaves")
async def leaves(how: str) -> None:
    raise {"GeneratorExit": GeneratorExit, "KeyboardInterrupt": KeyboardInterrupt, "SystemExit": SystemExit}[how]


async def test_whatever_a_handler_raises_ends_its_attempt() -> None:
    async with Stemflow("memory:", registry) as app:
        for signature in (stops.s(), *(leaves.s(how) for how in ("GeneratorExit", "KeyboardInterrupt", "SystemExit"))):
            result = await (await app.submit(signature)).wait(5)
            assert result.status == "failed", signature


def test_a_map_needs_room_for_one_member() -> None:
    for concurrency in (0, -1):
        with pytest.raises(OptionError, match="at least 1"):
            Canvas.map(same.s(), [1], concurrency=concurrency)


@registry.task("nap")
async def nap(value: int) -> int:
    await asyncio.sleep(0.003 * (value % 7))
    return value


@registry.task("weighed", max_retries=4, retry=RetryPolicy.of(backoff="fixed", initial="5ms"))
async def weighed(ctx: TaskContext, values: list[int]) -> int:
    attempts.append("null" if values is None else "list")
    if ctx.attempt < 3:
        raise RuntimeError("again, perhaps on the other worker")
    return sum(values)


async def test_a_value_is_the_stored_one_whichever_worker_asks_for_it() -> None:
    store = MemoryStore("memory:", SystemClock())
    flow = parse_workflow(SUMS, "sums.yaml").workflow
    assert flow is not None
    async with (
        Stemflow(registry=registry, store=store, concurrency=3) as one,
        Stemflow(registry=registry, store=store, concurrency=3),
    ):
        for _ in range(4):
            result = await (await one.submit(flow, inputs={})).wait(10)
            assert (result.status, result.value) == ("succeeded", {"sum": 780}), result.error
    assert set(attempts) == {"list"}


SUMS = """
stemflow: "1"
name: sums
steps:
  many:
    map: {items: range(40), as: n, concurrency: 6, do: {task: nap, args: {value: "${{ n }}"}}}
  sum: {task: weighed, args: {values: "${{ steps.many.output }}"}}
outputs: {sum: "${{ steps.sum.output }}"}
"""


def test_a_worker_whose_store_was_slow_for_a_while_is_notified_of_work_again(vrun: VirtualRun) -> None:
    async def main() -> float:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        clock = VirtualClock(loop)
        store = SlowStore("memory:", clock)
        async with (
            Stemflow("memory:", registry, store=store, clock=clock) as app,
            Stemflow("memory:", registry, store=store, clock=clock, worker=False) as producer,
        ):
            # Given a worker that rests
            await asyncio.sleep(5.5)
            assert app.service is not None
            # When it is woken for an exchange that takes longer than it ever waits for news
            store.slow = True
            app.service.slots.wake()
            await asyncio.sleep(1)
            store.slow = False
            await asyncio.sleep(10)
            # Then it begins what is submitted later
            handle = await producer.submit(same.s(1))
            before = loop.time()
            assert not (await handle.wait(60)).timed_out
            return loop.time() - before

    assert vrun(main) < 2


class SlowStore(MemoryStore):
    slow = False

    async def exchange(self, request: Request, decisions: Sequence[Decision], want: Want | None) -> Exchange:
        if self.slow and want is not None:
            await asyncio.sleep(3)
        return await super().exchange(request, decisions, want)


class FullStore(MemoryStore):
    """Takes no new work while it is `full`."""

    full = False

    async def exchange(self, request: Request, decisions: Sequence[Decision], want: Want | None) -> Exchange:
        if self.full and any(decision.headers for decision in decisions):
            raise BackpressureError("full")
        return await super().exchange(request, decisions, want)


def test_a_cancel_that_comes_with_refused_submissions_is_carried_out(vrun: VirtualRun) -> None:
    async def main() -> list[Any]:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        store = FullStore("memory:", VirtualClock(loop))
        async with Stemflow("memory:", registry, store=store, clock=VirtualClock(loop), worker=False) as app:
            handle = await app.submit(same.s(1))
            store.full = True
            asked = (app.submit(same.s(2)), handle.cancel(), app.submit(same.s(3)))
            told = await asyncio.gather(*asked, return_exceptions=True)
            return [*map(type, told), (await handle.root()).state]

    assert vrun(main) == [BackpressureError, str, BackpressureError, "cancelled"]


@registry.task("begets", max_retries=0)
async def begets(ctx: TaskContext) -> str:
    attempts.append(str(ctx.attempt))
    return await ctx.enqueue(same.s(1))


def test_a_task_whose_submission_the_store_refuses_waits_and_has_not_failed(vrun: VirtualRun) -> None:
    async def main() -> tuple[str, int]:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        store = FullStore("memory:", VirtualClock(loop))
        async with Stemflow("memory:", registry, store=store, clock=VirtualClock(loop)) as app:
            handle = await app.submit(begets.with_options(countdown=1).s())
            store.full = True
            await asyncio.sleep(5)
            store.full = False
            return (await handle.wait(10)).status, (await handle.root()).attempt

    attempts.clear()
    assert vrun(main) == ("succeeded", 0)
    assert len(attempts) > 2
