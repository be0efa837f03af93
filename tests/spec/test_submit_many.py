"""`submit_many`: many runs in few round trips."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from msgspec import structs

from stemflow import (
    Canvas,
    DuplicateRun,
    NotAllSubmitted,
    OptionError,
    RunConflict,
    Stemflow,
    TaskContext,
    TaskRegistry,
)
from stemflow.model.effects import Decision
from stemflow.store.base import Exchange, Request, Want
from tests.spec.conftest import OpenApp


async def test_each_signature_becomes_a_run_of_its_own(app: Stemflow, registry: TaskRegistry) -> None:
    @registry.task("double")
    async def double(x: int) -> int:
        return 2 * x

    handles = await app.submit_many([double.s(1), Canvas.chain([double.s(1), double.s()]), double.s(3)])
    assert [(await handle.wait()).value for handle in handles] == [2, 4, 6]
    assert len({handle.id for handle in handles}) == 3


async def test_a_thousand_runs_take_two_exchanges(open_app: OpenApp, registry: TaskRegistry) -> None:
    @registry.task("noop")
    async def noop() -> None: ...

    # Given a store that counts what it is asked
    app = await open_app(worker=False)
    exchange, sizes, reads = app.store.exchange, list[int](), list[Any]()

    async def counted(request: Request, decisions: Sequence[Decision], want: Want | None) -> Exchange:
        sizes.append(sum(len(one.headers) + len(one.also) for one in decisions))
        await asyncio.sleep(0.01)
        return await exchange(request, decisions, want)

    async def read(keys: Any) -> Any:
        reads.append(keys)
        raise AssertionError("an id that was made just now is known to be free")

    app.store.exchange, app.store.read = counted, read  # type: ignore[method-assign]
    # When a thousand are submitted at once, and then a hundred by as many callers
    await app.submit_many([noop.s()] * 1_000)
    await asyncio.gather(*(app.submit(noop.s()) for _ in range(100)))
    # Then
    assert sizes[:2] == [500, 500]
    assert len(sizes) <= 4
    assert sum(sizes) == 1_100
    assert reads == []


async def test_one_that_is_refused_leaves_the_others_as_they_are(app: Stemflow, registry: TaskRegistry) -> None:
    done: list[int] = []

    @registry.task("once", unique=True, unique_mode="reject")
    async def once(x: int) -> None:
        await asyncio.sleep(60)
        done.append(x)

    with pytest.raises(NotAllSubmitted, match=r"2 of 3 runs were submitted .* number 2 was refused") as refused:
        await app.submit_many([once.s(1), once.s(2), once.s(1)])
    first, second, third = refused.value.handles
    assert first is not None and second is not None and third is None
    assert [(place, type(error)) for place, error in refused.value.errors.items()] == [(2, DuplicateRun)]
    with pytest.raises(DuplicateRun):
        await app.submit_many([once.s(2)])
    assert (await first.wait()).status == (await second.wait()).status == "succeeded"
    assert sorted(done) == [1, 2]


async def test_many_take_ids_headers_and_meta(app: Stemflow, registry: TaskRegistry) -> None:
    @registry.task("see")
    async def see(context: TaskContext, x: int) -> list[Any]:
        return [x, context.run_id, dict(context.headers), dict(context.meta)]

    ids = [f"order-{n}" for n in range(3)]
    handles = await app.submit_many(map(see.s, range(3)), run_ids=ids, headers={"tenant": "a"}, meta={"n": [1]})
    assert [(await one.wait()).value for one in handles] == [
        [n, run_id, {"tenant": "a"}, {"n": [1]}] for n, run_id in enumerate(ids)
    ]

    # The same ids with the same work are the same runs; with other work they are refused, the new ones accepted
    again = await app.submit_many(map(see.s, range(3)), run_ids=ids, headers={"tenant": "a"}, meta={"n": [1]})
    assert [(one.id, one.existing) for one in again] == [(run_id, True) for run_id in ids]
    with pytest.raises(NotAllSubmitted) as refused:
        await app.submit_many([see.s(7), see.s(1), see.s(3)], run_ids=[*ids[:2], "order-3"])
    assert [type(error) for error in refused.value.errors.values()] == [RunConflict]
    assert [one and (one.id, one.existing) for one in refused.value.handles] == [
        None, ("order-1", True), ("order-3", False),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (["a"], "expected 2, one for each signature, got 1"),
        (["a", "a"], "expected different ids, got 'a' twice"),
        ("ab", "got text; write a list"),
        (["a", 5], "number 1: expected text, got int 5"),
    ],
)
async def test_ids_that_do_not_fit_are_refused(
    app: Stemflow, registry: TaskRegistry, ids: Any, message: str
) -> None:
    with pytest.raises(OptionError, match=message):
        await app.submit_many([Canvas.wait(1), Canvas.wait(2)], run_ids=ids)
    assert await app.store.runs(9) == []


async def test_what_was_stored_before_a_signature_that_is_refused_has_its_handles(
    app: Stemflow, registry: TaskRegistry
) -> None:
    @registry.task("noop")
    async def noop(x: int) -> None: ...

    calls: list[Any] = [noop.s(n) for n in range(500)]
    with pytest.raises(NotAllSubmitted) as refused:
        await app.submit_many([*calls, Canvas.task("nobody", 1)])
    assert len([one for one in refused.value.handles if one is not None]) == 500 == len(await app.store.runs(1_000))
    assert list(refused.value.errors) == [500]


async def test_a_submission_that_is_cancelled_takes_no_other_with_it(open_app: OpenApp, registry: TaskRegistry) -> None:
    @registry.task("noop")
    async def noop() -> None: ...

    app = await open_app(worker=False)
    await open_app()
    exchange, gate = app.store.exchange, asyncio.Event()

    async def slow(request: Request, decisions: Sequence[Decision], want: Want | None) -> Exchange:
        if want is None and any(decision.headers for decision in decisions):
            await gate.wait()
        return await exchange(request, decisions, want)

    app.store.exchange = slow  # type: ignore[method-assign]
    # Given one whose exchange is under way, and two who wait behind it
    first, second, third = [asyncio.ensure_future(app.submit(noop.s())) for _ in range(3)]
    await asyncio.sleep(1)
    # When the first two are cancelled
    first.cancel()
    second.cancel()
    gate.set()
    # Then the third is submitted, and runs
    assert (await (await third).wait()).status == "succeeded"
    assert first.cancelled() or (await asyncio.wait((first,)))[0]
    assert len(await app.store.runs(9)) == 1


@pytest.mark.parametrize(
    "options",
    [{}, {"expires": "1h", "priority": 7}, {"queue": "slow", "ignore_result": True, "max_retries": 2}],
    ids=["plain", "expiring", "elsewhere"],
)
async def test_many_of_one_task_are_as_if_each_had_been_submitted_alone(
    options: dict[str, Any], open_app: OpenApp, registry: TaskRegistry
) -> None:
    @registry.task("double", **options)
    async def double(x: int) -> int:
        return 2 * x

    app = await open_app(worker=False)
    told: list[tuple[str, str]] = []
    for name in ("before_publish", "run_started", "after_publish"):
        getattr(registry.signals, name).connect(lambda event, name=name: told.append((name, event.run_id)))
    # Given calls, some with a header and some that start later, submitted at once and one by one
    calls = [double.with_options(headers={"tenant": f"t{n}"}).s(n) if n % 3 else double.s(n) for n in range(6)]
    calls += [double.with_options(countdown=60).s(n) if n % 2 else double.s(n) for n in range(4)]
    many = await app.submit_many(calls)
    single = [await app.submit(one) for one in calls]

    # Then their records are the same, each with its own arguments
    async def stored(handles: Sequence[Any]) -> list[Any]:
        found = []
        for handle in handles:
            (root,), header = await app.store.nodes(handle.id), await app.store.header(handle.id)
            assert header is not None
            found.append((structs.replace(root, run=""), structs.replace(header, run="")))
        return found

    assert await stored(many) == await stored(single)
    assert sorted(told) == sorted(
        (name, handle.id) for name in ("before_publish", "run_started", "after_publish") for handle in (*many, *single)
    )
    await open_app(queues=("default", "slow"))
    values = [(await handle.wait()).value for handle in many]
    assert values == [None if "ignore_result" in options else value for value in (0, 2, 4, 6, 8, 10, 0, 2, 4, 6)]


async def test_many_that_meet_in_a_limit_are_each_counted_under_their_own_key(
    open_app: OpenApp, registry: TaskRegistry
) -> None:
    @registry.task("call", rate_limit="1/s")
    async def call() -> None: ...

    app = await open_app(worker=False)
    handles = await app.submit_many([call.with_options(headers={"tenant": f"t{n}"}).s() for n in range(3)])
    keys = [[limit.key for limit in (await handle.root()).limits] for handle in handles]
    assert keys == [[f"call:t{n}"] for n in range(3)]
