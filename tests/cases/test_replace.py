"""Cases of `context.replace`: a task that puts a sub-graph in its own place."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from stemflow import Canvas, TaskContext

if TYPE_CHECKING:
    from tests.cases.conftest import World


def becomes_a_chain(world: World) -> Any:
    """A task that puts a chain of two in its place, which hands its argument through and has hooks of its own."""

    @world.task("becomes_a_chain")
    async def becomes_a_chain(context: TaskContext, value: Any) -> Any:
        ident = world.ident
        await context.replace((ident.s(value) | ident.s()).on_success(world.note.si("inner")))

    return becomes_a_chain


@pytest.mark.case("A7")
async def test_a_replacement_is_itself_replaced(world: World) -> None:
    # Given A, which becomes B and A's end; B becomes C and B's end
    @world.task("a")
    async def a(context: TaskContext, ends: bool = False) -> None:
        world.log.append("end A" if ends else "A")
        if not ends:
            await context.replace(b.s() | a.si(True))

    @world.task("b")
    async def b(context: TaskContext, ends: bool = False) -> None:
        world.log.append("end B" if ends else "B")
        if not ends:
            await context.replace(c.s() | b.si(True))

    @world.task("c")
    async def c() -> None:
        world.log.append("C")

    # Then the trace goes in and out
    await world.run(a.s())
    assert world.log == ["A", "B", "C", "end B", "end A"]


@pytest.mark.case("A16")
async def test_a_step_replaced_by_a_chain_fires_the_inner_and_the_outer_callback_once(world: World) -> None:
    """A replacement starts from the arguments that the handler gives it, without the result before it."""
    # Given a chain with a callback, whose middle step becomes a chain with its own callback
    sig = world.ident.s("Hello ") | becomes_a_chain(world).s() | world.add.s("world")

    # When it runs, then its value is as if the replacement had stood there, and each callback ran once
    assert await world.run(sig.on_success(world.note.si("outer"))) == "Hello world"
    assert world.log == ["inner", "outer"]


@pytest.mark.case("A18")
@pytest.mark.parametrize("where", ["alone", "chain", "header"])
async def test_to_be_replaced_by_nothing_is_an_error(world: World, where: str) -> None:
    # Given a task that puts an empty chain in its place
    @world.task("vanish")
    async def vanish(context: TaskContext, *before: Any) -> None:
        await context.replace(Canvas.chain([]))

    sig = {
        "alone": vanish.s(),
        "chain": world.ident.s(1) | vanish.s() | world.note.s(),
        "header": Canvas.chord([world.ident.s(1), vanish.s()], world.note.s()),
    }[where]

    # When it runs, then it fails with a sentence, without a retry, and what follows does not run
    _, result = await world.end(sig)
    assert result.status == "failed"
    assert "replace: expected something to run, got an empty chain" in result.error.message
    assert world.log == []


@pytest.mark.case("A21")
@pytest.mark.parametrize("place", [0, 1, 2])
async def test_a_child_of_a_chain_is_replaced_by_a_chain(world: World, place: int) -> None:
    # Given a chain of three of which the first, the middle or the last becomes a chain
    steps = [world.ident.s(), world.ident.s(), world.ident.s()]
    steps[place] = becomes_a_chain(world).s()

    # Then the value goes through all of it, also inside a group, a header or a body
    chain = Canvas.chain(steps)
    assert await world.run(chain, 42) == 42
    assert await world.run(Canvas.group(chain, chain), 42) == [42, 42]
    assert await world.run(Canvas.chord([chain], world.ident.s()), 42) == [42]
    assert await world.run(Canvas.chord([world.ident.s(42)], chain)) == [42]
    assert world.log == ["inner"] * 5


@pytest.mark.case("A34")
async def test_replaced_members_of_a_group_keep_their_place(world: World) -> None:
    # Given members that become chains, or groups of as many as they have numbers
    becomes = becomes_a_chain(world)

    @world.task("becomes_a_group")
    async def becomes_a_group(context: TaskContext, numbers: list[int], n: int) -> Any:
        await context.replace(Canvas.group(world.add.s(number, n) for number in numbers))

    # Then each result is at the index of its member
    assert await world.run(Canvas.group(becomes.s(1), world.ident.s(2), becomes.s(3))) == [1, 2, 3]
    pair = [becomes_a_group.s([2, 1], 1), becomes_a_group.s([4, 3], 1)]
    assert await world.run(Canvas.group(pair * 10)) == [[3, 2], [5, 4]] * 10


@pytest.mark.case("A34")
async def test_a_replacement_within_nested_chords(world: World) -> None:
    # Given chords in a header whose members are replaced
    becomes, add, tsum = becomes_a_chain(world), world.add, world.tsum

    def inner(*header: Any, n: int) -> Any:
        return Canvas.chord(header, world.add_all.s(n)) | tsum.s()

    sig = Canvas.chord(
        [inner(add.s(1, 2), becomes.s(7), n=5), inner(becomes.s(13), add.s(0, 0), n=8)], world.add_all.s(9)
    )
    assert await world.run(sig) == [29, 38]


@pytest.mark.case("A34")
async def test_a_map_takes_a_tasks_place(world: World) -> None:
    # Given a task that becomes a map over items that it has found
    @world.task("find")
    async def find(context: TaskContext) -> Any:
        await context.replace(Canvas.map(world.add.s(1), [10, 20, 30]))

    assert await world.run(find.s() | world.tsum.s()) == 63


SHAPES = ("task", "chain", "group", "chord")


@pytest.mark.case("B35")
@pytest.mark.parametrize("position", ["alone", "head", "middle", "tail", "member", "header", "body"])
@pytest.mark.parametrize("shape", SHAPES)
async def test_the_handlers_of_a_replaced_task_move_and_fire_once(world: World, position: str, shape: str) -> None:
    """The handlers stay with the place: they fire once for all that is there now."""
    # Given a task with handlers that becomes something else, well or with a failing leaf, in any position
    ident, fail = world.ident, world.fail

    def shaped(leaf: Any) -> Any:
        return {
            "task": leaf,
            "chain": ident.s(0) | leaf,
            "group": Canvas.group(ident.s(0), leaf),
            "chord": Canvas.chord([ident.s(0), leaf], ident.s()),
        }[shape]

    @world.task("turncoat")
    async def turncoat(context: TaskContext, ends_well: bool, *before: Any) -> Any:
        await context.replace(shaped((ident if ends_well else fail).si(1)))

    for ends_well, told in ((True, "won"), (False, "lost")):
        world.log.clear()
        step = turncoat.si(ends_well).on_success(world.note.si("won")).on_failure(world.note.si("lost"))
        sig = {
            "alone": step,
            "head": step | ident.s(),
            "middle": ident.s(1) | step | ident.s(),
            "tail": ident.s(1) | step,
            "member": Canvas.group(ident.s(1), step),
            "header": Canvas.chord([ident.s(1), step], ident.s()),
            "body": Canvas.chord([ident.s(1)], step),
        }[position]

        # When it runs, then the run ends as the replacement did, and one handler fired, once
        _, result = await world.end(sig)
        assert result.status == ("succeeded" if ends_well else "failed")
        assert world.log == [told]
