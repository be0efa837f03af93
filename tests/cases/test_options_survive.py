"""What is set on a part of a tree is in the plan, wherever that part is: no rewriting of the tree loses an option."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from msgspec import structs

from stemflow import Canvas, Stemflow, TaskRegistry
from stemflow.compile.desugar import desugar
from stemflow.compile.freeze import compile_plan
from stemflow.model.completion import Completion
from stemflow.model.policy import Concurrency, Options
from stemflow.model.signature import (
    HOOKS,
    ApprovalSig,
    CatchOn,
    ChainSig,
    ChordSig,
    EmitSig,
    EventSig,
    FailSig,
    GroupSig,
    LoopSig,
    MapSig,
    SetSig,
    StepsSig,
    SwitchSig,
    TaskSig,
    WaitSig,
    WorkflowSig,
)
from stemflow.model.tree import members_of, walk
from stemflow.model.workflow import Workflow
from tests.conftest import NIGHTLY

SEEDS = 100 if NIGHTLY else 4
TREES_OF_A_SEED = 40
DEPTH = 4


class Trees:
    """Draws trees of every kind; each option that a node gets has a number of its own.

    What no name leads to has none: the whole, the body of a chord, what is repeated, the body of a workflow.
    """

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.count = 0

    def mark(self) -> str:
        self.count += 1
        return f"m{self.count}x"

    def number(self) -> int:
        self.count += 1
        return 7_000_000 + self.count

    def task(self) -> TaskSig[Any, Any]:
        return TaskSig(task=self.mark())

    def members(self, depth: int, least: int = 1) -> tuple[Any, ...]:
        return tuple(self.tree(depth - 1) for _ in range(self.random.randint(least, 3)))

    def nameless(self, depth: int) -> Any:
        return structs.replace(self.tree(depth - 1), name=None)

    def tree(self, depth: int = DEPTH) -> Any:
        kinds: list[Callable[[], Any]] = [
            self.task,
            lambda: WaitSig(for_ms=self.number()),
            lambda: EventSig(event_type=self.mark(), limit_ms=self.number()),
            lambda: EmitSig(event_type=self.mark(), id=self.mark()),
            lambda: ApprovalSig(by=(self.mark(),), message=self.mark()),
            lambda: SetSig(values={self.mark(): 1}),
            lambda: FailSig(message=self.mark(), error_type=self.mark()),
        ]
        if depth:
            kinds += 2 * [
                lambda: ChainSig(steps=self.members(depth, 0)),
                lambda: GroupSig(members=self.members(depth), **self.fan_in()),
                lambda: ChordSig(header=self.members(depth), body=self.nameless(depth)),
                lambda: MapSig(do=self.nameless(depth), items="${{ [1, 2] }}", window=self.number(), **self.fan_in()),
                lambda: SwitchSig(on=f"'{self.mark()}'", keys=("a",), cases=(self.tree(depth - 1).named("a"),)),
                lambda: LoopSig(do=self.nameless(depth), limit=self.number()),
                lambda: StepsSig(steps=tuple(structs.replace(one, name=self.mark()) for one in self.members(depth))),
                lambda: self.workflow(depth),
            ]
        return self.with_options(self.random.choice(kinds)())

    def workflow(self, depth: int) -> Any:
        return WorkflowSig(ref="w", body=self.nameless(depth), outputs={self.mark(): 1}, compensate_on=("failed",))

    def fan_in(self) -> dict[str, Any]:
        policy = self.random.choice(("fail_fast", "collect", "ignore"))
        return {"policy": policy, "completion": self.random.choice((None, Completion(tolerate=self.number())))}

    def with_options(self, sig: Any) -> Any:
        """`sig` with about a third of the options that its kind may have."""
        options: dict[str, Callable[[], Any]] = {
            "name": self.mark,
            "when": lambda: f"'{self.mark()}' != ''",
            "on_error": lambda: "continue",
            "labels": lambda: {"of": self.mark()},
            **dict.fromkeys(HOOKS, lambda: (self.task(),)),
            "catches": lambda: (self.task(),),
            "cleanup": self.task,
        }
        if not isinstance(sig, (WaitSig, EventSig, EmitSig, ApprovalSig, SetSig, FailSig)):
            options["compensate"] = self.task
        if sig.MEMBERS:
            options |= {"timeout_ms": self.number, "concurrency": lambda: Concurrency(key=self.mark(), limit=1)}
        given = {name: make() for name, make in options.items() if self.random.random() < 0.3}
        if "catches" in given:
            given["catch_on"] = (CatchOn((self.mark(),)),)
        return structs.replace(sig, **given)


def leaf_name(sig: Any) -> str:
    """What no option changes of a step without members."""
    match sig:
        case TaskSig():
            return sig.task
        case WaitSig():
            return str(sig.for_ms)
        case EventSig() | EmitSig():
            return sig.event_type
        case SetSig():
            return str(sig.values)
    return str(sig.message)


def marks(of: Any) -> set[str]:
    return set(re.findall(r"m\d+x|\b7\d{6}\b", repr(of)))


def settings_of_leaves(sig: Any, above: frozenset[str] = frozenset()) -> Iterator[tuple[str, frozenset[str]]]:
    """Each step without members, and all marks of itself and of what it is in."""
    bare = [getattr(sig, name) for name in sig.__struct_fields__ if name not in sig.MEMBERS]
    at = above | marks(bare)
    if not sig.MEMBERS:
        yield leaf_name(sig), at
    for _, member in members_of(sig):
        yield from settings_of_leaves(member, at)


@pytest.mark.parametrize("seed", range(SEEDS))
def test_no_option_on_any_part_of_a_tree_is_lost_on_the_way_into_its_plan(seed: int) -> None:
    trees = Trees(seed)
    for _ in range(TREES_OF_A_SEED):
        # Given
        tree = trees.nameless(DEPTH)

        # When
        plain = desugar(tree)
        plan = compile_plan(tree, lambda _: Options(), compensate_on=("failed",))

        # Then
        assert marks(plain) == marks(tree)
        assert dict(settings_of_leaves(plain)) == dict(settings_of_leaves(tree))
        assert marks(plan) == marks(tree)


@pytest.mark.parametrize("seed", range(SEEDS))
def test_options_of_a_composite_reach_every_task_in_it_that_has_none_of_its_own(seed: int) -> None:
    trees = Trees(seed)
    for _ in range(TREES_OF_A_SEED):
        part = trees.nameless(DEPTH)
        tree = Canvas.chain(part.with_options(queue="near", headers={"a": "near"}), part)
        both = tree.with_options(queue="far", priority=7, headers={"a": "far", "b": "far"})
        for path, one in walk(both):
            if isinstance(one, TaskSig):
                near = "near" if path.startswith("[0]") else "far"
                assert (dict(one.options), dict(one.headers)) == (
                    {"queue": near, "priority": 7}, {"a": near, "b": "far"}
                )  # fmt: skip


async def test_a_chain_without_steps_passes_on_what_came_before_to_its_hooks_too() -> None:
    # Given
    registry, seen = TaskRegistry(), []

    @registry.task("ident")
    async def ident(x: int) -> int:
        return x

    @registry.task("note")
    async def note(x: Any) -> None:
        seen.append(x["state"] if isinstance(x, dict) else x)

    empty = Canvas.chain()
    async with Stemflow("memory:", registry) as app:
        # When and Then
        hooked = empty.named("nothing").on_success(note.s()).finally_(note.s())
        assert await app.run(Canvas.chain(ident.s(3), hooked, ident.s())) == 3
        assert seen == [3, "succeeded"]
        assert await app.run(Canvas.chain(ident.s(3), empty.with_when("prev > 2"), ident.s())) == 3
        skipped = await app.submit(Canvas.chain(ident.s(3), empty.with_when("prev > 3"), ident.s()))
        assert (await skipped.wait()).status == "skipped"


async def test_hooks_of_a_workflow_of_one_task_run_wherever_the_workflow_is_called() -> None:
    # Given
    registry, seen = TaskRegistry(), []

    @registry.task("ident")
    async def ident(x: int) -> int:
        return x

    @registry.task("note")
    async def note(x: Any, text: str) -> None:
        seen.append((x, text))

    flow = Workflow(name="one", body=ident.s(5).on_success(note.s("hook")), outputs={"is": "${{ 1 }}"})
    async with Stemflow("memory:", registry) as app:
        # When
        await (await app.submit(flow)).wait()
        await app.run(Canvas.chain(ident.s(1), Canvas.workflow(flow)))

    # Then
    assert seen == [({"is": 1}, "hook")] * 2
