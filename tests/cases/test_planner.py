"""Cases of pure functions: signatures as JSON, and what a chord waits for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from stemflow import Canvas
from stemflow.compile.freeze import compile_plan
from stemflow.model.plan import ScopePlan
from stemflow.model.policy import Options
from stemflow.model.signature import AnySig, TaskSig

if TYPE_CHECKING:
    from tests.cases.conftest import World

KINDS = ("chain", "group", "chord")


def composite(kind: str, first: Any, second: Any, then: Any) -> Any:
    return {
        "chain": Canvas.chain(first, then),
        "group": Canvas.group(first, second),
        "chord": Canvas.chord([first, second], then),
    }[kind]


@pytest.mark.case("A60")
@pytest.mark.parametrize("outer", KINDS)
@pytest.mark.parametrize("inner", KINDS)
async def test_a_nested_canvas_survives_json_and_runs(world: World, outer: str, inner: str) -> None:
    # Given each kind of composite in each other, with options, hooks and delays said of a leaf
    ident = world.ident
    leaf = ident.with_options(priority=3, max_retries=2).s(1).on_success(world.note.s())
    sig = composite(outer, composite(inner, leaf, ident.s(2), ident.s()), ident.s(3), ident.s())

    # When it is written as JSON and read back, then it is the same tree
    again = msgspec.json.decode(msgspec.json.encode(sig), type=AnySig)
    assert again == sig

    # And it runs to the value that its shape gives
    within = 1 if inner == "chain" else [1, 2]
    flat = [1, 2, 3] if (outer, inner) == ("chord", "group") else [within, 3]
    assert await world.run(again) == (within if outer == "chain" else flat)
    assert world.log == [1]


def size(header: Any) -> int:
    """How many members the body of a chord over `header` waits for."""
    root = compile_plan(Canvas.chord(header, one), lambda sig: Options()).nodes[0]
    assert isinstance(root, ScopePlan) and root.kind == "chord"
    return len(root.members) - 1


one = TaskSig[Any, Any](task="one")
chain, group, chord = Canvas.chain, Canvas.group, Canvas.chord

SHAPES = {
    "nothing": ([], 0),
    "one task": ([one], 1),
    "many tasks": ([one] * 42, 42),
    "a tuple of tasks": ((one,) * 7, 7),
    "a group": (group([one] * 42), 42),
    "a group in a list": ([group([one] * 42)], 42),
    "an empty group": ([group()], 0),
    "an empty group beside a task": ([group(), one], 1),
    "groups in groups": ([group(group(one, one), group(group(one)))], 3),
    "a group that has a name of its own": ([group(one, one).named("pair")], 1),
    "a chain of one": ([chain(one)], 1),
    "a long chain": ([chain([one] * 42)], 1),
    "a chain in a chain": ([chain(chain([one] * 42), one)], 1),
    "a chain that ends in a group": ([chain(one, group(one, one))], 1),
    "a chain that starts with a group": ([chain(group(one, one), one)], 1),
    "a chord": ([chord([one] * 42, one)], 1),
    "a chord whose body is a group": ([chord([one], group([one] * 42))], 1),
    "a chord in a group": ([group(chord([one] * 42, one), one)], 2),
    "a map": ([Canvas.map(one, range(1_000))], 1),
    "all of them": ([one, chain([one] * 42), group([one] * 42), chord([one] * 42, one), Canvas.map(one, [1])], 46),
}


@pytest.mark.case("A64")
@pytest.mark.parametrize(("header", "expected"), SHAPES.values(), ids=SHAPES)
def test_a_body_waits_for_the_members_of_its_header(header: Any, expected: int) -> None:
    """One for each member; only a plain group directly in a header counts as its members."""
    assert size(header) == expected


@pytest.mark.case("A64")
def test_twenty_shapes_are_counted() -> None:
    assert len(SHAPES) == 20
