"""Soft and hard time limits of `async def` handlers; whatever a handler raises ends its attempt, and nothing else."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from stemflow import Middleware, OptionError, SoftTimeLimitExceeded, Stemflow, TaskContext, TaskRegistry
from stemflow.model.policy import Options
from stemflow.model.records import Node
from stemflow.runtime.attempt.in_flight import Running
from tests.spec.conftest import OpenApp


async def test_a_soft_limit_is_seen_by_the_handler_which_goes_on(
    app: Stemflow, registry: TaskRegistry, caplog: pytest.LogCaptureFixture
) -> None:
    # Given a handler that works 10 s under a soft limit of 4 s
    @registry.task("patient", soft_time_limit="4s")
    async def patient(context: TaskContext) -> list[float]:
        loop = asyncio.get_running_loop()
        begun = loop.time()
        await context.soft_timeout.wait()
        seen = loop.time() - begun
        await asyncio.sleep(6)
        return [round(seen, 3), round(loop.time() - begun, 3)]

    # When it runs, then it sees the limit after 4 s, ends when it likes, has succeeded, and the log names it
    handle = await app.submit(patient.s())
    result = await handle.wait()
    assert (result.status, result.value) == ("succeeded", [4, 10])
    assert [record.name for record in caplog.records] == ["stemflow.task.patient"]
    assert "passed its soft time limit" in caplog.text


async def test_a_soft_limit_that_raises_does_so_once_where_the_handler_awaits(
    app: Stemflow, registry: TaskRegistry
) -> None:
    # Given a handler that catches what is raised and works on beyond the limit
    seen: list[float] = []

    @registry.task("tidy", soft_time_limit="4s", soft_raises=True, max_retries=3)
    async def tidy() -> str:
        try:
            await asyncio.sleep(60)
        except SoftTimeLimitExceeded:
            seen.append(asyncio.get_running_loop().time())
        await asyncio.sleep(60)
        return "tidied up"

    # When it returns, then it has succeeded, and was counted once
    handle = await app.submit(tidy.s())
    assert (await handle.wait()).value == "tidied up"
    assert [node.attempt for node in await handle.records()] == [0]
    assert len(seen) == 1


async def test_a_soft_limit_that_passes_before_the_handler_begins_is_raised_where_it_first_awaits(
    app: Stemflow, registry: TaskRegistry
) -> None:
    # Given a middleware that takes longer than the soft limit
    class Slow(Middleware):
        async def on_execute(self, context: TaskContext, call_next: Any) -> Any:
            await asyncio.sleep(5)
            return await call_next()

    registry.use(Slow())
    heard: list[str] = []

    @registry.task("late", soft_time_limit="3s", soft_raises=True)
    async def late(context: TaskContext) -> str:
        heard.append(f"begun, {context.soft_timeout.is_set()}")
        try:
            await asyncio.sleep(60)
        except SoftTimeLimitExceeded:
            heard.append("raised")
        await asyncio.sleep(1)
        return "done"

    # Then the handler is notified of it, once
    assert await app.run(late.s()) == "done"
    assert heard == ["begun, True", "raised"]


async def test_a_soft_limit_that_is_not_caught_fails_the_attempt(app: Stemflow, registry: TaskRegistry) -> None:
    attempts: list[int] = []

    @registry.task("slow", soft_time_limit="4s", soft_raises=True, max_retries=1)
    async def slow(context: TaskContext) -> None:
        attempts.append(context.attempt)
        await asyncio.sleep(60)

    result = await (await app.submit(slow.s())).wait()
    assert (result.status, attempts) == ("failed", [0, 1])
    assert result.error is not None
    assert result.error.type == "SoftTimeLimitExceeded"


async def test_an_async_handler_is_cancelled_at_its_hard_limit_and_awaited(
    app: Stemflow, registry: TaskRegistry
) -> None:
    # Given a handler that needs 0.5 s to clean up when it is cancelled
    seen: list[str] = []

    @registry.task("slow", hard_time_limit="5s", max_retries=1)
    async def slow(context: TaskContext) -> None:
        try:
            await asyncio.sleep(60)
        finally:
            seen.append(f"cancelled={context.cancelled.is_set()}")
            await asyncio.sleep(0.5)
            seen.append("cleaned up")

    # When it has been tried as often as allowed, then each attempt cleaned up, and the error is the limit's
    result = await (await app.submit(slow.s())).wait()
    assert seen == ["cancelled=True", "cleaned up"] * 2
    assert result.status == "failed"
    assert result.error is not None
    assert (result.error.type, result.error.message) == (
        "TaskTimeout",
        "it did not end within its hard time limit of 5000 ms",
    )


async def test_what_a_handler_returns_after_its_hard_limit_does_not_count(
    app: Stemflow, registry: TaskRegistry
) -> None:
    @registry.task("late", hard_time_limit="5s")
    async def late() -> str:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            pass
        return "all the same"

    assert (await (await app.submit(late.s())).wait()).status == "failed"


@pytest.mark.parametrize("how", ["swallows cancellation", "loops in finally"])
async def test_a_handler_that_does_not_end_is_disowned_and_its_slot_stays_taken(
    how: str, open_app: OpenApp, registry: TaskRegistry, caplog: pytest.LogCaptureFixture
) -> None:
    # Given a worker with two slots, and a handler that goes on for 100 s although it is cancelled
    app = await open_app(concurrency=2)
    running: list[str] = []
    most: list[int] = []

    @registry.task("stubborn", hard_time_limit="5s")
    async def stubborn() -> None:
        running.append("stubborn")
        try:
            await asyncio.sleep(5.5 if how == "swallows cancellation" else 0)
        except asyncio.CancelledError:
            pass
        finally:
            for _ in range(100):
                try:
                    await asyncio.sleep(1)
                except asyncio.CancelledError:
                    pass
            running.remove("stubborn")

    @registry.task("quick")
    async def quick() -> None:
        running.append("quick")
        most.append(len(running))
        await asyncio.sleep(1)
        running.remove("quick")

    # When its limit has passed
    result = await (await app.submit(stubborn.s())).wait()
    assert result.error is not None
    assert result.error.type == "TaskTimeout"
    (said,) = [text for text in caplog.messages if "disowned" in text]
    assert said.startswith("task stubborn (") and "its lease is given up and its slot stays taken" in said

    # Then others go on in the slot that is left, one at a time, and in both when it has ended
    for handle in [await app.submit(quick.s()) for _ in range(4)]:
        await handle.wait()
    assert (running, max(most)) == (["stubborn"], 2)
    await asyncio.sleep(200)
    most.clear()
    for handle in [await app.submit(quick.s()) for _ in range(4)]:
        await handle.wait()
    assert (running, max(most)) == ([], 2)
    assert "its slot is free again" in caplog.text


async def test_a_worker_says_so_when_handlers_that_were_given_up_take_all_its_slots(
    open_app: OpenApp, registry: TaskRegistry, caplog: pytest.LogCaptureFixture
) -> None:
    app = await open_app(concurrency=2)

    @registry.task("stubborn", hard_time_limit="5s")
    async def stubborn() -> None:
        for _ in range(1_000):
            try:
                await asyncio.sleep(1)
            except asyncio.CancelledError:
                pass

    for handle in [await app.submit(stubborn.s()) for _ in range(2)]:
        await handle.wait()
    (said,) = [record.getMessage() for record in caplog.records if record.levelno == logging.CRITICAL]
    assert said.startswith("all 2 slots of this worker are taken by handlers that were given up (stubborn)")


@pytest.fixture(autouse=True)
def heard(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "stemflow")


KINDS: dict[str, Callable[[], BaseException]] = {
    "GeneratorExit": GeneratorExit,
    "KeyboardInterrupt": KeyboardInterrupt,
    "SystemExit": SystemExit,
    "StopIteration": StopIteration,
    "ExceptionGroup": lambda: ExceptionGroup("two", [ValueError("one"), TypeError("two")]),
    "BaseExceptionGroup": lambda: BaseExceptionGroup("two", [ValueError("one"), KeyboardInterrupt()]),
    "TimeoutError": asyncio.TimeoutError,
    "CancelledError": asyncio.CancelledError,
}


@pytest.mark.parametrize("raised", sorted(KINDS))
@pytest.mark.parametrize("place", ["loop", "thread"])
async def test_whatever_a_handler_raises_is_a_failure_of_its_own(
    raised: str, place: str, app: Stemflow, registry: TaskRegistry
) -> None:
    # Given a handler that raises what elsewhere means that somebody else wants it to end
    attempts: list[int] = []

    def leave(context: TaskContext) -> None:
        attempts.append(context.attempt)
        raise KINDS[raised]()

    async def leave_loop(context: TaskContext) -> None:
        leave(context)

    chosen: Any = leave_loop if place == "loop" else leave
    task = registry.task("leaves", max_retries=1)(chosen)

    # When it runs, then it has failed, is tried again as its policy says, and the worker goes on
    result = await (await app.submit(task.s())).wait()
    assert (result.status, attempts) == ("failed", [0, 1])


async def test_a_handler_that_cancels_itself_has_failed(app: Stemflow, registry: TaskRegistry) -> None:
    attempts: list[int] = []

    @registry.task("own_hand", max_retries=1)
    async def own_hand(context: TaskContext) -> None:
        attempts.append(context.attempt)
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(1)

    result = await (await app.submit(own_hand.s())).wait()
    assert (result.status, attempts) == ("failed", [0, 1])
    assert result.error is not None
    assert result.error.type == "CancelledError"


@pytest.mark.parametrize(
    ("options", "now_ms", "held_ms", "kept"),
    [
        (Options(), 10**9, 0, True),
        (Options(), 0, 20_000, True),
        (Options(), 0, 20_001, False),
        (Options(hard_ms=5_000), 7_000, 10**9, True),
        (Options(hard_ms=5_000), 7_001, 0, False),
    ],
    ids=["waits", "ten leases", "longer", "its limit and a grace period", "later"],
)
def test_a_lease_is_kept_no_longer_than_its_hard_limit_or_while_the_loop_is_held_for_ten_leases(
    options: Options, now_ms: int, held_ms: int, kept: bool
) -> None:
    """`now_ms` after its start, while the loop is held for `held_ms`; the lease is 2 s."""
    callbacks: Any = SimpleNamespace(store=SimpleNamespace(now_ms=lambda: 0), wait_for_reports=None)
    node = Node(run="r", path="", plan="p", node=0, state="running", lease_ms=2_000)
    running = Running(node, callbacks, 0)
    running.options = options
    assert running.renewable(now_ms, held_ms) is kept


async def _waits() -> None: ...


def _blocks() -> None: ...


@pytest.mark.parametrize(
    ("function", "options", "expected"),
    [
        (_waits, {"isolation": "thread"}, "expected async or process for an `async def`, got thread"),
        (_blocks, {"isolation": "async"}, "expected thread or process for a plain `def`, got async"),
        (_blocks, {"soft_time_limit": 1, "soft_raises": True}, "a plain `def`, which never awaits"),
        (_waits, {"soft_time_limit": 2, "hard_time_limit": 1}, "expected the soft time limit below the hard one"),
    ],
)
async def test_options_that_the_function_cannot_have_are_refused_where_they_are_given(
    function: Any, options: dict[str, Any], expected: str, app: Stemflow, registry: TaskRegistry
) -> None:
    with pytest.raises(OptionError, match=f"^task odd: .*{expected}"):
        registry.task("odd", **options)(function)
    task = registry.task("odd")(function)
    with pytest.raises(OptionError, match=f"^task odd: .*{expected}"):
        await app.submit(task.with_options(**options).s())
