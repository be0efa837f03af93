"""Cases of groups and maps: order, emptiness, width, growth while running."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from stemflow import Canvas, TaskContext, skew
from stemflow.model.signature import AnySig

if TYPE_CHECKING:
    from tests.cases.conftest import World


@pytest.mark.case("A27")
async def test_a_group_with_a_failure_ends(world: World) -> None:
    # Given a group of which one member fails; when it runs; then it ends, FAILED, and every member has a final state.
    handle, result = await world.end(Canvas.group(world.add.s(1, 1), world.fail.s(), world.add.s(2, 2)))
    assert (result.status, result.failed_at) == ("failed", "[1]")
    assert set((await world.states(handle)).values()) <= {"succeeded", "failed", "cancelled"}


@pytest.mark.case("A28")
async def test_an_empty_group_gives_an_empty_list(world: World) -> None:
    # Given an empty group, also one that was written as JSON and read back; when it runs; then its value is [].
    sig = Canvas.group()
    again = msgspec.json.decode(msgspec.json.encode(sig), type=AnySig)
    assert again == sig
    assert await world.run(sig) == []
    handle, _ = await world.end(again)

    # And the value is kept: another handle of the same run reads it
    assert (await (await world.app.handle(handle.id)).wait(timeout=1)).value == []


@pytest.mark.case("A30")
async def test_a_wide_group_keeps_its_order(world: World) -> None:
    # Given a group of 1,000; when it runs; then the results are in the order of the signature.
    assert await world.run(Canvas.group(world.ident.s(i) for i in range(1_000))) == list(range(1_000))


@pytest.mark.case("A37")
async def test_no_subscription_is_left_when_all_results_are_read(world: World) -> None:
    # Given many runs, each waited for by two, and one that is not waited out
    add = world.add
    sig = Canvas.chord([add.s(1, 2), add.s(3, 4)], world.tsum.s())
    gate = asyncio.Event()

    @world.task("held")
    async def held() -> None:
        await gate.wait()

    slow = await world.app.submit(held.s())
    assert (await slow.wait(timeout=0.01)).timed_out
    handles = [await world.app.submit(sig) for _ in range(20)]

    # When all of them have been read
    results = await asyncio.gather(*(world.outcome(handle) for handle in handles * 2))

    # Then nothing is watched any more
    assert [result.value for result in results] == [10] * 40
    assert world.app.store.watching == 0
    gate.set()
    await world.outcome(slow)
    assert world.app.store.watching == 0


@pytest.mark.case("A39")
async def test_a_task_adds_members_to_its_own_running_fan_in(world: World) -> None:
    # Given a member that adds one task for each number, or one chord over them, and gives 0 itself
    @world.task("spread")
    async def spread(context: TaskContext, numbers: list[int], n: int) -> int:
        for number in numbers:
            await context.add_to_group(world.add.si(number, n))
        return 0

    @world.task("add_chord")
    async def add_chord(context: TaskContext, numbers: list[int], n: int) -> int:
        await context.add_to_group(Canvas.chord([world.add.si(number, n) for number in numbers], world.tsum.s()))
        return 0

    # Then what was added has its place after the members that were there
    assert await world.run(Canvas.group(spread.s([1, 2, 3], 4)) | world.ident.s()) == [0, 5, 6, 7]
    assert await world.run(Canvas.group(add_chord.s([1, 2, 3], 4)) | world.ident.s()) == [0, 18]
    assert await world.run(Canvas.chord([spread.s([1, 2, 3], 4)], world.ident.s())) == [0, 5, 6, 7]
    assert await world.run(Canvas.chord([add_chord.s([1, 2, 3], 4)], world.ident.s())) == [0, 18]


@pytest.mark.case("A39")
async def test_added_members_have_their_own_arguments_in_every_fan_in(world: World) -> None:
    # Given a group behind a step, of which a member adds a chain, a map, or a chord that adds to the same group
    @world.task("grow")
    async def grow(context: TaskContext, start: int, what: str) -> int:
        add = world.add
        more = {
            "chain": add.s(start, 1) | add.s(1),
            "map": Canvas.map(add.s(start), [10, 20]),
            "again": grow.si(start, "chain"),
        }[what]
        await context.add_to_group(more)
        return start

    # Then what it added starts from the arguments that it was given there
    start = world.ident.s(5)
    assert await world.run(start | Canvas.group(grow.s("chain")) | world.ident.s()) == [5, 7]
    assert await world.run(start | Canvas.group(grow.s("map"), grow.s("chain"))) in (
        [5, 5, [15, 25], 7],
        [5, 5, 7, [15, 25]],
    )
    assert await world.run(start | Canvas.group(grow.s("again")) | world.ident.s()) == [5, 5, 7]


@pytest.mark.case("A63")
async def test_map_starmap_and_chunks(world: World) -> None:
    # Given tasks over items; then map gives their results in order, starmap unpacks, chunks makes one task a chunk.
    add, ident = world.add, world.ident
    assert await world.run(Canvas.map(ident.s(), [3, 1, 2])) == [3, 1, 2]
    assert await world.run(Canvas.map(add.s(10), range(5), concurrency=2)) == [10, 11, 12, 13, 14]
    assert await world.run(Canvas.map(ident.s(), [])) == []
    assert await world.run(Canvas.map(ident.s(), [[1, 2], {"a": None}])) == [[1, 2], {"a": None}]
    assert await world.run(Canvas.starmap(add.s(), [(1, 2), (3, 4)])) == [3, 7]
    handle, result = await world.end(Canvas.chunks(ident.s(), range(100), 10))
    assert result.value == [list(range(start, start + 10)) for start in range(0, 100, 10)]
    assert sum(node.tally is None for node in await handle.records()) == 10
    assert await world.run(Canvas.chunks(add.s(), [(1, 2), (3, 4), (5, 6)], 2)) == [[3, 7], [11]]


@pytest.mark.case("A63")
async def test_a_map_may_be_anywhere_in_a_canvas(world: World) -> None:
    """The items of a map are its own; the result of the step before it is not mixed into them."""
    add, ident = world.add, world.ident
    each = Canvas.map(add.s(1), [1, 2, 3])
    assert await world.run(each | world.tsum.s()) == 9
    assert await world.run(ident.s(5) | each) == [2, 3, 4]
    assert await world.run(Canvas.group(each, Canvas.chain(ident.s(5), each))) == [[2, 3, 4], [2, 3, 4]]
    assert await world.run(Canvas.chord(each, world.tsum.s())) == 9
    assert await world.run(Canvas.chord([each, ident.s(1)], ident.s())) == [[2, 3, 4], 1]
    assert await world.run(Canvas.chord([ident.s(1)], each)) == [2, 3, 4]
    assert await world.run(Canvas.map(add.s(1) | add.s(2), [1, 2])) == [4, 5]
    assert await world.run(Canvas.map(Canvas.group(add.s(1), add.s(2)), [1, 2])) == [[2, 3], [3, 4]]


@pytest.mark.case("A63")
async def test_the_items_of_a_map_are_found_where_pieces_around_it_are_flattened(world: World) -> None:
    # Given a map behind an empty step, and one behind a group that is flattened into a header
    each = Canvas.map(world.add.s(1), [1, 2, 3])
    ident = world.ident
    assert await world.run(Canvas.chain(ident.s(0), Canvas.group(), each)) == [2, 3, 4]
    header = [Canvas.group(ident.s(7), ident.s(8)), each]
    assert await world.run(Canvas.chord(header, ident.s())) == [7, 8, [2, 3, 4]]
    assert await world.run(Canvas.group(each).on_success(world.note.s())) == [[2, 3, 4]]
    assert world.log == [[2, 3, 4]]


@pytest.mark.case("A63")
async def test_a_map_of_a_map(world: World) -> None:
    # Given a map whose members are themselves maps over a list
    sig = Canvas.map(Canvas.map(world.add.s(1), [1, 2]), ["x", "y"])
    assert await world.run(sig) == [[2, 3], [2, 3]]


@pytest.mark.case("A66")
async def test_the_members_of_a_skewed_group_start_one_after_the_other(by_hand: World) -> None:
    # Given a group of ten, skewed
    group = skew(Canvas.group(by_hand.ident.s(i) for i in range(10)))
    assert [member.countdown_ms for member in group.members] == [1_000 * i for i in range(1, 11)]

    # When it is submitted and seconds pass, then one member becomes ready each second
    await by_hand.app.submit(group)
    assert await by_hand.lease() == []
    ready = []
    for _ in range(10):
        by_hand.clock.passed_ms += 1_000
        ready.append([lease.node.path for lease in await by_hand.lease()])
    assert ready == [[f"[{i}]"] for i in range(10)]


@pytest.mark.case("B3")
async def test_a_successor_waits_for_the_group_before_it(world: World) -> None:
    # Given a chain that holds one group of two slow tasks, and a successor
    gates = [asyncio.Event(), asyncio.Event()]

    @world.task("slow")
    async def slow(i: int) -> int:
        await gates[i].wait()
        world.log.append(f"end {i}")
        return i

    @world.task("after")
    async def after(values: list[int]) -> list[int]:
        world.log.append("after")
        return values

    handle = await world.app.submit(Canvas.chain(Canvas.group(slow.s(0), slow.s(1))) | after.s())

    # When they end one after the other, then the successor starts after both, with the list
    gates[1].set()
    await world.until(lambda: world.log == ["end 1"])
    gates[0].set()
    assert (await world.outcome(handle)).value == [0, 1]
    assert world.log == ["end 1", "end 0", "after"]


@pytest.mark.case("B11")
async def test_chained_groups_run_every_task_once(world: World) -> None:
    # Given three groups in a chain and a task; when it runs; then each task ran exactly once, group by group.
    note = world.note
    sig = Canvas.chain(
        Canvas.group(note.si("1"), note.si("2"), note.si("3")),
        Canvas.group(note.si("4"), note.si("5"), note.si("6")),
        Canvas.group(note.si("7")),
        note.si("8"),
    )
    assert await world.run(sig) == "8"
    assert sorted(world.log) == list("12345678")
    assert (sorted(world.log[:3]), sorted(world.log[3:6]), world.log[6:]) == (list("123"), list("456"), ["7", "8"])


@pytest.mark.case("B28")
@pytest.mark.parametrize("children", [0, 1, 1_000])
async def test_a_reducer_runs_once_after_children_that_were_counted_at_run_time(world: World, children: int) -> None:
    # Given a member that adds a number of children to its own fan-in, known only when it runs
    @world.task("unfold")
    async def unfold(context: TaskContext, n: int) -> str:
        for i in range(n):
            await context.add_to_group(world.ident.si(i))
        return "unfolded"

    # When it runs, then the reducer runs once, after all of them, and gets them in order
    handle, result = await world.end(Canvas.chord([unfold.s(children), world.ident.s("beside")], world.note.s()))
    expected = ["unfolded", "beside", *range(children)]
    assert result.value == expected
    assert world.log == [expected]
    reducer = [node for node in await handle.records() if node.path == "then"]
    assert len(reducer) == 1


@pytest.mark.case("B28")
async def test_what_a_failed_attempt_added_does_not_join(world: World, at_once: Any) -> None:
    # Given a member that adds a child and then fails once
    @world.task("flaky", max_retries=1, retry=at_once)
    async def flaky(context: TaskContext) -> int:
        await context.add_to_group(world.ident.si(f"by attempt {context.attempt}"))
        if context.attempt == 0:
            raise ValueError("after adding")
        return 0

    # Then only what the attempt that ended well added is there
    assert await world.run(Canvas.group(flaky.s())) == [0, "by attempt 1"]
