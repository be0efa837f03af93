"""Cases of failures: whose error the caller gets, what a fan-in makes of failed members, what a dependent does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from msgspec import structs

from stemflow import Canvas
from stemflow.model.signature import StepsSig

if TYPE_CHECKING:
    from tests.cases.conftest import World


@pytest.mark.case("A54")
@pytest.mark.parametrize("where", ["header", "body"])
@pytest.mark.parametrize("kind", ["simple", "start of a chain", "tail of a chain", "group"])
async def test_a_failure_anywhere_in_a_chord_reaches_the_caller(world: World, where: str, kind: str) -> None:
    # Given a chord with a failure in its header or its body
    ident, fail = world.ident, world.fail
    failing = {
        "simple": fail.si(),
        "start of a chain": fail.si() | ident.s(),
        "tail of a chain": ident.si(42) | fail.s(),
        "group": Canvas.group(ident.si(42), fail.si()),
    }[kind]
    sig = Canvas.chord([failing], ident.s()) if where == "header" else Canvas.chord([ident.si(42)], failing)

    # When it runs, then the caller gets the user's own exception, and the node where it was raised
    handle, result = await world.end(sig)
    assert (result.status, result.error.type) == ("failed", "UserError")
    assert result.error.qualname.endswith(".UserError")
    assert (await world.states(handle))[result.failed_at] == "failed"


POLICIES = ("fail_fast", "collect", "ignore")


def error_slot(slot: Any) -> Any:
    return slot["error"]["type"] if isinstance(slot, dict) else slot


@pytest.mark.case("B23")
@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("kind", ["group", "chord", "map"])
async def test_each_fan_in_ends_with_a_result_that_its_policy_defines(world: World, policy: Any, kind: str) -> None:
    # Given a fan-in whose middle member fails for good
    @world.task("picky")
    async def picky(value: int) -> int:
        if value == 1:
            raise ValueError("not 1")
        return value

    sig = {
        "group": Canvas.group([picky.s(i) for i in range(3)], on_member_error=policy),
        "chord": Canvas.chord([picky.s(i) for i in range(3)], world.note.s(), on_member_error=policy),
        "map": Canvas.map(picky.s(), range(3), on_member_error=policy),
    }[kind]

    # When it runs, then it fails, or its slot holds the error, or its slot is null
    _, result = await world.end(sig)
    if policy == "fail_fast":
        assert (result.status, result.failed_at, result.error.type) == ("failed", "[1]", "ValueError")
        assert world.log == []
    else:
        slot = {"collect": "ValueError", "ignore": None}[policy]
        assert [error_slot(value) for value in result.value] == [0, slot, 2]
        assert world.log == ([result.value] if kind == "chord" else [])
    if policy == "collect":
        assert result.value[1]["error"]["message"] == "not 1"
        assert set(result.value[1]["error"]) == {"type", "qualname", "message", "data"}


@pytest.mark.case("B23")
@pytest.mark.parametrize("policy", POLICIES)
async def test_a_failure_below_a_member_is_one_failed_slot(world: World, policy: Any) -> None:
    # Given a group whose second member is a chain that fails in its middle
    ident = world.ident
    sig = Canvas.group([ident.s(1), ident.s(2) | world.fail.s() | ident.s()], on_member_error=policy) | world.note.s()
    _, result = await world.end(sig)
    if policy == "fail_fast":
        assert (result.status, result.failed_at) == ("failed", "[0][1][1]")
    else:
        assert [error_slot(value) for value in result.value] == [1, {"collect": "UserError", "ignore": None}[policy]]


@pytest.mark.case("B23")
async def test_under_fail_fast_siblings_that_have_not_started_are_cancelled(by_hand: World) -> None:
    # Given a group of three of which only the first has been leased when it fails for good; the others have hooks
    world = by_hand
    hooked = [world.ident.s(i).on_failure(world.note.s()) for i in (1, 2)]
    handle = await world.app.submit(Canvas.group(world.ident.s(0), *hooked))
    (lease,) = await world.lease(1)
    assert await world.fail_lease(lease)

    # Then the group has failed, the others are cancelled, and no hook is ready
    assert (await handle.root()).state == "failed"
    states = await world.states(handle)
    assert [states.get(path, "cancelled") for path in ("[0]", "[1]", "[2]")] == ["failed", "cancelled", "cancelled"]
    assert await world.lease() == []


@pytest.mark.case("B37")
@pytest.mark.parametrize(
    ("said", "state", "last"),
    [
        ({}, "failed", None),
        ({"run_on": "done"}, "failed", "ran"),
        ({"run_on": "always"}, "failed", "ran"),
        ({"run_on": "failure"}, "failed", "ran"),
        ({"run_on": "any_success"}, "failed", "ran"),
        ("continue", "succeeded", "ran"),
        ("skip_dependents", "succeeded", None),
    ],
)
async def test_the_end_of_a_diamond_is_skipped_or_runs_as_its_policy_says(
    world: World, said: Any, state: str, last: str | None
) -> None:
    # Given A -> (B, C) -> D, of which B fails; D says when it runs, or B what its failure means
    note, fail = world.note, world.fail
    on_error = said if isinstance(said, str) else "fail"
    diamond = StepsSig(
        steps=(
            structs.replace(note.si("a"), name="a"),
            structs.replace(fail.si(), name="b", needs=("a",), on_error=on_error),
            structs.replace(note.si("c"), name="c", needs=("a",)),
            structs.replace(note.si("d"), name="d", needs=("b", "c"), **(said if isinstance(said, dict) else {})),
        )
    )

    # When it runs
    handle, result = await world.end(diamond)

    # Then C runs whatever happened to B, and D has a final state by its policy
    assert result.status == state
    assert sorted(world.log) == ["a", "c", *(["d"] if last else [])]
    assert world.log[0] == "a"
    assert (await world.states(handle)).get("d", "skipped") == ("succeeded" if last else "skipped")


@pytest.mark.case("B37")
async def test_the_dependents_of_a_skipped_step_are_skipped_to_the_end(world: World) -> None:
    # Given a diamond whose first step fails; then nothing else runs, and the run ends.
    diamond = world.fail.s() | Canvas.group(world.note.s(), world.note.s()) | world.note.s()
    _, result = await world.end(diamond)
    assert (result.status, result.failed_at, world.log) == ("failed", "[0]", [])
