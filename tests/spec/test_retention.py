"""How long runs, results and what belongs to them are kept."""

import asyncio

import pytest

from stemflow import Reject, RunConflict, RunFailed, Stemflow, TaskRegistry, UnknownRun


async def test_the_id_of_a_run_that_is_not_to_be_kept_can_be_used_again_at_once(
    app: Stemflow, registry: TaskRegistry
) -> None:
    # Given a task whose result is not kept, and which fails at first
    calls: list[int] = []

    @registry.task("once", result_ttl=0)
    async def once(number: int) -> int:
        calls.append(number)
        if len(calls) == 1:
            raise Reject("not the first time")
        return number

    # When its id is used again as soon as a caller that waited was notified of the failure
    failed = await app.submit(once.s(1), run_id="same")
    with pytest.raises(RunFailed):
        (await failed.wait()).required()
    again = await app.submit(once.s(2), run_id="same")

    # Then it runs again, with the new arguments
    assert (await again.wait()).value == 2
    assert calls == [1, 2]
    assert await app.store.dead_letters() == []


async def test_the_id_of_a_run_that_is_kept_answers_that_run(app: Stemflow, registry: TaskRegistry) -> None:
    @registry.task("kept", result_ttl="2m")
    async def kept(number: int) -> int:
        return number

    first = await app.submit(kept.s(1), run_id="same")
    assert (await first.wait()).value == 1
    await asyncio.sleep(119)
    assert (await (await app.submit(kept.s(1), run_id="same")).wait()).value == 1
    with pytest.raises(RunConflict):
        await app.submit(kept.s(2), run_id="same")
    await asyncio.sleep(1)
    assert (await (await app.submit(kept.s(3), run_id="same")).wait()).value == 3


async def test_a_run_goes_when_its_result_is_past_its_time(app: Stemflow, registry: TaskRegistry) -> None:
    # Given a run that takes five minutes, and whose result is kept for one
    @registry.task("slow", result_ttl="1m")
    async def slow() -> str:
        await asyncio.sleep(300)
        return "done"

    handle = await app.submit(slow.s())
    assert (await handle.wait()).value == "done"

    # When the minute has passed since its end, then it goes with the next look of the sweeper, and not before
    await asyncio.sleep(59)
    assert (await handle.wait()).value == "done"
    await asyncio.sleep(61)
    with pytest.raises(UnknownRun):
        await handle.wait()
    assert await app.store.runs(10) == []
    assert await handle.records() == []


async def test_a_task_alone_whose_result_is_ignored_keeps_none(app: Stemflow, registry: TaskRegistry) -> None:
    @registry.task("told", ignore_result=True)
    async def told(number: int) -> int:
        return number

    @registry.task("twice")
    async def twice(number: int) -> int:
        return 2 * number

    handle = await app.submit(told.s(7))
    assert (await handle.wait()).value is None
    assert (await handle.root()).result is None
    assert await app.run(told.s(7) | twice.s()) == 14
