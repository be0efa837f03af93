"""What is logged: final failures with their fields and traceback, and why somebody waits in vain."""

from __future__ import annotations

import asyncio
import logging

import pytest

from stemflow import Canvas, Reject, Stemflow, TaskRegistry
from tests.spec.conftest import OpenApp


def named(caplog: pytest.LogCaptureFixture, name: str) -> list[logging.LogRecord]:
    return [one for one in caplog.records if one.name == name]


async def test_a_final_failure_is_logged_once_at_error_with_its_fields_and_traceback(
    app: Stemflow, registry: TaskRegistry, caplog: pytest.LogCaptureFixture
) -> None:
    # Given a task that fails twice, the second time for good
    @registry.task("shop.charge", max_retries=1)
    async def charge() -> None:
        raise ValueError("no credit")

    # When it has run as a member of a group
    caplog.set_level(logging.INFO, "stemflow")
    handle = await app.submit(Canvas.group(charge.s().named("card")))
    assert (await handle.wait()).status == "failed"
    # Then one line at ERROR names the task, the run and the attempt
    (record,) = named(caplog, "stemflow.failures")
    assert record.levelno == logging.ERROR
    assert record.getMessage() == (
        f"task {handle.id}/card (shop.charge) failed for good in attempt 2: ValueError: no credit"
    )
    # And carries them as fields, and the traceback where formatters print it
    fields = {"run_id", "task_id", "path", "task", "attempt", "state", "reason", "error_type"}
    assert {name: record.__dict__[name] for name in fields} == {
        "run_id": handle.id, "task_id": f"{handle.id}/card", "path": "card", "task": "shop.charge", "attempt": 1,
        "state": "failed", "reason": "max-retries-exhausted", "error_type": "ValueError",
    }  # fmt: skip
    assert 'raise ValueError("no credit")' in logging.Formatter().format(record)
    # And the retry before it was no error
    (retry,) = [one for one in named(caplog, "stemflow.worker") if "attempt 1 failed" in one.getMessage()]
    assert (retry.levelno, retry.__dict__["state"]) == (logging.INFO, "ready")


async def test_a_failure_without_a_traceback_is_logged_too(
    app: Stemflow, registry: TaskRegistry, caplog: pytest.LogCaptureFixture
) -> None:
    @registry.task("late", expires=1)
    async def late() -> None:
        raise Reject("not wanted")

    @registry.task("slow")
    async def slow() -> None: ...

    await (await app.submit(late.s())).wait()
    assert [one.__dict__["task"] for one in named(caplog, "stemflow.failures")] == ["late"]


async def test_waiting_on_a_store_without_workers_is_logged_after_five_seconds(
    open_app: OpenApp, caplog: pytest.LogCaptureFixture
) -> None:
    registry = TaskRegistry()

    @registry.task("t")
    async def t() -> int:
        return 1

    # Given a producer alone
    app = await open_app(registry, worker=False)
    handle = await app.submit(t.s())
    # When it waits for less, nothing is said
    await handle.wait(timeout=4)
    assert named(caplog, "stemflow.wait") == []
    # When it waits for longer, it is notified once, and goes on waiting
    waiting = asyncio.create_task(handle.wait(timeout=3_600))
    await asyncio.sleep(60)
    (record,) = named(caplog, "stemflow.wait")
    assert record.levelno == logging.WARNING
    assert "no worker runs on this store" in record.getMessage()
    assert record.__dict__["run_id"] == handle.id
    await open_app(registry)
    assert (await waiting).value == 1


async def test_waiting_for_a_queue_or_a_task_that_no_worker_serves_is_logged_with_its_name(
    open_app: OpenApp, caplog: pytest.LogCaptureFixture
) -> None:
    registry, other = TaskRegistry(), TaskRegistry()

    @registry.task("t")
    async def t() -> int:
        return 1

    # Given one worker of the queue mail that has the task, and one of the queue other that lacks it
    app = await open_app(registry, queues=("mail",))
    await open_app(other, queues=("other",))
    # When somebody waits for a misspelt queue, and for a task that no worker of its queue has
    misspelt = await app.submit(t.with_options(queue="mial").s())
    unknown = await app.submit(t.with_options(queue="other").s())
    fine = await app.submit(t.with_options(queue="mail").s())
    await asyncio.gather(misspelt.wait(timeout=30), unknown.wait(timeout=30), fine.wait(timeout=30))
    # Then each is given the reason
    told = {one.__dict__["run_id"]: one.getMessage() for one in named(caplog, "stemflow.wait")}
    assert told.keys() == {misspelt.id, unknown.id}
    assert "task t is not started: no worker serves queue mial" in told[misspelt.id]
    assert "none of the workers that serve queue other" in told[unknown.id]


async def test_waiting_for_a_long_task_that_runs_is_not_logged(
    app: Stemflow, registry: TaskRegistry, caplog: pytest.LogCaptureFixture
) -> None:
    @registry.task("slow")
    async def slow() -> int:
        await asyncio.sleep(600)
        return 1

    assert await app.run(slow.s()) == 1
    assert named(caplog, "stemflow.wait") == []
