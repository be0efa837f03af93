"""The journal: each attempt of a task, except that of a task whose first attempt succeeded."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from stemflow import Attempt, HandBack, Ignore, Stemflow, TaskContext, TaskRegistry
from stemflow.core.journal import FIRST, LAST
from stemflow.model import wire
from stemflow.runtime.runs.handle import RunHandle
from stemflow.store import codec
from tests.spec.conftest import OpenApp

NO_DELAY = {"initial": 0, "jitter": 0}


async def journal(handle: RunHandle[object]) -> list[tuple[int, str]]:
    return [(one.number, one.outcome) for one in await handle.attempts()]


async def test_a_failure_a_timeout_and_a_returned_attempt_are_listed_with_worker_times_and_error(
    open_app: OpenApp, registry: TaskRegistry
) -> None:
    left = ["raise", "hang", "return"]

    @registry.task("f", max_retries=3, retry=NO_DELAY, hard_time_limit=2)
    async def f() -> int:
        await asyncio.sleep(1)
        how = left.pop(0) if left else ""
        if how == "raise":
            raise ValueError("no answer")
        if how == "hang":
            await asyncio.sleep(10)
        if how == "return":
            raise HandBack
        return 7

    app = await open_app(name="w1")
    began = app.store.now_ms()
    handle = await app.submit(f.s())
    assert (await handle.wait()).value == 7

    first, second, third, last = await handle.attempts()
    assert [one.outcome for one in (first, second, third, last)] == ["failed", "timed-out", "handed-back", "succeeded"]
    assert [one.number for one in (first, second, third, last)] == [0, 1, 2, 2]
    assert {one.worker for one in (first, second, third, last)} == {"w1"}
    assert began <= first.started_at_ms <= began + 100
    assert 1_000 <= first.ended_at_ms - first.started_at_ms <= 1_100
    assert 2_000 <= second.ended_at_ms - second.started_at_ms <= 2_100
    assert first.error is not None and second.error is not None
    assert (first.error.type, first.error.message) == ("ValueError", "no answer")
    assert 'raise ValueError("no answer")' in first.error.traceback
    assert second.error.type == "TaskTimeout"
    assert last.error is None


async def test_the_error_of_the_last_failure_is_stored_once(app: Stemflow, registry: TaskRegistry) -> None:
    @registry.task("f", max_retries=0)
    async def f() -> None:
        raise ValueError("once and no more")

    handle = await app.submit(f.s())
    await handle.wait()
    (attempt,) = await handle.attempts()
    assert attempt.error is not None and attempt.error.message == "once and no more"
    root = await handle.root()
    assert root.error is not None
    assert codec.body_of(root).count(b"once and no more") == 1 + root.error.traceback.count("once and no more")


async def test_a_task_that_succeeds_at_once_has_its_attempt_and_stores_none(
    app: Stemflow, registry: TaskRegistry
) -> None:
    @registry.task("f")
    async def f(fail: bool) -> None:
        if fail:
            raise Ignore

    handle = await app.submit(f.s(False))
    await handle.wait()
    root = await handle.root()
    assert await handle.attempts() == (Attempt(0, "succeeded", root.ended_at_ms, "", root.started_at_ms),)
    assert root.journal == ()
    assert (await journal_of(app, f.s(True))) == [(0, "ignored")]


async def journal_of(app: Stemflow, what: object) -> list[tuple[int, str]]:
    handle = await app.submit(what)  # type: ignore[arg-type]
    await handle.wait()
    return await journal(handle)


async def test_a_lost_attempt_names_the_worker_that_was_lost(open_app: OpenApp, registry: TaskRegistry) -> None:
    ran: list[int] = []

    @registry.task("f")
    async def f(context: TaskContext) -> str:
        ran.append(context.attempt)
        await asyncio.sleep(0 if len(ran) > 1 else 1_000)
        return "done"

    # Given a worker that dies with the task, some seconds after it has begun
    dying = await open_app(name="dying")
    handle = await dying.submit(f.s())
    await asyncio.sleep(8)
    for task in asyncio.all_tasks():
        if task.get_name() in ("renew", "recover", "presence", "exchange loop"):
            task.cancel()

    # When another one takes the task over
    other = await open_app(name="other")
    assert (await (await other.handle(handle.id)).wait()).value == "done"

    # Then the journal has both attempts, of the same number
    lost, done = await handle.attempts()
    assert (lost.number, lost.outcome, lost.worker) == (0, "lost", "dying")
    assert (done.number, done.outcome, done.worker) == (0, "succeeded", "other")
    assert lost.ended_at_ms - lost.started_at_ms >= 8_000


@pytest.mark.parametrize("force", [False, True])
async def test_an_attempt_that_is_cancelled_is_listed(app: Stemflow, registry: TaskRegistry, force: bool) -> None:
    @registry.task("f")
    async def f() -> None:
        await asyncio.sleep(1_000)

    handle = await app.submit(f.s())
    await asyncio.sleep(5)
    await handle.cancel(force=force)
    await handle.wait()
    (attempt,) = await handle.attempts()
    assert attempt.outcome == "cancelled"
    assert attempt.worker == ("" if force else app.service.presence.name if app.service else "")


@pytest.mark.parametrize("url", ["memory"], indirect=True)
async def test_the_journal_of_a_task_that_fails_often_is_bounded_in_number_and_bytes(
    app: Stemflow, registry: TaskRegistry
) -> None:
    @registry.task("f", max_retries=200, retry=NO_DELAY)
    async def f(context: TaskContext) -> None:
        raise ValueError(f"{context.attempt} " + "x" * 10_000)

    handle = await app.submit(f.s())
    await handle.wait()
    root, attempts = await handle.root(), await handle.attempts()
    numbers = [one.number for one in attempts]
    assert numbers == [*range(FIRST), *range(201 - LAST, 201)]
    assert root.unlisted == 201 - FIRST - LAST
    with_traceback = [one.number for one in attempts if one.error is not None and one.error.traceback]
    assert with_traceback == [0, 199, 200]
    assert len(msgspec.msgpack.encode(root.journal)) < 16_000
    assert len(wire.encode(root)) < 32_000


@pytest.mark.parametrize("url", ["memory"], indirect=True)
async def test_an_attempt_that_is_returned_again_and_again_is_one_entry(
    app: Stemflow, registry: TaskRegistry
) -> None:
    left = [HandBack] * 50

    @registry.task("f")
    async def f() -> None:
        if left:
            raise left.pop()

    assert await journal_of(app, f.s()) == [(0, "handed-back"), (0, "succeeded")]
