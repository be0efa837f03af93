"""Tasks that the worker at hand has not registered: others may, and when nobody does the run ends all the same."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Annotated, Any

import pytest
from msgspec import Meta
from pydantic import BaseModel

from stemflow import (
    BadArguments,
    Canvas,
    GzipEncoder,
    OptionError,
    Stemflow,
    TaskContext,
    TaskDefinition,
    TaskPayloadEncoderRegistry,
    TaskRegistry,
    UnknownTask,
)
from stemflow.runtime.catalog.heartbeats import heartbeats
from stemflow.testing.simulation.virtual_loop import VirtualClock
from tests.spec.conftest import OpenApp

pay: TaskDefinition[int, int] = TaskDefinition("pay", encode_args=lambda amount: {"amount": amount})


def with_pay(**options: Any) -> TaskRegistry:
    registry = TaskRegistry()

    @registry.task("pay", **options)
    async def pay(amount: int = 0) -> int:
        return amount

    return registry


async def test_a_task_that_no_worker_declares_fails_after_a_while_with_a_dead_letter(
    open_app: OpenApp, clock: VirtualClock
) -> None:
    # Given a worker that knows nothing, and a group with one task that is known and one that nobody knows
    registry = TaskRegistry()

    @registry.task("known")
    async def known() -> int:
        return 1

    app = await open_app(registry)
    started_ms = clock.now_ms()
    # When it is submitted all the same
    handle = await app.submit(Canvas.group(known.s(), pay.call(3)))
    result = await handle.wait(timeout=600)
    # Then the group ends with the reason, after the time that is set and no attempt was charged
    assert (result.status, result.failed_at, result.attempt) == ("failed", "[1]", 0)
    assert result.error is not None and result.error.type == "UnregisteredTask"
    assert 60_000 <= clock.now_ms() - started_ms < 70_000
    assert [letter.reason for letter in await app.store.dead_letters(handle.id)] == ["unregistered-task"]


async def test_a_worker_that_lacks_a_task_leaves_it_to_one_that_knows_it(open_app: OpenApp) -> None:
    # Given a worker that lacks a task and one that starts half a minute later
    ignorant = await open_app(TaskRegistry())
    handle = await ignorant.submit(pay.call(3))
    await asyncio.sleep(30)
    assert (await handle.root()).state != "failed"
    await open_app(with_pay())
    # Then the second one runs it, in its first attempt
    result = await handle.wait(timeout=60)
    assert (result.status, result.value) == ("succeeded", 3)
    root = await handle.root()
    assert (root.attempt, root.losses) == (0, 0)


async def test_as_long_as_a_live_worker_declares_the_task_it_waits_for_it(open_app: OpenApp) -> None:
    # Given a worker that knows the task but is busy, and one that does not know it
    busy, ignorant = await open_app(with_pay(), queues=("other",)), await open_app(TaskRegistry())
    handle = await ignorant.submit(pay.call(3))
    # When five minutes pass
    result = await handle.wait(timeout=300)
    # Then it still waits; and a minute after the worker that knows it has left, it has failed
    assert result.timed_out
    assert busy.service is not None
    await busy.service.stop(0)
    await asyncio.sleep(50)
    assert (await handle.root()).state not in ("failed", "succeeded")
    assert (await handle.wait(timeout=20)).status == "failed"


async def test_a_worker_that_starts_first_after_a_long_break_gives_the_others_time_to_start(open_app: OpenApp) -> None:
    # Given a task that has waited for an hour while there was no worker
    producer = await open_app(TaskRegistry(), worker=False)
    handle = await producer.submit(pay.call(3))
    await asyncio.sleep(3_600)
    # When a worker that lacks it starts, and half a minute later one that knows it
    await open_app(TaskRegistry())
    await asyncio.sleep(30)
    await open_app(with_pay())
    # Then it runs
    assert (await handle.wait(timeout=60)).value == 3


async def test_a_producer_takes_the_options_that_workers_declared_and_freezes_them(open_app: OpenApp) -> None:
    # Given a worker of a task with options of its own
    await open_app(with_pay(max_retries=4, queue="money", priority=7), queues=("money",))
    await asyncio.sleep(1)
    # When a process submits it that knows no more than its name
    producer = await open_app(TaskRegistry(), worker=False)
    handle = await producer.submit(pay.call(5))
    # Then it is in that queue, with those options, and runs
    root = await handle.root()
    assert (root.queue, root.priority) == ("money", 7)
    shape = await producer.library.shape(root.plan)
    assert shape.plan.options[0].max_retries == 4
    assert (await handle.wait(timeout=30)).value == 5


async def test_a_task_known_to_nobody_is_refused_unless_that_is_allowed(open_app: OpenApp) -> None:
    # Given a producer on a store of which no worker ever told anything
    other = TaskRegistry()

    @other.task("nowhere", max_retries=3)
    async def nowhere() -> None: ...

    producer = await open_app(TaskRegistry(priority=2), worker=False)
    # When it submits a task of another registry, then it is refused and nothing is stored
    with pytest.raises(UnknownTask, match="no worker has declared it"):
        await producer.submit(Canvas.chain(nowhere.s()))
    assert await producer.store.runs(10) == []
    # But with allow_unknown it is taken, with the defaults of the app
    handle = await producer.submit(nowhere.s(), allow_unknown=True)
    root = await handle.root()
    assert (root.state, root.priority) == ("ready", 2)


async def test_declarations_outlive_their_workers_for_a_day(open_app: OpenApp) -> None:
    # Given a worker that has come and gone
    worker = await open_app(with_pay(queue="money"))
    await asyncio.sleep(1)
    assert worker.service is not None
    await worker.service.stop(0)
    await asyncio.sleep(20 * 3_600)
    # When a producer submits its task the next morning
    producer = await open_app(TaskRegistry(), worker=False)
    handle = await producer.submit(pay.call(1))
    # Then it is still known where it belongs
    assert (await handle.root()).queue == "money"


async def test_workers_publish_heartbeats_and_their_end(open_app: OpenApp, clock: VirtualClock) -> None:
    # Given two workers under one name
    first, second = await open_app(with_pay(), name="w"), await open_app(with_pay(), name="w")
    await asyncio.sleep(12)
    # Then both are listed, each under an owner of its own
    told = await heartbeats(second.store)
    assert [beat.name for beat in told.values()] == ["w", "w"]
    assert all(beat.alive(clock.now_ms()) for beat in told.values())
    # When one leaves
    assert first.service is not None and second.service is not None
    await first.service.stop(0)
    told = await heartbeats(second.store)
    assert told[first.service.slots.owner].state == "stopped"
    assert told[second.service.slots.owner].state == "running"


async def test_a_second_stop_does_not_wait_for_the_grace_period(
    app: Stemflow, registry: TaskRegistry, clock: VirtualClock
) -> None:
    # Given a task that takes an hour, and a worker that was asked to let it end
    @registry.task("long")
    async def long() -> None:
        await asyncio.sleep(3_600)

    handle = await app.submit(long.s())
    await asyncio.sleep(1)
    assert app.service is not None
    stopping = asyncio.create_task(app.service.stop(600_000))
    await asyncio.sleep(10)
    assert not stopping.done()
    # When it is notified again
    await app.service.stop(0)
    await stopping
    # Then the task is back in the queue at once, and nothing was charged
    root = await handle.root()
    assert (root.state, root.attempt, root.losses) == ("ready", 0, 0)
    assert root.at_ms <= clock.now_ms()


async def test_a_key_over_named_arguments_is_judged_by_a_producer_that_lacks_the_task(open_app: OpenApp) -> None:
    # Given a worker whose task is unique by one of its arguments, given by position
    registry = TaskRegistry()

    @registry.task("ship", unique=True, unique_by="${{ args.order }}")
    async def ship(order: str, note: str) -> str:
        await asyncio.sleep(60)
        return note

    await open_app(registry)
    await asyncio.sleep(1)
    # When a producer that lacks it submits it twice for one order
    producer = await open_app(TaskRegistry(), worker=False)
    first = await producer.submit(ship.s("A", "one"))
    second = await producer.submit(ship.s("A", "two"))
    # Then the second is notified of the first
    assert (second.existing, second.id) == (True, first.id)


@dataclass
class Line:
    sku: str
    qty: Annotated[int, Meta(ge=1)] = 1


class Address(BaseModel):
    zip: int


WRONG: list[tuple[tuple[Any, ...], dict[str, Any], str]] = [
    ((), {}, "task order: lines: expected a value, got none"),
    (([], 1, 2, 3), {}, "task order: its arguments: expected at most 3 by position, got 4"),
    (([],), {"who": "x"}, "task order: who: expected one of the parameters (lines, price, day, to), got a name"),
    (([{"sku": "a", "qty": 0}],), {}, "task order: lines[0].qty: expected a number of at least 1, got 0"),
    (([{"sku": 3}],), {}, "task order: lines[0].sku: expected a text, got 3"),
    ((3,), {}, "task order: lines: expected a list, got 3"),
]


@pytest.fixture
def order() -> Any:
    """A task whose worker is another process; its registry is at `order.registry`."""
    registry = TaskRegistry()

    @registry.task("order")
    async def order(lines: list[Line], price: Decimal = Decimal(1), day: date | None = None, *, to: Any = None) -> str:
        return f"{sum(line.qty for line in lines)} for {price} on {day}"

    @registry.task("send")
    async def send(address: Address, *notes: str) -> int:
        return address.zip + len(notes)

    order.registry = registry
    return order


@pytest.mark.parametrize(("args", "kwargs", "sentence"), WRONG, ids=str)
async def test_arguments_are_checked_by_what_a_worker_has_declared(
    open_app: OpenApp, order: Any, args: tuple[Any, ...], kwargs: dict[str, Any], sentence: str
) -> None:
    # Given a producer that knows a task only by what its worker has declared
    await open_app(order.registry)
    await asyncio.sleep(1)
    producer = await open_app(TaskRegistry(), worker=False)

    # When it submits arguments that do not fit, by itself or within a canvas, then they are refused and nothing is
    # stored
    call = Canvas.task("order", *args, **kwargs)
    for asked in (call, Canvas.group(call)):
        with pytest.raises(BadArguments) as refused:
            await producer.submit(asked)
        assert str(refused.value).startswith(sentence)
    assert await producer.store.runs(10) == []


async def test_what_a_worker_accepts_is_not_refused_by_its_declaration(open_app: OpenApp, order: Any) -> None:
    """A schema tells less than the worker knows: a Decimal may be a number, pydantic reads numbers from texts."""
    await open_app(order.registry)
    await asyncio.sleep(1)
    producer = await open_app(TaskRegistry(), worker=False)
    for asked, value in (
        (Canvas.task("order", [Line("a", 2)], 3.5, day=date(2026, 1, 2)), "2 for 3.5 on 2026-01-02"),
        (Canvas.task("order", lines=({"sku": "a"},), to={"any": "thing"}), "1 for 1 on None"),
        (Canvas.task("send", {"zip": "12"}, "a", "b"), 14),
        (Canvas.map(Canvas.task("order"), [[{"sku": "a"}]]), ["1 for 1 on None"]),
    ):
        assert await producer.run(asked) == value
    with pytest.raises(BadArguments, match=r"items\[1\]: lines: expected a list, got 3"):
        await producer.submit(Canvas.map(Canvas.task("order"), [[], 3]))


async def test_a_task_may_add_and_be_replaced_by_tasks_of_other_workers(open_app: OpenApp, order: Any) -> None:
    # Given a worker whose tasks know one of another worker by its name, with a queue of its own and a limit of retries
    remote = TaskRegistry()

    @remote.task("far", queue="far", max_retries=3)
    async def far(context: TaskContext, n: int) -> tuple[str, int, int]:
        return context.queue, context.max_retries, n

    registry = TaskRegistry()

    @registry.task("becomes")
    async def becomes(context: TaskContext, *args: Any) -> Any:
        return await context.replace(Canvas.task("far", *args))

    @registry.task("adds")
    async def adds(context: TaskContext) -> None:
        await context.add_to_group(Canvas.task("far", 2))

    await open_app(remote)
    app = await open_app(registry, queues=("default",))
    await asyncio.sleep(1)

    # Then they take its place and join with the options and the checks that were declared
    assert await app.run(becomes.s(1)) == ["far", 3, 1]
    assert await app.run(Canvas.group(adds.s())) == [None, ["far", 3, 2]]
    result = await (await app.submit(becomes.s("one"))).wait()
    assert result.error is not None
    assert (result.status, result.error.message) == ("failed", "task far: n: expected a whole number, got 'one'")


async def test_arguments_are_written_by_the_encoder_that_a_worker_has_declared(open_app: OpenApp) -> None:
    registry = TaskRegistry()

    @registry.task("zipped", args_encoder="gzip")
    async def zipped(text: str) -> int:
        return len(text)

    encoders = TaskPayloadEncoderRegistry(GzipEncoder())
    await open_app(registry, encoders=encoders)
    await asyncio.sleep(1)
    producer = await open_app(TaskRegistry(), worker=False, encoders=encoders)
    for asked, size in ((Canvas.task("zipped", "x" * 1_000), 1_000), (Canvas.map(Canvas.task("zipped"), ["a"]), [1])):
        handle = await producer.submit(asked)
        header = await producer.library.header(handle.id)
        assert (await handle.wait()).value == size
        assert b"xxxx" not in header.inputs


async def test_an_option_that_is_a_function_is_refused_where_it_cannot_be_called(open_app: OpenApp) -> None:
    # Given a worker whose task is unique by a function
    registry = TaskRegistry()

    @registry.task("ship", unique=True, unique_by=lambda order: order)
    async def ship(order: str) -> None: ...

    await open_app(registry)
    await asyncio.sleep(1)
    # Then a producer that lacks it learns so, before anything is stored
    producer = await open_app(TaskRegistry(), worker=False)
    with pytest.raises(OptionError, match="unique_by: expected an expression, got a function"):
        await producer.submit(ship.s("A"))
