"""What a tree of signatures means, however its parts are nested; an option that is set on a part is never lost."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from stemflow import Canvas, OptionError, Signature, Stemflow, TaskContext, TaskRegistry


class World:
    """Tasks of the tests: `note` counts its calls, `busy` how many of it run at once."""

    def __init__(self, registry: TaskRegistry) -> None:
        self.notes: list[tuple[Any, ...]] = []
        self.running = self.peak = 0

        @registry.task("ident")
        async def ident(x: Any) -> Any:
            return x

        @registry.task("note")
        async def note(*args: Any) -> None:
            self.notes.append(args)

        @registry.task("fail")
        async def fail(*args: Any) -> None:
            raise ValueError("boom")

        @registry.task("busy")
        async def busy(x: Any) -> Any:
            self.running += 1
            self.peak = max(self.peak, self.running)
            await asyncio.sleep(1)
            self.running -= 1
            return x

        @registry.task("about")
        async def about(context: TaskContext, *args: Any) -> dict[str, Any]:
            return {"queue": context.queue, "headers": dict(context.headers), "meta": dict(context.meta)}

        self.ident, self.note, self.fail, self.busy, self.about = ident, note, fail, busy, about


@pytest.fixture
def world(registry: TaskRegistry) -> World:
    return World(registry)


async def test_an_empty_group_is_an_empty_list_everywhere(app: Stemflow, world: World) -> None:
    one, got = world.ident.s(1), world.ident.s()
    trees: list[Signature[Any, Any]] = [
        Canvas.group([]),
        Canvas.group([]) | got,
        one | Canvas.group([]),
        one | Canvas.group([]) | got,
        Canvas.map(got, []) | got,
        Canvas.chord([], got),
        Canvas.chord(Canvas.group([]), got),
    ]
    assert [await app.run(tree) for tree in trees] == [[]] * len(trees)


async def test_an_empty_chain_passes_on_what_came_before(app: Stemflow, world: World) -> None:
    empty: Signature[Any, Any] = Canvas.chain([])
    assert await app.run(world.ident.s(1) | empty | Canvas.chain([empty]) | world.ident.s()) == 1


async def test_a_hook_on_a_chord_fires_once_at_its_end(app: Stemflow, world: World) -> None:
    header = [world.ident.s(1), world.ident.s(2)]
    assert await app.run(Canvas.chord(header, world.ident.s()).on_success(world.note.s())) == [1, 2]
    await asyncio.sleep(1)
    assert world.notes == [([1, 2],)]


async def test_a_hook_on_a_chord_fires_once_when_its_header_fails(app: Stemflow, world: World) -> None:
    failing = Canvas.chord([world.fail.s() for _ in range(5)], world.ident.s(), on_member_error="collect")
    chord = Canvas.chord([world.fail.s() for _ in range(5)], world.ident.s()).on_failure(world.note.s())
    assert (await (await app.submit(chord)).wait()).status == "failed"
    await asyncio.sleep(1)
    assert len(world.notes) == 1
    # and not where the policy lets the body run
    assert (await (await app.submit(failing.on_failure(world.note.s()))).wait()).status == "succeeded"
    await asyncio.sleep(1)
    assert len(world.notes) == 1


async def test_a_hook_on_a_header_fires_for_each_member_and_a_nested_composite_is_one(
    app: Stemflow, world: World
) -> None:
    nested = Canvas.chord([world.ident.s(1), world.ident.s(2)], world.ident.s())
    header = Canvas.group(nested, Canvas.group(world.ident.s(3)), world.ident.s(4)).on_success(world.note.s())
    assert await app.run(Canvas.chord(header, world.ident.s())) == [[1, 2], [3], 4]
    await asyncio.sleep(1)
    assert sorted(map(str, world.notes)) == ["(4,)", "([1, 2],)", "([3],)"]


async def test_a_hook_on_a_header_does_not_fire_for_what_a_nested_chord_tolerates(app: Stemflow, world: World) -> None:
    nested = Canvas.chord([world.fail.s()], world.ident.s(), on_member_error="ignore")
    await app.run(Canvas.chord(Canvas.group(nested).on_failure(world.note.s()), world.ident.s()))
    await asyncio.sleep(1)
    assert world.notes == []


async def test_a_concurrency_key_of_a_header_holds(app: Stemflow, world: World) -> None:
    def chord() -> Signature[Any, Any]:
        header = Canvas.group(world.busy.s(1), world.busy.s(2)).with_concurrency("k")
        return Canvas.chord(header, world.ident.s())

    assert await asyncio.gather(app.run(chord()), app.run(chord())) == [[1, 2]] * 2
    assert world.peak == 2


async def test_a_concurrency_key_of_a_group_within_a_header_holds(app: Stemflow, world: World) -> None:
    members = [Canvas.group(world.busy.s(i), world.busy.s(i)).with_concurrency("k") for i in range(3)]
    assert await app.run(Canvas.chord(members, world.ident.s())) == [[0, 0], [1, 1], [2, 2]]
    assert world.peak == 2


async def test_the_policy_of_a_chord_counts_for_a_map_and_a_group_as_its_header(app: Stemflow, world: World) -> None:
    for header in (Canvas.map(world.fail.s(), [1, 2]), Canvas.group(world.fail.s(), world.fail.s()).named("h")):
        assert await app.run(Canvas.chord(header, world.ident.s(), on_member_error="ignore")) == [None, None]


async def test_the_end_of_the_run_is_its_last_event(app: Stemflow, world: World) -> None:
    for tree in (Canvas.chord([world.ident.s(1)], world.ident.s()), Canvas.chain(world.ident.s(1).named("a"))):
        handle = await app.submit(tree)
        await handle.wait()
        assert [event.path async for event in handle.events()][-1] == ""


async def test_a_composite_that_lasts_too_long_fails(app: Stemflow, world: World) -> None:
    slow = Canvas.chain(world.busy.s(1), world.busy.s(), world.busy.s())
    result = await (await app.submit(slow.with_timeout("1.5s"))).wait()
    assert result.status == "failed" and result.error is not None and result.error.type == "TaskTimeout"
    assert await app.run(slow.with_timeout(10)) == 1
    with pytest.raises(OptionError, match="hard_time_limit"):
        world.busy.s(1).with_timeout(1)


async def test_a_pause_holds_no_worker(app: Stemflow, world: World) -> None:
    loop = asyncio.get_running_loop()
    began = loop.time()
    await app.run(Canvas.chain(world.ident.s(1), Canvas.wait("30s"), world.ident.si(2)))
    assert 30 <= loop.time() - began < 31


async def test_options_of_a_composite_are_those_of_the_tasks_in_it(app: Stemflow, world: World) -> None:
    own = world.about.with_options(queue="own", headers={"tenant": "b"}).si()
    tree = Canvas.chain(
        world.about.s(), Canvas.group(world.about.si(), own), Canvas.chord([world.about.si()], world.about.si())
    )
    tree = tree.with_options(queue="urgent", headers={"tenant": "a", "who": "me"}, meta={"n": 1})
    handle = await app.submit(Canvas.group(tree, world.about.si()))
    await handle.wait()
    seen = [await handle.value_of(path) for path in ("[0][0]", "[0][1][0]", "[0][1][1]", "[0][2][0]", "[0][2].then")]
    assert [one["queue"] for one in seen] == ["urgent", "urgent", "own", "urgent", "urgent"]
    assert [one["headers"]["tenant"] for one in seen] == ["a", "a", "b", "a", "a"]
    assert all(one["meta"] == {"n": 1} and one["headers"]["who"] == "me" for one in seen)
    assert (await handle.value_of("[1]"))["queue"] == "default"


async def test_a_call_by_name_takes_options(app: Stemflow, world: World) -> None:
    value = await app.run(Canvas.task("about").with_options(queue="q", headers={"a": "b"}))
    assert (value["queue"], value["headers"]) == ("q", {"a": "b"})
    with pytest.raises(OptionError, match="with_options: there is no option 'quue'"):
        Canvas.task("about").with_options(quue="q")


async def test_a_hundred_nested_composites_run_and_more_are_refused(app: Stemflow, world: World) -> None:
    deep: Signature[Any, Any] = world.ident.s(1)
    value: Any = 1
    for _ in range(100):
        deep, value = Canvas.group(deep), [value]
    assert await app.run(deep) == value
    for levels in (101, 300, 5_000):
        for _ in range(levels - 100):
            deep = Canvas.group(deep)
        with pytest.raises(OptionError, match=f"nested at most 100 deep, got {levels}"):
            await app.submit(deep)
        deep = world.ident.s(1)
        for _ in range(100):
            deep = Canvas.group(deep)
