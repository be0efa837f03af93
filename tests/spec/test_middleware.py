"""Middleware: around a submission, a delivery, a call of the handler and its error; in order, and able to answer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from msgspec import structs

from stemflow import (
    Canvas,
    HandBack,
    Ignore,
    Middleware,
    OptionError,
    Reject,
    RetryPolicy,
    RunHandle,
    Stemflow,
    Submission,
    TaskContext,
    TaskRegistry,
    TaskResult,
)

Next = Callable[[], Awaitable[Any]]


@pytest.fixture
def calls(registry: TaskRegistry) -> list[Any]:
    """What the task `work` was called with."""
    seen: list[Any] = []

    @registry.task("work")
    async def work(context: TaskContext, x: Any = None) -> Any:
        seen.append(x)
        if isinstance(x, str) and x.startswith("fail"):
            raise ValueError(x)
        return x

    return seen


def work(registry: TaskRegistry) -> Any:
    return registry.get("work")


async def ended(app: Stemflow, sig: Any) -> TaskResult[Any]:
    return await (await app.submit(sig)).wait()


# -- order


async def test_middleware_added_first_is_outermost(app: Stemflow, registry: TaskRegistry, calls: list[Any]) -> None:
    # Given two that note when they are entered and left
    story: list[str] = []

    class Notes(Middleware):
        def __init__(self, name: str) -> None:
            self.name = name

        async def on_enqueue(self, submission: Submission, call_next: Any) -> RunHandle[Any]:
            story.append(f"{self.name} enqueue")
            handle: RunHandle[Any] = await call_next(submission)
            story.append(f"{self.name} enqueued")
            return handle

        async def on_consume(self, context: TaskContext, call_next: Next) -> None:
            story.append(f"{self.name} consume")
            await call_next()
            story.append(f"{self.name} consumed")

        async def on_execute(self, context: TaskContext, call_next: Next) -> Any:
            story.append(f"{self.name} execute")
            try:
                return await call_next()
            finally:
                story.append(f"{self.name} executed")

        async def on_error(self, context: TaskContext, error: Exception, call_next: Any) -> Any:
            story.append(f"{self.name} error")
            return await call_next(error)

    registry.use(Notes("a"))
    registry.use(Notes("b"))

    # When a task fails, then each hook went from the outermost to the handler and back, one after another
    assert (await ended(app, work(registry).s("fail"))).status == "failed"
    assert story == [
        "a enqueue", "b enqueue", "b enqueued", "a enqueued",
        "a consume", "b consume", "b consumed", "a consumed",
        "a execute", "b execute", "b executed", "a executed",
        "a error", "b error",
    ]  # fmt: skip
    assert calls == ["fail"]


def test_what_is_no_middleware_or_overrides_nothing_is_refused(registry: TaskRegistry) -> None:
    with pytest.raises(OptionError, match="use: expected an instance of a Middleware, got <class"):
        registry.use(Middleware)  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="use: expected Middleware to override one of on_enqueue, on_consume, "):
        registry.use(Middleware())


# -- on_enqueue


async def test_a_submission_is_altered_before_it_is_stored(
    app: Stemflow, registry: TaskRegistry, calls: list[Any]
) -> None:
    # Given one that gives every submission a tenant, and a task that starts another run
    class Tenant(Middleware):
        async def on_enqueue(self, submission: Submission, call_next: Any) -> Any:
            return await call_next(structs.replace(submission, headers={**submission.headers, "tenant": "a"}))

    tenants: list[str] = []

    @registry.task("starts")
    async def starts(context: TaskContext, depth: int) -> str | None:
        tenants.append(context.headers["tenant"])
        return await context.enqueue(starts.s(depth - 1)) if depth else None

    registry.use(Tenant())

    # Then both runs have it: there is one way into the store
    child = await app.run(starts.s(1))
    await (await app.handle(child)).wait()
    assert tenants == ["a", "a"]


async def test_a_submission_that_is_refused_stores_nothing_and_raises(
    app: Stemflow, registry: TaskRegistry, calls: list[Any]
) -> None:
    class Closed(Middleware):
        async def on_enqueue(self, submission: Submission, call_next: Any) -> Any:
            raise PermissionError("closed on sundays")

    registry.use(Closed())
    with pytest.raises(PermissionError, match="closed on sundays"):
        await app.submit(work(registry).s(1))
    assert await app.store.runs(1) == []


async def test_a_submission_is_answered_with_a_run_that_is_there(
    app: Stemflow, registry: TaskRegistry, calls: list[Any]
) -> None:
    first = await app.submit(work(registry).s(1))

    class Same(Middleware):
        async def on_enqueue(self, submission: Submission, call_next: Any) -> Any:
            return first

    registry.use(Same())
    assert (await app.submit(work(registry).s(2))).id == first.id
    await first.wait()
    assert calls == [1]


# -- on_consume


async def test_a_delivery_that_is_not_let_through_is_skipped(
    app: Stemflow, registry: TaskRegistry, calls: list[Any]
) -> None:
    class Filter(Middleware):
        async def on_consume(self, context: TaskContext, call_next: Next) -> None:
            if context.node != "[1]":
                await call_next()

    registry.use(Filter())
    handle = await app.submit(Canvas.group(work(registry).s(1), work(registry).s(2)))
    assert (await handle.wait()).value == [1, None]
    states = {node.path: (node.state, node.cause) for node in await handle.records()}
    assert states["[1]"] == ("skipped", "condition")
    assert calls == [1]


@pytest.mark.parametrize("hook", ["on_consume", "on_execute"])
async def test_a_delivery_is_handed_back_uncharged_and_comes_again_after_its_delay(
    app: Stemflow, registry: TaskRegistry, calls: list[Any], hook: str
) -> None:
    # Given one that lets a task through one minute after it first came
    loop = asyncio.get_running_loop()
    seen: list[tuple[float, int]] = []

    async def gate(self: Any, context: TaskContext, call_next: Next) -> Any:
        seen.append((loop.time(), context.attempt))
        if len(seen) < 3:
            raise HandBack("30s")
        return await call_next()

    registry.use(type("Gate", (Middleware,), {hook: gate})())

    # Then no attempt was counted for the times before
    assert (await ended(app, work(registry).s(1))).status == "succeeded"
    assert seen == [(0.0, 0), (30.0, 0), (60.0, 0)]
    assert calls == [1]


@pytest.mark.parametrize("hook", ["on_consume", "on_execute"])
@pytest.mark.parametrize(
    ("error", "status", "attempts"),
    [(ValueError("x"), "failed", 2), (Reject("x"), "failed", 1), (Ignore(), "skipped", 1)],
)
async def test_what_it_raises_around_a_task_counts_as_raised_by_the_handler(
    app: Stemflow, registry: TaskRegistry, calls: list[Any], hook: str, error: Exception, status: str, attempts: int
) -> None:
    # Given a task with one retry, and a middleware that raises around it
    seen: list[int] = []

    async def raises(self: Any, context: TaskContext, call_next: Next) -> Any:
        seen.append(context.attempt)
        raise error

    registry.use(type("Raises", (Middleware,), {hook: raises})())
    task = work(registry).with_options(max_retries=1, retry=RetryPolicy.of(initial="1s"))

    # Then the task ends as if its handler had raised that, which was never called
    assert (await ended(app, task.s(1))).status == status
    assert len(seen) == attempts
    assert calls == []


# -- on_execute


async def test_it_wraps_each_call_with_its_arguments_and_may_change_the_result(
    app: Stemflow, registry: TaskRegistry, calls: list[Any]
) -> None:
    # Given one that puts what it saw next to the result, and a map in chunks
    class Beside(Middleware):
        async def on_execute(self, context: TaskContext, call_next: Next) -> Any:
            return [await call_next(), list(context.args)]

    registry.use(Beside())

    # Then it is around each call of the handler, also around those of one chunk
    assert await app.run(work(registry).s("a")) == ["a", ["a"]]
    chunks = Canvas.chunks(work(registry).s(), [(1,), (2,), (3,)], 2)
    assert await app.run(chunks) == [[[1, [1]], [2, [2]]], [[3, [3]]]]


async def test_it_answers_for_the_handler(app: Stemflow, registry: TaskRegistry, calls: list[Any]) -> None:
    class Cached(Middleware):
        async def on_execute(self, context: TaskContext, call_next: Next) -> Any:
            return "from the cache"

    registry.use(Cached())
    assert await app.run(work(registry).s("a")) == "from the cache"
    assert calls == []


async def test_it_wraps_plain_functions_in_threads_too(app: Stemflow, registry: TaskRegistry) -> None:
    class Twice(Middleware):
        async def on_execute(self, context: TaskContext, call_next: Next) -> Any:
            return 2 * await call_next()

    @registry.task("plain")
    def plain(x: int) -> int:
        return x

    registry.use(Twice())
    assert await app.run(plain.s(4)) == 8


async def test_the_time_limit_of_a_handler_includes_its_middleware(
    app: Stemflow, registry: TaskRegistry
) -> None:
    class Slow(Middleware):
        async def on_execute(self, context: TaskContext, call_next: Next) -> Any:
            await asyncio.sleep(3)
            return await call_next()

    registry.use(Slow())

    @registry.task("quick", hard_time_limit="5s")
    async def quick(seconds: int) -> str:
        await asyncio.sleep(seconds)
        return "done"

    assert await app.run(quick.s(1)) == "done"
    result = await ended(app, quick.s(4))
    assert result.error is not None and result.error.type == "TaskTimeout"


async def test_around_a_plain_function_the_context_is_read_and_asked_for_nothing(
    app: Stemflow, registry: TaskRegistry
) -> None:
    asked: list[str] = []

    class Asks(Middleware):
        async def on_execute(self, context: Any, call_next: Next) -> Any:
            asked.append(context.name)
            context.progress(50)

    registry.use(Asks())

    @registry.task("plain")
    def plain() -> None: ...

    result = await ended(app, plain.s())
    assert result.error is not None
    assert asked == ["plain"]
    assert "expected a call in the thread of the handler, got one on the event loop" in result.error.message


async def test_a_rerun_takes_up_what_was_let_in_before(app: Stemflow, registry: TaskRegistry, calls: list[Any]) -> None:
    class Counts(Middleware):
        seen = 0

        async def on_enqueue(self, submission: Any, call_next: Any) -> Any:
            self.seen += 1
            return await call_next(submission)

    counts = Counts()
    registry.use(counts)
    handle = await app.submit(work(registry).s("fail"))
    await handle.wait()
    await (await app.rerun(handle.id, failed=True)).wait()
    assert (counts.seen, len(calls)) == (1, 2)


# -- on_error


class Turn(Middleware):
    """Turns what `work` raises by its text."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    async def on_error(self, context: TaskContext, error: Exception, call_next: Any) -> Any:
        self.seen.append(str(error))
        if str(error) == "fail: final":
            return await call_next(Reject("turned"))
        if str(error) == "fail: answered":
            return "instead"
        if str(error) == "fail: raised":
            raise KeyError("another")
        return await call_next(error)


@pytest.mark.parametrize(
    ("text", "status", "told", "attempts"),
    [
        ("fail", "failed", "ValueError: fail", 2),
        ("fail: final", "failed", "Reject: turned", 1),
        ("fail: answered", "succeeded", None, 1),
        ("fail: raised", "failed", "KeyError: 'another'", 2),
    ],
)
async def test_an_error_is_seen_turned_or_answered(
    app: Stemflow, registry: TaskRegistry, calls: list[Any], text: str, status: str, told: str | None, attempts: int
) -> None:
    turn = Turn()
    registry.use(turn)
    task = work(registry).with_options(max_retries=1, retry=RetryPolicy.of(initial="1s"))
    result = await ended(app, task.s(text))
    assert (result.status, result.value) == (status, "instead" if told is None else None)
    assert (f"{result.error.type}: {result.error.message}" if result.error else None) == told
    assert turn.seen == [text] * attempts


async def test_what_a_handler_asks_for_is_no_error(app: Stemflow, registry: TaskRegistry, calls: list[Any]) -> None:
    # Given handlers that ask for a retry, a replacement, to be skipped and to be handed back
    turn = Turn()
    registry.use(turn)
    back: list[int] = []

    @registry.task("asks", max_retries=1)
    async def asks(context: TaskContext, what: str) -> Any:
        if what == "retry" and context.attempt == 0:
            await context.retry(countdown=1)
        if what == "replace":
            await context.replace(work(registry).s("other"))
        if what == "ignore":
            raise Ignore
        if what == "back" and not back:
            back.append(1)
            raise HandBack
        return what

    # Then each gets what it asked for, and nobody was notified of an error
    wishes = ["retry", "replace", "ignore", "back"]
    assert await app.run(Canvas.group(asks.s(wish) for wish in wishes)) == ["retry", "other", None, "back"]
    assert turn.seen == []


async def test_cancellation_and_the_hard_limit_pass_by(app: Stemflow, registry: TaskRegistry) -> None:
    turn = Turn()
    registry.use(turn)

    @registry.task("slow", hard_time_limit="5s")
    async def slow() -> None:
        await asyncio.sleep(60)

    result = await ended(app, slow.s())
    assert result.error is not None and result.error.type == "TaskTimeout"
    handle = await app.submit(slow.s())
    await asyncio.sleep(1)
    await handle.cancel()
    assert (await handle.wait()).status == "cancelled"
    assert turn.seen == []
