"""Cases of hooks: whom they belong to, how often they fire, what they are notified."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from stemflow import Canvas

if TYPE_CHECKING:
    from tests.cases.conftest import World

MANY = 42


@pytest.mark.case("A19")
async def test_children_of_a_chain_each_have_their_own_callback(world: World) -> None:
    # Given a chain of 42 tasks with a callback each; when it runs; then 42 callbacks ran.
    child = world.ident.si(1337).on_success(world.note.si("done"))
    assert await world.run(Canvas.chain([child] * MANY)) == 1337
    assert world.log == ["done"] * MANY

    # In a group as well
    world.log.clear()
    assert await world.run(Canvas.group([child] * MANY)) == [1337] * MANY
    assert world.log == ["done"] * MANY


@pytest.mark.case("A19")
async def test_failing_children_fire_once_in_a_chain_and_each_in_a_group(world: World) -> None:
    # Given 42 failing tasks with an error hook each: a chain ends with the first of them
    child = world.fail.si().on_failure(world.note.si("failed"))
    _, result = await world.end(Canvas.chain([child] * MANY))
    assert result.status == "failed"
    assert world.log == ["failed"]

    # In a group, in which all have started before one fails, each fires
    world.log.clear()
    together = world.fail_together(MANY).si().on_failure(world.note.si("failed"))
    _, result = await world.end(Canvas.group([together] * MANY))
    assert result.status == "failed"
    assert world.log == ["failed"] * MANY


@pytest.mark.case("A33")
async def test_a_callback_on_a_group_is_given_to_each_member(world: World) -> None:
    """A hook on a group belongs to its direct members: it is called for each, with that member's value."""
    add = world.add
    assert await world.run(Canvas.group(add.s(1, 1), add.s(2, 2)).on_success(world.note.s())) == [2, 4]
    assert sorted(world.log) == [2, 4]


@pytest.mark.case("A33")
@pytest.mark.parametrize("place", [0, 2])
async def test_an_error_hook_on_a_group_gets_the_id_of_the_member_that_failed(world: World, place: int) -> None:
    # Given a group of three, all started, of which the first or the last fails
    members: list[Any] = [world.ident.s(i) for i in range(3)]
    members[place] = world.fail.s("why")
    handle, result = await world.end(Canvas.group(members, on_member_error="collect").on_failure(world.note.s()))

    # Then the hook ran once, with the member's id and the error
    assert result.status == "succeeded"
    (news,) = world.log
    assert news["id"] == f"{handle.id}/[{place}]"
    assert news["node"] == f"[{place}]"
    assert (news["error"]["type"], news["error"]["message"]) == ("UserError", "failed with ['why']")
    failed = {node.path: node.error for node in await handle.records() if node.tally is None}
    assert failed[news["leaf"]].message == "failed with ['why']"


@pytest.mark.case("A33")
async def test_an_error_hook_on_a_group_fires_once_for_each_of_many_failing_members(world: World) -> None:
    # Given a group of 42 that have all started when they fail; then the hook is notified of each of them, once.
    together = world.fail_together(MANY)
    sig = Canvas.group(together.s(i) for i in range(MANY)).on_failure(world.note.s())
    handle, result = await world.end(sig)
    assert result.status == "failed"
    assert sorted(news["id"] for news in world.log) == sorted(f"{handle.id}/[{i}]" for i in range(MANY))


@pytest.mark.case("A46")
async def test_the_handler_of_a_chord_learns_which_member_failed(world: World) -> None:
    # Given a chord of which two members succeed and, when they have, the third fails
    sig = Canvas.chord([world.add.s(1, 2), world.add.s(3, 4), world.fail.s()], world.note.si("body"))
    handle, result = await world.end(sig.on_failure(world.note.s()))

    # Then the handler learned which one it was, and the body did not run
    assert (result.status, result.error.type) == ("failed", "UserError")
    (news,) = world.log
    assert (news["node"], news["leaf"], news["error"]["type"]) == ("", "[2]", "UserError")

    # And the good members' values can still be read
    assert [await handle.value_of(f"[{i}]") for i in range(2)] == [3, 7]


@pytest.mark.case("A55")
async def test_an_immutable_handler_on_a_chord_fires_once(world: World) -> None:
    # Given a chord with a handler that takes nothing, one failing member in its header
    hook = world.note.si("told")
    _, result = await world.end(Canvas.chord([world.fail.s()], world.ident.s()).on_failure(hook))
    assert (result.status, world.log) == ("failed", ["told"])

    # 42 of them: once all the same; on the header itself for each
    world.log.clear()
    together = world.fail_together(MANY)
    _, result = await world.end(Canvas.chord([together.s()] * MANY, world.ident.s()).on_failure(hook))
    assert (result.status, world.log) == ("failed", ["told"])
    world.log.clear()
    header = Canvas.group([together.s()] * MANY).on_failure(hook)
    _, result = await world.end(Canvas.chord(header, world.ident.s()))
    assert (result.status, world.log) == ("failed", ["told"] * MANY)

    # And a body that fails
    world.log.clear()
    _, result = await world.end(Canvas.chord([world.ident.s(1)], world.fail.s()).on_failure(hook))
    assert (result.status, world.log) == ("failed", ["told"])


@pytest.mark.case("A55")
async def test_a_body_that_is_a_group_gives_the_hook_to_its_members(world: World) -> None:
    """A handler on a chord's body that is a group is one on its members: once for each."""
    # Given a chord whose body is a group of 42 that fail together
    together = world.fail_together(MANY)
    body = Canvas.group([together.s()] * MANY)
    _, result = await world.end(Canvas.chord([world.ident.s(1)], body.on_failure(world.note.si("told"))))
    assert result.status == "failed"
    assert world.log == ["told"] * MANY


@pytest.mark.case("B1")
@pytest.mark.parametrize("wrapped", [False, True])
async def test_a_failing_leaf_of_an_inner_chord_calls_the_outer_hook_once(world: World, wrapped: bool) -> None:
    # Given a chord whose header holds a chord with a failing member (alone or at the end of a chain)
    ident, note = world.ident, world.note
    inner = Canvas.chord([ident.s(1), world.fail.s()], note.si("b1"))
    member = ident.s(0) | Canvas.chord([ident.si(1), world.fail.si()], note.si("b1")) if wrapped else inner
    handle, result = await world.end(Canvas.chord([ident.s(1), member], note.si("b2")).on_failure(note.s()))

    # Then neither body ran, and the handler ran once and names the leaf that failed
    assert (result.status, result.error.type) == ("failed", "UserError")
    (news,) = world.log
    failed = [n.path for n in await handle.records() if n.tally is None and n.state == "failed"]
    assert failed == [news["leaf"]]
    assert result.failed_at == news["leaf"]
    assert news["id"] == handle.id


@pytest.mark.case("B1")
async def test_hooks_on_a_chain_fire_once_for_the_whole_of_it(world: World) -> None:
    # Given a chain of three with hooks, once well and once with a failing step in its middle
    note, ident = world.note, world.ident
    assert await world.run((ident.s(1) | ident.s() | ident.s()).on_success(note.s()).on_failure(note.s("no"))) == 1
    assert world.log == [1]
    world.log.clear()
    chain = (ident.s(1) | world.fail.s() | ident.s()).on_success(note.s("no")).on_failure(note.s())
    _, result = await world.end(chain)
    assert result.status == "failed"
    assert [(news["node"], news["leaf"]) for news in world.log] == [("", "[1]")]
