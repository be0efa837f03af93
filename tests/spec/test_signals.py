"""Signals: which there are, when and in which process they are sent, and that a listener changes nothing."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import Any

import pytest

from stemflow import (
    Canvas,
    DuplicateRun,
    Ignore,
    Reject,
    RetryPolicy,
    RunEvent,
    Stemflow,
    TaskContext,
    TaskEvent,
    TaskRegistry,
    WorkerEvent,
)
from stemflow.runtime.tasks.signals import Signal
from stemflow.store.base import StoreError
from stemflow.testing.simulation.virtual_loop import EPOCH_MS, VirtualClock
from tests.spec.conftest import OpenApp

TASK = ("received", "prerun", "postrun", "retry", "succeeded", "failed", "cancelled")
RUN = ("before_publish", "after_publish", "run_started", "run_completed", "run_failed", "run_cancelled")
SUSPENDED = ("run_suspended", "run_resumed")
WORKER = ("worker_init", "worker_ready", "worker_stopping", "worker_shutdown")


class Told(list[Any]):
    """The events of a registry's signals, in order."""

    def __init__(self, registry: TaskRegistry, *names: str) -> None:
        super().__init__()
        for name in names:
            signal: Signal[Any] = getattr(registry.signals, name)
            signal.connect(self.append)

    @property
    def names(self) -> list[str]:
        return [event.signal for event in self]


@pytest.fixture
def quick(registry: TaskRegistry) -> Any:
    @registry.task("quick")
    async def quick(*before: Any) -> str:
        return "done"

    return quick


async def test_a_task_that_succeeds_is_signalled_from_its_submission_to_its_end(
    app: Stemflow, registry: TaskRegistry, quick: Any
) -> None:
    told = Told(registry, *TASK, *RUN)
    handle = await app.submit(quick.s(), headers={"tenant": "a"})
    await handle.wait()
    assert told.names == [
        "before_publish", "run_started", "after_publish", "received", "prerun", "postrun", "succeeded", "run_completed",
    ]  # fmt: skip
    runs = [event for event in told if isinstance(event, RunEvent)]
    assert {(event.run_id, event.name, event.headers["tenant"]) for event in runs} == {(handle.id, "quick", "a")}
    tasks = [event for event in told if isinstance(event, TaskEvent)]
    assert {(event.id, event.task, event.node, event.attempt, event.queue) for event in tasks} == {
        (handle.id, "quick", "", 0, "default")
    }


async def test_a_task_is_signalled_at_each_retry_and_when_it_has_failed(
    app: Stemflow, registry: TaskRegistry, clock: VirtualClock
) -> None:
    # Given a member that fails twice
    @registry.task("fails", max_retries=1, retry=RetryPolicy.of(backoff="fixed", initial="5s", jitter=0))
    async def fails() -> None:
        raise ValueError("no")

    told = Told(registry, "prerun", "postrun", "retry", "succeeded", "failed", "run_completed", "run_failed")
    handle = await app.submit(Canvas.group(fails.s()))
    await handle.wait()

    # Then its retry says when, its failure why, and the run has failed with it
    assert told.names == ["prerun", "postrun", "retry", "prerun", "postrun", "failed", "run_failed"]
    retry, failed = told[2], told[5]
    assert (retry.id, retry.attempt, retry.next_at_ms) == (f"{handle.id}/[0]", 1, EPOCH_MS + 5_000)
    assert retry.error.message == "no"
    assert (failed.attempt, failed.error.type, failed.at_ms) == (1, "ValueError", EPOCH_MS + 5_000)
    assert told[1].error.type == "ValueError"


async def test_a_delivery_that_is_handed_back_is_no_retry(app: Stemflow, registry: TaskRegistry) -> None:
    # Given a task that failed once and whose worker then goes away
    @registry.task("slow", max_retries=1, retry=RetryPolicy.of(backoff="fixed", initial="1s", jitter=0))
    async def slow(context: TaskContext) -> None:
        if context.attempt == 0:
            raise ValueError("no")
        await asyncio.sleep(100)

    told = Told(registry, "retry", "failed")
    await app.submit(slow.s())
    await asyncio.sleep(5)
    await app.hand_back()
    assert told.names == ["retry"]


async def test_a_cancelled_run_and_its_tasks_are_signalled_in_every_process_that_may_cancel_it(
    open_app: OpenApp, registry: TaskRegistry, quick: Any
) -> None:
    # Given a task that runs and one that waits for its time
    @registry.task("slow")
    async def slow() -> None:
        await asyncio.sleep(100)

    app, other = await open_app(), await open_app(TaskRegistry(), worker=False)
    here, there = Told(registry, *TASK, *RUN), Told(other.registry, *TASK, *RUN)
    handle = await app.submit(Canvas.group(slow.s(), quick.with_options(countdown=50).s()))
    await asyncio.sleep(1)
    here.clear()

    # When another process cancels the run
    await other.cancel(handle.id)
    await handle.wait()

    # Then what was waiting is notified there, and what ran is notified here, once it has ended
    assert [(event.signal, event.id) for event in there] == [("cancelled", f"{handle.id}/[1]")]
    assert [event.signal for event in here] == ["postrun", "cancelled", "run_cancelled"]


async def test_a_skipped_task_has_run_but_neither_succeeded_nor_failed(app: Stemflow, registry: TaskRegistry) -> None:
    @registry.task("nothing")
    async def nothing() -> None:
        raise Ignore

    told = Told(registry, *TASK, *RUN)
    await (await app.submit(nothing.s())).wait()
    assert told.names[3:] == ["received", "prerun", "postrun", "run_completed"]


async def test_results_that_a_rerun_keeps_are_not_signalled_again(
    app: Stemflow, registry: TaskRegistry, quick: Any
) -> None:
    @registry.task("refuses")
    async def refuses(*before: Any) -> None:
        raise Reject("never")

    handle = await app.submit(quick.s() | refuses.s())
    await handle.wait()
    told = Told(registry, "prerun", "succeeded", "failed")
    await (await app.rerun(handle.id, failed=True)).wait()
    assert [(event.signal, event.node) for event in told] == [("prerun", "[1]"), ("failed", "[1]")]


async def test_a_submission_that_finds_another_run_says_so_and_one_that_is_refused_was_not_published(
    app: Stemflow, registry: TaskRegistry
) -> None:
    @registry.task("once", unique=True)
    async def once() -> None: ...

    @registry.task("alone", unique=True, unique_mode="reject")
    async def alone() -> None: ...

    first = await app.submit(once.with_options(countdown=9).s())
    await app.submit(alone.with_options(countdown=9).s())
    told = Told(registry, *RUN)
    await app.submit(once.s())
    assert [(event.signal, event.existing) for event in told] == [("before_publish", False), ("after_publish", True)]
    assert told[1].run_id == first.id
    told.clear()
    with pytest.raises(DuplicateRun):
        await app.submit(alone.s())
    assert told.names == ["before_publish"]


async def test_progress_is_signalled_with_its_context(app: Stemflow, registry: TaskRegistry) -> None:
    @registry.task("works")
    async def works(context: TaskContext) -> None:
        await context.progress(40, "halfway")

    told = Told(registry, "progress")
    await app.run(works.s(), headers={"tenant": "a"})
    (event,) = told
    assert (event.progress.percent, event.progress.data) == (40, "halfway")
    assert event.context.headers == {"tenant": "a"}


@pytest.mark.parametrize(("limit", "option"), [("soft", "soft_time_limit"), ("hard", "hard_time_limit")])
async def test_a_time_limit_that_has_passed_is_signalled(
    app: Stemflow, registry: TaskRegistry, limit: str, option: str
) -> None:
    @registry.task("slow", **{option: "5s"})
    async def slow() -> None:
        await asyncio.sleep(10)

    told = Told(registry, "timeout")
    await (await app.submit(slow.s())).wait()
    (event,) = told
    assert (event.task, event.limit, event.at_ms) == ("slow", limit, EPOCH_MS + 5_000)


async def test_the_start_and_end_of_a_worker_are_signalled(
    open_app: OpenApp, registry: TaskRegistry, quick: Any
) -> None:
    told = Told(registry, *WORKER, "prerun")
    app = await open_app()
    await app.run(quick.s())
    await app.hand_back()
    assert told.names == ["worker_init", "worker_ready", "prerun", "worker_stopping", "worker_shutdown"]
    assert app.service is not None
    assert {event.worker for event in told if isinstance(event, WorkerEvent)} == {app.service.slots.owner}


async def test_a_worker_signals_a_heartbeat_every_ten_seconds(app: Stemflow, registry: TaskRegistry) -> None:
    @registry.task("slow")
    async def slow() -> None:
        await asyncio.sleep(25)

    told = Told(registry, "worker_heartbeat")
    await app.submit(slow.s())
    await asyncio.sleep(31)
    assert [(event.at_ms - EPOCH_MS, event.running) for event in told] == [(10_000, 1), (20_000, 1), (30_000, 0)]


async def test_a_run_that_a_worker_leaves_is_suspended_and_resumed_by_one_that_serves_it(
    open_app: OpenApp, registry: TaskRegistry
) -> None:
    # Given a run at work, and one that has ended
    let_go = asyncio.Event()

    @registry.task("slow")
    async def slow() -> None:
        await let_go.wait()

    @registry.task("ends")
    async def ends() -> None: ...

    app = await open_app()
    done = await app.submit(ends.s())
    await done.wait()
    handle = await app.submit(slow.s())
    await asyncio.sleep(1)
    told = Told(registry, *SUSPENDED)

    # When its worker goes away and another one takes the run up
    await app.hand_back()
    let_go.set()
    again = await open_app(only_run=handle.id)
    await (await again.handle(handle.id)).wait()
    await again.hand_back()
    await (await open_app(only_run=done.id)).hand_back()

    # Then both are notified, of this run alone and only while it has not ended
    assert [(event.signal, event.run_id, event.name) for event in told] == [
        ("run_suspended", handle.id, "slow"),
        ("run_resumed", handle.id, "slow"),
    ]


async def test_errors_of_the_worker_itself_are_signalled(
    app: Stemflow, registry: TaskRegistry, quick: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a worker that cannot make the arguments of a task, for a reason of its own
    async def broken(*_: Any) -> Any:
        raise ZeroDivisionError("in the machine")

    monkeypatch.setattr("stemflow.runtime.attempt.runner.context_of", broken)
    told = Told(registry, "worker_error")
    result = await (await app.submit(quick.s())).wait()

    # Then it is signalled besides the failure of the task
    assert result.error is not None and result.error.type == "ZeroDivisionError"
    assert [event.error.message for event in told] == ["in the machine"]


@pytest.mark.parametrize("error", [StoreError("x.db: the file is damaged; restore a copy"), ZeroDivisionError("in it")])
async def test_what_ends_a_worker_is_logged_in_a_sentence_with_a_traceback_only_for_a_bug(
    registry: TaskRegistry, quick: Any, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    # Given a worker whose store refuses the next exchange
    app = Stemflow("memory:", registry)
    await app.__aenter__()
    told = Told(registry, "worker_error")

    async def refused(*_: Any) -> Any:
        raise error

    app.store.exchange = refused  # type: ignore[method-assign]

    # When it has something to exchange, then it ends, and says why
    with contextlib.suppress(type(error)):
        await app.submit(quick.s())
    await asyncio.sleep(60)
    await app.__aexit__(None, None, None)
    (record,) = [one for one in caplog.records if "the worker has stopped" in one.getMessage()]
    assert str(error) in record.getMessage()
    assert bool(record.exc_info) == isinstance(error, ZeroDivisionError)
    assert len(told) == 1


# -- listeners


@pytest.mark.parametrize("name", [*TASK[:3], "succeeded", "run_started", "run_completed", *RUN[:2]])
@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_a_listener_that_raises_is_logged_and_changes_no_outcome(
    app: Stemflow, registry: TaskRegistry, quick: Any, caplog: pytest.LogCaptureFixture, name: str, kind: str
) -> None:
    # Given a listener that raises, before one that does not
    def bad(event: Any) -> None:
        raise RuntimeError("listener")

    async def bad_later(event: Any) -> None:
        await asyncio.sleep(0)
        raise RuntimeError("listener")

    getattr(registry.signals, name).connect(bad if kind == "sync" else bad_later)
    told = Told(registry, name)

    # When the task runs, then it ends as it would have, and the other one is notified
    assert await app.run(quick.s()) == "done"
    await asyncio.sleep(0.1)
    assert told.names == [name]
    (record,) = [one for one in caplog.records if one.name == "stemflow.signals"]
    assert record.levelno == logging.ERROR
    assert record.getMessage().startswith(f"signal {name}: its listener ")


async def test_an_asynchronous_listener_holds_nothing_up_and_is_waited_for_at_the_end(
    open_app: OpenApp, registry: TaskRegistry, quick: Any, clock: VirtualClock
) -> None:
    # Given a listener that takes its time
    heard: list[int] = []

    @registry.signals.succeeded.connect
    async def slow(event: TaskEvent) -> None:
        await asyncio.sleep(3)
        heard.append(clock.now_ms() - EPOCH_MS)

    # When the run has ended, it has not yet heard; when the engine is left, it has
    app = await open_app()
    await app.run(quick.s())
    assert (heard, clock.now_ms()) == ([], EPOCH_MS)
    await app.__aexit__(None, None, None)
    assert heard == [3_000]


async def test_a_listener_that_never_ends_does_not_keep_the_engine(
    open_app: OpenApp, registry: TaskRegistry, quick: Any, caplog: pytest.LogCaptureFixture
) -> None:
    @registry.signals.succeeded.connect
    async def endless(event: TaskEvent) -> None:
        await asyncio.Event().wait()

    app = await open_app()
    await app.run(quick.s())
    await app.__aexit__(None, None, None)
    assert "a listener has not returned within 5 s and is cancelled" in caplog.text


async def test_a_listener_that_is_disconnected_is_called_no_more(
    app: Stemflow, registry: TaskRegistry, quick: Any
) -> None:
    told: list[TaskEvent] = []
    signal = app.signals.prerun
    assert not signal
    signal.connect(told.append)
    assert signal
    await app.run(quick.s())
    signal.disconnect(told.append)
    assert not signal
    await app.run(quick.s())
    assert len(told) == 1
