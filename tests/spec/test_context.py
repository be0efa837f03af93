"""`TaskContext`: what a handler is notified, and what it may ask for."""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from stemflow import (
    Canvas,
    Ignore,
    NodeEvent,
    RetryPolicy,
    Stemflow,
    TaskCancelled,
    TaskContext,
    TaskRegistry,
    current_context,
)
from stemflow.testing.simulation.virtual_loop import EPOCH_MS, VirtualClock
from tests.spec.conftest import OpenApp, renew_no_more

START = datetime.fromtimestamp(EPOCH_MS / 1_000, UTC)


async def test_the_id_is_the_same_over_all_attempts(app: Stemflow, registry: TaskRegistry) -> None:
    # Given a task that fails twice
    seen: list[tuple[str, int, int]] = []

    @registry.task("flaky", max_retries=2)
    async def flaky(context: TaskContext) -> None:
        seen.append((context.id, context.attempt, context.max_retries))
        await asyncio.sleep(60)
        if context.attempt < 2:
            raise ValueError("not yet")

    # When it has run, then each attempt had one number, counted from 0, and all had one id
    handle = await app.submit(flaky.s())
    assert (await handle.wait()).status == "succeeded"
    assert seen == [(handle.id, 0, 2), (handle.id, 1, 2), (handle.id, 2, 2)]


async def test_the_context_of_a_handler_describes_its_task(open_app: OpenApp, registry: TaskRegistry) -> None:
    # Given a member of a group in a queue of its own
    app = await open_app(queues=("default", "slow"))
    told: list[TaskContext] = []

    @registry.task("see", queue="slow")
    async def see(context: TaskContext, *numbers: int, word: str = "") -> None:
        told.append(context)

    # When it runs
    handle = await app.submit(Canvas.group(see.s(1, 2, word="x").named("first")))
    await handle.wait()

    # Then its context names the task, its place, its queue and its arguments
    (context,) = told
    assert (context.run_id, context.node, context.id) == (handle.id, "first", f"{handle.id}/first")
    assert (context.name, context.queue, context.attempt) == ("see", "slow", 0)
    assert (context.args, context.kwargs) == ((1, 2), {"word": "x"})


async def test_instants_are_aware_and_of_the_stores_clock(app: Stemflow, registry: TaskRegistry) -> None:
    # Given a task with a hard limit that starts a minute after it was submitted, and one without
    told: list[tuple[datetime, datetime | None]] = []

    @registry.task("limited", hard_time_limit="10s")
    async def limited(context: TaskContext) -> None:
        told.append((context.enqueued_at, context.deadline))

    @registry.task("unlimited")
    async def unlimited(context: TaskContext) -> None:
        told.append((context.enqueued_at, context.deadline))

    await app.run(limited.with_options(countdown=60).s())
    await app.run(unlimited.s())

    # Then it learns when it became known and when its limit ends it
    assert told[0] == (START, START + timedelta(seconds=70))
    assert told[1] == (START + timedelta(seconds=60), None)


async def test_what_a_handler_logs_carries_its_id_and_attempt(
    app: Stemflow, registry: TaskRegistry, caplog: pytest.LogCaptureFixture
) -> None:
    @registry.task("talks")
    async def talks(context: TaskContext) -> None:
        context.logger.warning("hello")

    handle = await app.submit(talks.s())
    await handle.wait()
    (record,) = [one for one in caplog.records if one.name == "stemflow.task.talks"]
    assert (record.levelno, record.getMessage()) == (logging.WARNING, "hello")
    assert (record.__dict__["task_id"], record.__dict__["attempt"]) == (handle.id, 0)


async def test_the_current_context_is_that_of_the_task_that_runs_here(app: Stemflow, registry: TaskRegistry) -> None:
    # Given two tasks side by side, and a helper that is given nothing
    async def helper() -> str:
        await asyncio.sleep(1)
        context = current_context()
        assert context is not None
        return context.node

    @registry.task("asks")
    async def asks() -> str:
        return await helper()

    # Then the helper finds the task that called it, and outside there is none
    assert await app.run(Canvas.group(asks.s(), asks.s())) == ["[0]", "[1]"]
    assert current_context() is None


# -- the lease


@pytest.mark.parametrize(("beats", "deliveries"), [(True, 1), (False, 2)])
async def test_a_heartbeat_renews_the_lease(
    app: Stemflow, registry: TaskRegistry, beats: bool, deliveries: int
) -> None:
    # Given a task that takes longer than its lease, and no periodic renewal
    begun: list[int] = []

    @registry.task("slow", visibility_timeout="2s")
    async def slow(context: TaskContext) -> None:
        begun.append(context.delivery)
        renew_no_more()
        for _ in range(5 if len(begun) == 1 else 0):
            await asyncio.sleep(0.5)
            if beats:
                await context.heartbeat()

    # Then it keeps its lease while it reports a heartbeat, and only then
    assert (await (await app.submit(slow.s())).wait()).status == "succeeded"
    assert len(begun) == deliveries


async def test_a_heartbeat_reports_that_the_run_was_stopped(open_app: OpenApp, registry: TaskRegistry) -> None:
    # Given a handler whose run another process cancels
    app, other = await open_app(), await open_app(worker=False)
    told: list[str] = []

    @registry.task("goes_on")
    async def goes_on(context: TaskContext) -> None:
        await context.heartbeat()
        await other.cancel(context.run_id)
        try:
            await context.heartbeat()
        except TaskCancelled as error:
            told.append(str(error))
            raise

    # When it reports a heartbeat, then it is notified at once
    handle = await app.submit(goes_on.s())
    assert (await handle.wait()).status == "cancelled"
    assert told == [f"task {handle.id}: its run was cancelled"]


async def test_a_heartbeat_reports_that_the_lease_was_lost(app: Stemflow, registry: TaskRegistry) -> None:
    # Given a handler whose lease nobody has renewed
    told: list[str] = []

    @registry.task("silent", visibility_timeout="1s")
    async def silent(context: TaskContext) -> None:
        if told:
            return
        told.append("")
        renew_no_more()
        await asyncio.sleep(2.5)
        try:
            await context.heartbeat()
        except TaskCancelled as error:
            told.append(str(error))

    # Then its next heartbeat says that nothing it reports counts any more
    handle = await app.submit(silent.s())
    await handle.wait()
    await asyncio.sleep(5)
    assert told[1].startswith(f"task {handle.id}: its ")


@pytest.mark.parametrize(("duration", "deliveries"), [("20s", 1), ("1s", 2)])
async def test_an_extended_lease_is_not_shortened_by_renewals(
    app: Stemflow, registry: TaskRegistry, duration: str, deliveries: int
) -> None:
    begun: list[int] = []

    @registry.task("long", visibility_timeout="2s")
    async def long(context: TaskContext) -> None:
        begun.append(context.delivery)
        if len(begun) == 1:
            await context.extend_lease(duration)
            await asyncio.sleep(1)
            # The last renewal was for two seconds.
            renew_no_more()
            await asyncio.sleep(15)

    assert (await (await app.submit(long.s())).wait()).status == "succeeded"
    assert len(begun) == deliveries


@pytest.mark.parametrize("lease", ["100ms", "1s", "3500ms"])
async def test_the_first_lease_of_an_idle_worker_is_renewed_in_time_however_short(
    lease: str, app: Stemflow, registry: TaskRegistry
) -> None:
    begun: list[int] = []

    @registry.task("works", visibility_timeout=lease)
    async def works(context: TaskContext) -> None:
        begun.append(context.delivery)
        await asyncio.sleep(10)

    # Given a worker that has had nothing to renew for a while
    for pause_s in (0.0, 2.9, 7.03):
        await asyncio.sleep(pause_s)
        # Then a task that it takes keeps its lease
        assert (await (await app.submit(works.s())).wait()).status == "succeeded"
    assert len(begun) == 3


# -- progress


async def _until_progress(app: Stemflow, run: str, percent: float) -> NodeEvent:
    async for event in (await app.handle(run)).events():
        if event.progress is not None and event.progress.percent == percent:
            return event
    raise AssertionError(f"the run ended and nobody told of {percent}")


async def test_progress_is_stored_and_streamed_to_waiters_in_another_process(
    open_app: OpenApp, registry: TaskRegistry
) -> None:
    # Given a task that reports while it works, and a process that follows its run
    app, other = await open_app(), await open_app(TaskRegistry(), worker=False)
    let_go = asyncio.Event()

    @registry.task("works")
    async def works(context: TaskContext) -> None:
        await context.progress(40, {"files": 4})
        await let_go.wait()
        await context.progress(80)
        await asyncio.sleep(1)

    handle = await app.submit(Canvas.group(works.s()))
    following = asyncio.create_task(_until_progress(other, handle.id, 80))

    # Then it is notified of each report, also of one that was there before it came
    event = await _until_progress(other, handle.id, 40)
    assert (event.path, event.state) == ("[0]", "running")
    assert event.progress is not None and event.progress.data == {"files": 4}
    let_go.set()
    assert (await following).path == "[0]"
    await handle.wait()


async def test_progress_of_an_attempt_is_not_shown_for_the_next_one(app: Stemflow, registry: TaskRegistry) -> None:
    # Given a task whose first attempt comes far, and a second one that has reported nothing
    @registry.task("flaky", max_retries=1, retry=RetryPolicy.of(initial="1s"))
    async def flaky(context: TaskContext) -> None:
        if context.attempt == 0:
            await context.progress(90)
            await asyncio.sleep(1)
            raise ValueError("all in vain")
        await asyncio.sleep(1)

    handle = await app.submit(flaky.s())
    told = [(event.attempt, event.progress.percent if event.progress else None) async for event in handle.events()]
    assert (0, 90) in told
    assert {percent for attempt, percent in told if attempt == 1} == {None}


async def test_the_progress_of_a_task_is_forgotten_after_an_hour(app: Stemflow, registry: TaskRegistry) -> None:
    @registry.task("works")
    async def works(context: TaskContext) -> None:
        await context.progress(40)

    handle = await app.submit(works.s())
    await handle.wait()
    assert set(await handle.progress()) == {""}
    # When an hour passes, in which no worker looks for work every second
    assert app.service is not None
    await app.service.stop(0)
    await asyncio.sleep(3_601)
    assert await handle.progress() == {}


@pytest.mark.parametrize(
    ("percent", "data", "sentence"),
    [
        (101, None, "progress: expected a percentage from 0 to 100, got 101"),
        (1, {"found": {1}}, "progress of wrong.data.found: expected a JSON value, got set"),
    ],
)
async def test_progress_that_is_not_a_percentage_or_not_json_is_refused(
    app: Stemflow, registry: TaskRegistry, percent: float, data: Any, sentence: str
) -> None:
    @registry.task("wrong")
    async def wrong(context: TaskContext) -> None:
        await context.progress(percent, data)

    result = await (await app.submit(wrong.s())).wait()
    assert result.error is not None and sentence in result.error.message


# -- what ends an attempt


@pytest.mark.parametrize("members", [0, 1, 1_000])
async def test_a_fan_in_waits_for_what_its_members_add_and_keeps_the_order(
    app: Stemflow, registry: TaskRegistry, members: int
) -> None:
    @registry.task("same")
    async def same(x: Any) -> Any:
        return x

    @registry.task("unfold")
    async def unfold(context: TaskContext) -> str:
        for i in range(members):
            await context.add_to_group(same.si(i))
        return "unfolded"

    chord = Canvas.chord([unfold.s(), same.s("beside")], same.s())
    assert await app.run(chord) == ["unfolded", "beside", *range(members)]


async def test_a_task_outside_of_a_fan_in_cannot_add_to_one(app: Stemflow, registry: TaskRegistry) -> None:
    @registry.task("lonely")
    async def lonely(context: TaskContext) -> None:
        await context.add_to_group(lonely.si())

    result = await (await app.submit(lonely.s())).wait()
    assert result.error is not None
    assert "add_to_group: expected a group, chord header or map around it, found none" in result.error.message


async def _starts(app: Stemflow, registry: TaskRegistry, clock: VirtualClock, **asked: Any) -> list[float]:
    """At which seconds the attempts start of a task that asks for a retry with `asked` until the third."""
    starts: list[float] = []

    @registry.task("again", max_retries=1)
    async def again(context: TaskContext) -> None:
        starts.append((clock.now_ms() - EPOCH_MS) / 1_000)
        if context.attempt < 2:
            await context.retry(**asked)

    await (await app.submit(again.s())).wait()
    return starts


@pytest.mark.parametrize(
    ("asked", "starts"),
    [
        ({"countdown": 7}, [0, 7]),
        ({"countdown": "1m30s"}, [0, 90]),
        ({"eta": START + timedelta(minutes=3)}, [0, 180]),
        ({"eta": START.timestamp() + 60}, [0, 60]),
        ({"policy": RetryPolicy.of(backoff="fixed", initial="5s", jitter=0)}, [0, 5]),
        ({"countdown": 1, "max_retries": 5}, [0, 1, 2]),
        ({"countdown": 1, "max_retries": 0}, [0]),
    ],
)
async def test_a_handler_says_when_and_how_often_it_is_tried_again(
    app: Stemflow, registry: TaskRegistry, clock: VirtualClock, asked: dict[str, Any], starts: list[float]
) -> None:
    """The task itself allows one retry."""
    assert await _starts(app, registry, clock, **asked) == starts


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        ({"countdown": 1, "eta": START}, "retry: expected countdown or eta, got both"),
        ({"eta": datetime(2030, 1, 1)}, "retry: eta: expected a datetime with a time zone, got 2030-01-01 00:00:00"),
        ({"eta": 1e20}, "retry: eta: expected an aware datetime, or seconds since the epoch up to the year 9999, got"),
        ({"eta": float("nan")}, "up to the year 9999, got nan"),
        ({"eta": "tomorrow"}, "up to the year 9999, got 'tomorrow'"),
        ({"countdown": -1}, "expected a duration from 0 to 100 years, got -1"),
        ({"max_retries": -1}, "retry: max_retries: expected a whole number from 0 to 1000000, got -1"),
        ({"max_retries": "3"}, "retry: max_retries: expected a whole number from 0 to 1000000, got '3'"),
        ({"policy": {"initial": 1}}, "retry: policy: expected a RetryPolicy, got {'initial': 1}"),
    ],
)
async def test_a_retry_that_means_nothing_is_refused(
    app: Stemflow, registry: TaskRegistry, asked: dict[str, Any], sentence: str
) -> None:
    @registry.task("confused")
    async def confused(context: TaskContext) -> None:
        await context.retry(**asked)

    result = await (await app.submit(confused.s())).wait()
    assert result.error is not None and sentence in result.error.message


async def test_the_cause_of_a_retry_is_the_final_error(app: Stemflow, registry: TaskRegistry) -> None:
    @registry.task("asks")
    async def asks(context: TaskContext) -> None:
        await context.retry(cause=ConnectionError("no route"))

    result = await (await app.submit(asks.s())).wait()
    assert result.error is not None and (result.error.type, result.error.message) == ("ConnectionError", "no route")


async def test_the_event_cancelled_is_set_before_the_handler_is_cancelled(
    app: Stemflow, registry: TaskRegistry
) -> None:
    told: list[bool] = []

    @registry.task("waits")
    async def waits(context: TaskContext) -> None:
        told.append(context.cancelled.is_set())
        try:
            await asyncio.sleep(100)
        finally:
            told.append(context.cancelled.is_set())

    handle = await app.submit(waits.s())
    await asyncio.sleep(1)
    await handle.cancel()
    await handle.wait()
    assert told == [False, True]


async def test_the_event_soft_timeout_is_set_when_the_soft_limit_has_passed(
    app: Stemflow, registry: TaskRegistry, clock: VirtualClock
) -> None:
    @registry.task("careful", soft_time_limit="5s")
    async def careful(context: TaskContext) -> int:
        await context.soft_timeout.wait()
        return clock.now_ms() - EPOCH_MS

    assert await app.run(careful.s()) == 5_000


async def test_a_task_puts_a_sub_graph_in_its_place(app: Stemflow, registry: TaskRegistry) -> None:
    @registry.task("double")
    async def double(x: int) -> int:
        return 2 * x

    @registry.task("becomes")
    async def becomes(context: TaskContext, x: int) -> int:
        return await context.replace(double.s(x) | double.s())

    assert await app.run(becomes.s(1) | double.s()) == 8


async def test_a_handler_that_raises_ignore_skips_its_task(app: Stemflow, registry: TaskRegistry) -> None:
    @registry.task("nothing_to_do")
    async def nothing_to_do() -> None:
        raise Ignore

    handle = await app.submit(Canvas.chain(nothing_to_do.s(), nothing_to_do.si()))
    assert (await handle.wait()).status == "skipped"
    assert [(node.state, node.cause) for node in await handle.records() if node.path == "[0]"] == [
        ("skipped", "condition")
    ]
