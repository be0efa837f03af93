"""Cases of chains: values handed on, groups inside, priorities, what stops a chain."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from stemflow import Canvas, Ignore, Reject, RunFailed, Stemflow, TaskContext

if TYPE_CHECKING:
    from tests.cases.conftest import World


@pytest.mark.case("A1")
async def test_a_chain_passes_each_result_to_the_next_step(world: World) -> None:
    # Given a chain of additions; when it runs; then each step gets the sum so far.
    add, ident = world.add, world.ident
    assert await world.run(add.s(4, 4) | add.s(8) | add.s(16)) == 32
    assert await world.run(Canvas.chain(add.s(4, 4), add.s(8), add.s(16))) == 32
    # A chain of one gives the value of the one, however deep it is wrapped.
    assert await world.run(Canvas.chain(add.s(4, 4))) == 8
    assert await world.run(Canvas.chain(Canvas.chain(ident.s(42)))) == 42
    assert await world.run(add.s(4, 4)) == 8


@pytest.mark.case("A3")
async def test_a_failing_step_ends_the_chain_with_its_own_error(world: World) -> None:
    # Given a chain whose middle step fails
    handle, result = await world.end(world.add.s(1, 2) | world.fail.s("here") | world.note.s("later"))

    # Then the caller gets that error, the step's own record has it too, and the later step never ran
    assert (result.status, result.failed_at, result.attempt) == ("failed", "[1]", 0)
    assert (result.error.type, result.error.message) == ("UserError", "failed with [3, 'here']")
    with pytest.raises(RunFailed) as caught:
        result.required()
    assert (caught.value.node, caught.value.error) == ("[1]", result.error)
    (failed,) = [node for node in await handle.records() if node.path == "[1]"]
    assert (failed.state, failed.error) == ("failed", result.error)
    assert world.log == []
    assert (await world.states(handle)).get("[2]", "skipped") == "skipped"


@pytest.mark.case("A4")
async def test_members_of_a_group_each_get_the_result_before_it(world: World) -> None:
    # Given 11 piped into a group of a chain and a task; then every member starts from 11.
    add = world.add
    assert await world.run(add.s(5, 6) | Canvas.group(add.s(1) | add.s(2), add.s(3))) == [14, 14]


@pytest.mark.case("A6")
async def test_a_chain_that_ends_in_a_group_is_one_slot(world: World) -> None:
    # Given a group whose last member is a chain that ends in a group; then that member's slot is a list.
    one = world.ident.si
    sig = Canvas.group(one(1), one(2), Canvas.chain(one(5), Canvas.group(one(3), one(4))))
    assert await world.run(sig) == [1, 2, [3, 4]]


@pytest.mark.case("A10")
async def test_nothing_of_a_delayed_chain_starts_early(stopped: World) -> None:
    """The start time belongs to the tasks that start first: here the members of the group."""
    # Given a chain with a failure hook whose first step, a group, is to start in 10 s
    world = stopped
    add = world.add.with_options(countdown=10)
    sig = Canvas.chain(Canvas.group(add.s(1, 2), add.s(3, 4)), world.tsum.s()).on_failure(world.note.s("failed"))
    handle = await world.app.submit(sig)

    # When 9.999 s have passed, then nothing has been leased
    world.pass_ms(9_999)
    assert (await handle.wait(timeout=0.02)).timed_out
    assert {n.delivery for n in await handle.records()} == {0}

    # When 10 s have passed, then it runs, and the hook does not
    world.pass_ms(1)
    assert (await world.outcome(handle)).value == 10
    assert min(n.started_at_ms for n in await handle.records() if n.tally is None) == world.clock.now_ms()
    assert world.log == []


@pytest.mark.case("A15")
async def test_a_group_may_be_any_step_of_a_chain(world: World) -> None:
    # Given a group alone, in the middle or at the end of a chain; then the chain gives the list.
    ident = world.ident
    assert await world.run(Canvas.chain(Canvas.group(ident.s(42), ident.s(42)))) == [42, 42]
    assert await world.run(Canvas.chain(ident.s(42), Canvas.group(ident.s(), ident.s()), ident.s())) == [42, 42]
    assert await world.run(Canvas.chain(ident.s(42), Canvas.group(ident.s(), ident.s()))) == [42, 42]


@pytest.mark.case("A24")
async def test_ids_of_nodes_are_stable_and_known_before_the_run(world: World) -> None:
    """Our rule instead of frozen ids: a node is RUN/path, the run's id may be chosen, and the run's value is its last
    step's."""
    # Given a run id of our own
    seen = []

    @world.task("who")
    async def who(context: TaskContext, *before: Any) -> str:
        seen.append(context.id)
        return context.id

    sig = Canvas.chain(who.si(), who.si(), Canvas.group(who.si(), who.si()), who.si())

    # When the chain is submitted twice under that id
    first = await world.app.submit(sig, run_id="mine")
    again = await world.app.submit(sig, run_id="mine")
    value = (await world.outcome(first)).value

    # Then it is one run, the ids are those that could be written down beforehand, and the value is the last step's
    assert (first.id, again.id) == ("mine", "mine")
    assert sorted(seen) == ["mine/[0]", "mine/[1]", "mine/[2][0]", "mine/[2][1]", "mine/[3]"]
    assert value == "mine/[3]"


@pytest.mark.case("A40")
async def test_arguments_at_the_call_go_to_the_first_tasks(world: World) -> None:
    # Given a task, a group and a task in a chain
    add = world.add
    group = Canvas.group(add.s(i) for i in range(4))
    sig = add.s(2, 2) | group | world.add_all.s(8)

    # Then arguments given at the call reach the head: one task, or every member of a leading group
    assert await world.run(sig) == [12, 13, 14, 15]
    assert await world.run(sig, z=1) == [13, 14, 15, 16]
    assert await world.run(group | world.add_all.s(8), 4, z=1) == [13, 14, 15, 16]


@pytest.mark.case("A51")
async def test_each_step_of_a_chain_keeps_its_own_priority(world: World) -> None:
    # Given steps of priority 3 and 5
    note = world.note
    handle, result = await world.end(note.with_options(priority=3).s("a") | note.with_options(priority=5).si("b"))

    # Then each was queued with its own
    assert result.value == "b"
    assert [n.priority for n in await handle.records() if n.tally is None] == [3, 5]


@pytest.mark.case("A51")
async def test_a_task_of_higher_priority_is_leased_first(by_hand: World) -> None:
    # Given ready tasks of priority 1, 9 and 5; when they are leased one at a time; then the highest comes first.
    note = by_hand.note
    await by_hand.app.submit(Canvas.group(note.with_options(priority=p).s(p) for p in (1, 9, 5)))
    assert [(await by_hand.lease(1))[0].node.path for _ in range(3)] == ["[1]", "[2]", "[0]"]


@pytest.mark.case("A67")
@pytest.mark.parametrize(("error", "status"), [(Ignore, "skipped"), (Reject, "failed")])
async def test_a_task_that_ignores_or_rejects_stops_its_chain(world: World, error: Any, status: str) -> None:
    """Ignore skips the step and with it the rest of the chain; Reject fails it at once, whatever retries are left."""

    # Given a chain whose middle step raises Ignore or Reject
    @world.task("refuse", max_retries=5)
    async def refuse(context: TaskContext, value: int) -> None:
        world.log.append(("refuse", context.attempt))
        raise error("no")

    # When it runs
    handle, result = await world.end(world.add.s(1, 1) | refuse.s() | world.note.s())

    # Then the rest never runs, and there was one attempt
    assert result.status == status
    assert world.log == [("refuse", 0)]
    states = await world.states(handle)
    assert (states["[0]"], states["[1]"]) == ("succeeded", status)


@pytest.mark.case("A69")
async def test_a_task_runs_a_canvas_on_an_engine_of_its_own(world: World) -> None:
    # Given a task that opens an embedded engine and waits for a chord on it
    @world.task("inner")
    async def inner(x: int, y: int) -> int:
        add = world.add
        async with Stemflow("memory:", world.registry) as app:
            return await app.run(Canvas.chord([add.s(x, x), add.s(y, y)], world.tsum.s()))

    # Then its result is the task's
    assert await world.run(inner.s(4, 8) | world.add.s(1)) == 25


@pytest.mark.case("A69")
async def test_a_task_starts_a_canvas_as_a_run_of_its_own(world: World) -> None:
    # Given a task that enqueues a chord and waits for it next to its own run
    @world.task("outer")
    async def outer(context: TaskContext) -> int:
        add = world.add
        child = await context.enqueue(Canvas.chord([add.s(4, 4), add.s(8, 8)], world.tsum.s()))
        world.log.append(child)
        return (await (await world.app.handle(child)).wait(timeout=20)).value

    # Then the child is another run, and its value is known to the parent
    handle, result = await world.end(Canvas.group(outer.si(), outer.si()))
    assert result.value == [24, 24]
    assert len({handle.id, *world.log}) == 3


@pytest.mark.case("B6")
async def test_empty_pieces_neither_hang_nor_swallow_arguments(world: World) -> None:
    """An empty group is a list of nothing; an empty chain passes on what it was given, and as a member gives null."""
    add, ident = world.add, world.ident
    nothing = Canvas.chain([])
    assert await world.run(Canvas.chord([], ident.s())) == []
    assert await world.run(Canvas.chain(nothing, add.s(10)), 1) == 11
    assert await world.run(Canvas.chain(ident.s(1), Canvas.group(), nothing, ident.s())) == []
    assert await world.run(Canvas.chain(Canvas.group(), ident.s())) == []
    assert await world.run(Canvas.group(nothing, ident.s(7))) == [None, 7]
    assert await world.run(Canvas.group(Canvas.group(), ident.s(7))) == [[], 7]
    assert await world.run(Canvas.chord([Canvas.group(), ident.s(7)], ident.s())) == [7]
    assert await world.run(Canvas.chain(Canvas.chord([], ident.s()), ident.s())) == []
    assert await world.run(nothing) is None
    assert await world.run(Canvas.chain(ident.s(1), Canvas.group())) == []


@pytest.mark.case("B22")
async def test_a_step_that_is_retried_shows_no_failure_meanwhile(stopped: World) -> None:
    # Given a chain whose first step fails once, with a retry 2 s later
    world = stopped

    @world.task("flaky", max_retries=1)
    async def flaky(context: TaskContext) -> int:
        if context.attempt == 0:
            raise ValueError("the first time")
        return 5

    sig = (flaky.s().on_failure(world.note.s("step")) | world.add.s(1)).on_failure(world.note.s("chain"))
    handle = await world.app.submit(sig)

    # When the first attempt has failed
    await world.until(lambda: second_attempt_waits(handle))

    # Then the run is under way and nobody was notified of a failure
    assert (await handle.root()).state == "running"
    assert "failed" not in (await world.states(handle)).values()
    assert await world.app.store.dead_letters(handle.id) == []

    # And when the delay has passed, then the run succeeds, without any failure hook
    world.pass_ms(2_000)
    assert (await world.outcome(handle)).value == 6
    assert world.log == []


async def second_attempt_waits(handle: Any) -> bool:
    return any(node.attempt == 1 for node in await handle.records())
