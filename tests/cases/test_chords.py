"""Cases of chords: headers of every kind, bodies of every kind, chords within chords."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from stemflow import Canvas, SoftTimeLimitExceeded, TaskContext

if TYPE_CHECKING:
    from tests.cases.conftest import World


def summed(world: World, *members: Any) -> Any:
    return Canvas.chord(Canvas.group(*members), world.tsum.s())


@pytest.mark.case("A9")
@pytest.mark.parametrize("raises", [True, False])
async def test_a_member_that_handles_its_soft_timeout_counts_with_its_value(world: World, raises: bool) -> None:
    # Given a header member that passes its soft limit, notices (by exception or by event), and gives a value
    late = late_task(world, raises)
    sig = Canvas.chord([world.add.s(1, 1), late.s(1)], world.tsum.s())

    # Then the body gets all values
    assert await world.run(sig) == 3


@pytest.mark.case("B8")
@pytest.mark.parametrize("raises", [True, False])
async def test_a_handled_soft_timeout_is_counted_once(world: World, raises: bool) -> None:
    # Given a member that catches its soft limit and returns 0, next to others
    late = late_task(world, raises)
    handle, result = await world.end(Canvas.chord([late.s(0), world.ident.s(5), late.s(0)], world.note.s()))

    # Then the body runs once and sees 0 in those slots
    assert result.value == [0, 5, 0]
    assert world.log == [[0, 5, 0]]
    assert {node.attempt for node in await handle.records()} == {0}


def late_task(world: World, raises: bool) -> Any:
    @world.task("late", soft_time_limit=0.005, soft_raises=raises)
    async def late(context: TaskContext, value: int) -> int:
        try:
            await context.soft_timeout.wait()
            if raises:
                await context.cancelled.wait()
        except SoftTimeLimitExceeded:
            pass
        return value

    return late


@pytest.mark.case("A12")
async def test_chains_of_chords(world: World) -> None:
    # Given a chain of three chords piped into another, and nine chords three wide in a chain
    add = world.add
    first = Canvas.chain(
        summed(world, add.si(1, 0), add.si(1, 0)),
        summed(world, add.s(1), add.s(1)),
        summed(world, add.s(0), add.s(0)),
    )
    second = Canvas.chain(
        summed(world, add.s(10), add.s(10)),
        summed(world, add.s(0), add.s(0)),
        summed(world, add.s(1), add.s(1)),
    )
    nine = [
        summed(world, *[add.si(1, 0)] * 3),
        *[summed(world, *[add.s(1)] * 3) for _ in range(7)],
        summed(world, *[add.s(0)] * 3),
    ]

    # Then each chord gets the sum of the one before
    assert await world.run(first | second) == 178
    assert await world.run(Canvas.chain(nine)) == 29_520


@pytest.mark.case("A13")
@pytest.mark.parametrize(("tasks", "expected"), [(1, [6, 6]), (2, [7, 7]), (3, [8, 8])])
async def test_a_chord_then_tasks_then_a_trailing_group(world: World, tasks: int, expected: list[int]) -> None:
    # Given a task, a group, its sum, some more tasks and a group at the end; then nothing is lost or doubled.
    add = world.add
    sig = add.si(1, 0) | Canvas.group(add.s(1), add.s(1)) | world.tsum.s()
    for _ in range(tasks):
        sig = sig | add.s(1)
    assert await world.run(sig | Canvas.group(add.s(1), add.s(1))) == expected


@pytest.mark.case("A25")
async def test_a_group_in_the_centre_of_nested_chords_and_chains(world: World) -> None:
    # Given a chord whose body is a chord whose body is a chain with a group in its middle
    add, tsum = world.add, world.tsum
    centre = Canvas.chain(tsum.s(), Canvas.group(add.s(8), add.s(16)), tsum.s() | add.s(32))
    sig = Canvas.chord([add.s(0, 1)], Canvas.chord([tsum.s(), tsum.s()], centre))
    assert await world.run(sig) == 60


@pytest.mark.case("A25")
async def test_groups_that_follow_each_other_inside_chains_end_once(world: World) -> None:
    # Given two groups in a row inside a chain, with a chain behind them; then what follows runs once.
    note = world.note
    groups = Canvas.group(note.si("a"), note.si("a")) | Canvas.group(note.si("a"), note.si("a"))
    await world.run(Canvas.chain(groups, note.si("a") | note.si("b")))
    assert world.log == ["a"] * 5 + ["b"]


@pytest.mark.case("A31")
async def test_a_chord_counts_the_members_of_its_header_whatever_they_are(world: World) -> None:
    # Given a group of one chord whose header is a task, a long chain, a wide group, a wide chord, or all of these
    one = world.ident.si
    chain = Canvas.chain([one(1337)] * 42)
    wide = Canvas.group([one(1337)] * 42)
    chord = Canvas.chord([one(1337)] * 42, one(31337))

    def counted(*header: Any) -> Any:
        return Canvas.group(Canvas.chord(header, world.ident.s()))

    # Then the body gets one value for each member, a group in a header being its members
    assert await world.run(counted(one(42))) == [[42]]
    assert await world.run(counted(chain)) == [[1337]]
    assert await world.run(counted(wide)) == [[1337] * 42]
    assert await world.run(counted(chord)) == [[31337]]
    assert await world.run(counted(one(42), chain, wide, chord)) == [[42, 1337, *[1337] * 42, 31337]]


@pytest.mark.case("A42")
async def test_the_body_of_a_header_of_one_gets_a_list_of_one(world: World) -> None:
    # Given a header with a single member, as a chord or as a piped group; then the body gets a list.
    member = world.add.s(2, 5)
    assert await world.run(Canvas.chord([member], world.add_all.s(9))) == [16]
    assert await world.run(Canvas.group(member) | world.add_all.s(9)) == [16]


@pytest.mark.case("A43")
async def test_the_body_of_an_empty_header_runs_with_an_empty_list(world: World) -> None:
    # Given a chord without a header; then its body runs once, with [].
    assert await world.run(Canvas.chord([], world.add_all.s(9))) == []
    assert await world.run(Canvas.chord(Canvas.group(), world.note.s())) == []
    assert world.log == [[]]


@pytest.mark.case("A45")
async def test_a_body_descends_from_a_member_of_its_header_and_all_from_one_root(world: World) -> None:
    """Our ids: the root is the run, the same for every task of it, and its first task has no parent within it.

    The parent of a step is the task that made it ready: the step before it, or one of the members it waited for.
    """
    # Given two tasks, a chord and a task in a chain, each of which records who it is
    seen: dict[str, tuple[str, str | None]] = {}

    @world.task("who")
    async def who(context: TaskContext, *before: Any) -> str:
        seen[context.id] = (context.root_id, context.parent_id)
        return context.id

    members = Canvas.group(who.si() for _ in range(5))
    handle, result = await world.end(who.si() | who.si() | Canvas.chord(members, who.s()) | who.si())

    # Then they share one root, and each one's parent is what came before it
    run = handle.id
    assert result.value == f"{run}/[3]"
    assert {root for root, _ in seen.values()} == {run}
    header = [f"{run}/[2][{i}]" for i in range(5)]
    assert seen[f"{run}/[0]"][1] is None
    assert seen[f"{run}/[1]"][1] == f"{run}/[0]"
    assert {seen[member][1] for member in header} == {f"{run}/[1]"}
    assert seen[f"{run}/[2].then"][1] in header
    assert seen[f"{run}/[3]"][1] == f"{run}/[2].then"


@pytest.mark.case("A48")
async def test_chords_side_by_side_and_within_each_other(world: World) -> None:
    # Given chords in a group, in chains in a header, and chains and chords in turns
    add, one = world.add, world.ident.si
    pair = summed(world, add.s(1, 2), add.s(3, 4))
    within = add.si(1, 2) | Canvas.chord([add.si(1, 2), add.si(1, 2)], add.si(1, 2))
    turns = one(1) | Canvas.chord([one(2), one(3) | Canvas.chord([one(4), one(5)], one(6))], one(7))

    # Then each gives its body's value
    assert await world.run(Canvas.group(pair, pair)) == [10, 10]
    assert await world.run(Canvas.chord([within, within], add.si(2, 2))) == 4
    assert await world.run(turns) == 7


@pytest.mark.case("A52")
async def test_a_group_directly_in_a_header_flattens_and_one_behind_a_chain_does_not(world: World) -> None:
    # Given a header that is a group, and one that is a chain ending in a group
    ident = world.ident
    flat = Canvas.chord([Canvas.group(ident.s(42), ident.s(42))], ident.s())
    kept = Canvas.chord([ident.s(42) | Canvas.group(ident.s(), ident.s())], ident.s())
    assert await world.run(flat) == [42, 42]
    assert await world.run(kept) == [[42, 42]]


@pytest.mark.case("B4")
async def test_a_chain_in_a_group_in_a_body_gets_the_header(world: World) -> None:
    # Given a body that is a group of a chain and a task; then each of them starts from the header's list.
    ident = world.ident
    sig = Canvas.chord([ident.s(1), ident.s(2)], Canvas.group(ident.s() | ident.s(), ident.s()))
    assert await world.run(sig) == [[1, 2], [1, 2]]
