"""Members of a run as they end: `RunHandle.members`."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from stemflow import Canvas, Ignore, Reject, RunHandle, Stemflow, TaskContext, TaskRegistry
from tests.spec.conftest import OpenApp


@pytest.fixture
def slow(registry: TaskRegistry) -> Any:
    """Takes so many seconds, and answers them; 3 fails, 4 is ignored."""

    @registry.task("slow")
    async def slow(seconds: int, *rest: Any) -> int:
        await asyncio.sleep(seconds)
        if seconds == 3:
            raise Reject("three is a crowd")
        if seconds == 4:
            raise Ignore
        return seconds

    return slow


async def told(handle: RunHandle[Any], path: str = "") -> list[tuple[str, str, Any]]:
    return [
        (one.task_id.removeprefix(f"{handle.id}/"), one.status, one.value if one.error is None else one.error.message)
        async for one in handle.members(path)
    ]


GROUP = [
    ("[2]", "succeeded", 1),
    ("[1]", "succeeded", 2),
    ("[3]", "failed", "three is a crowd"),
    ("[4]", "skipped", None),
    ("[0]", "succeeded", 5),
]


@pytest.mark.parametrize("late_s", [0, 2.5, 60])
async def test_members_are_yielded_in_the_order_in_which_they_end_also_to_a_late_reader(
    open_app: OpenApp, slow: Any, late_s: float
) -> None:
    # Given a group whose members end in another order than they stand in, and one in another process who asks later
    app, other = await open_app(), await open_app(worker=False)
    group = Canvas.group([slow.si(n) for n in (5, 2, 1, 3, 4)], on_member_error="ignore")
    handle = await app.submit(group)
    await asyncio.sleep(late_s)

    # Then it is notified of each once, and is not kept when the run has ended
    assert await told(await other.handle(handle.id)) == GROUP


async def test_a_member_is_yielded_when_it_has_ended_and_not_when_the_run_has(
    app: Stemflow, slow: Any
) -> None:
    handle = await app.submit(Canvas.group(slow.si(1), slow.si(100)))
    async for member in handle.members():
        assert (member.value, (await handle.root()).state) == (1, "running")
        break


async def test_the_members_of_an_inner_composite_are_yielded_by_its_path(app: Stemflow, slow: Any) -> None:
    handle = await app.submit(slow.si(1) | Canvas.chord([slow.si(2), slow.si(1)], slow.si(5)))
    assert await told(handle, "[1]") == [
        ("[1][1]", "succeeded", 1), ("[1][0]", "succeeded", 2), ("[1].then", "succeeded", 5),
    ]  # fmt: skip
    assert await told(handle) == [("[0]", "succeeded", 1), ("[1]", "succeeded", 5)]


async def test_what_a_member_adds_is_a_member_hooks_are_none_and_a_task_alone_has_none(
    app: Stemflow, registry: TaskRegistry, slow: Any
) -> None:
    @registry.task("adds")
    async def adds(context: TaskContext) -> str:
        await context.add_to_group(slow.si(2))
        return "added"

    handle = await app.submit(Canvas.group(adds.s()).on_success(slow.si(1)))
    assert [(status, value) for _, status, value in await told(handle)] == [("succeeded", "added"), ("succeeded", 2)]
    assert await told(await app.submit(slow.si(1))) == []


async def test_members_are_decoded_as_each_was_asked_for(app: Stemflow, slow: Any) -> None:
    handle = await app.submit(Canvas.group(Canvas.task("slow", 2, decode=lambda n: f"{n} s"), slow.si(1)))
    assert [one.value async for one in handle.members()] == [1, "2 s"]
    mapped = await app.submit(Canvas.map(Canvas.task("slow", decode=lambda n: f"{n} s"), [2, 1]))
    assert [one.value async for one in mapped.members()] == ["1 s", "2 s"]
