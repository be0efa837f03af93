"""Random workloads for the simulation: trees of small tasks that misbehave, with the value that they must give."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any

from msgspec import structs

from stemflow.canvas import Canvas
from stemflow.model.policy import UNIQUE_MODES, Concurrency, RetryPolicy
from stemflow.model.rates import RateLimit
from stemflow.model.signature import (
    ApprovalSig,
    ChainSig,
    EmitSig,
    EventSig,
    MapSig,
    MemberPolicy,
    OnEventTimeout,
    RunOn,
    SetSig,
    Signature,
    StepsSig,
    WaitSig,
    WorkflowSig,
)
from stemflow.model.subworkflow import with_workflow
from stemflow.model.workflow import Workflow
from stemflow.runtime.tasks.context import Ignore, Reject, TaskContext
from stemflow.runtime.tasks.registry import TaskRegistry
from stemflow.runtime.tasks.task import Task
from stemflow.testing.simulation.faults import Faults

Step = Signature[Any, Any]


class Witness:
    """What handlers say of themselves: (run, path, attempt, what). Checks never trust the store's records alone."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str, int, str]] = []

    def write(self, context: TaskContext, what: str) -> None:
        self.lines.append((context.run_id, context.node, context.attempt, what))

    def count(self, run: str, path: str, what: str) -> int:
        return sum(line[:2] == (run, path) and line[3] == what for line in self.lines)


def make_registry(
    rng: random.Random, witness: Witness, faults: Faults, crash: Callable[[], None], rates: int = 0
) -> TaskRegistry:
    """Tasks whose behaviour is drawn: at once, slow, slower than a lease, failing at first, failing for good.

    `rates`: the seed of the rate limits, which all processes must agree on.
    """
    registry, limits = TaskRegistry(), random.Random(rates)

    async def behave(context: TaskContext, how: str) -> None:
        witness.write(context, "start")
        if faults.strikes("crash in handler"):
            crash()
            await asyncio.sleep(3_600)
        if how == "slow":
            await asyncio.sleep(rng.uniform(0.1, 2.0))
        elif how == "long":
            await asyncio.sleep(rng.uniform(2.0, 8.0))
        elif how == "flaky" and context.attempt < 1:
            raise RuntimeError("the first attempt fails")
        elif how == "bad":
            raise Reject("fails for good")
        elif how == "ignored":
            raise Ignore("not this time")
        elif how == "adds" and context.in_fan_in:
            await context.add_to_group(leaf.si("x", "quick"))
        elif how == "replaces" and context.node.count("[") < 6:
            await context.replace(Canvas.group(leaf.si("x", "quick"), leaf.si("y", "slow")))

    retry = RetryPolicy.of(initial="200ms", max="1s")
    options: dict[str, Any] = {"max_retries": 2, "retry": retry, "visibility_timeout": "3s", "max_deliveries": 1_000}

    async def leaf_function(ctx: TaskContext, name: str, how: str) -> str:
        await behave(ctx, how)
        witness.write(ctx, "end")
        return name

    async def joined_function(ctx: TaskContext, before: Any, name: str, how: str) -> Any:
        await behave(ctx, how)
        witness.write(ctx, "end")
        return [before, name]

    async def note_function(ctx: TaskContext, outcome: Any) -> None:
        witness.write(ctx, "hook")

    leaf: Task[..., Any] = registry.task("leaf", **options)(leaf_function)
    registry.task("joined", **options)(joined_function)
    registry.task("note", **options)(note_function)
    registry.task("only", unique=True, unique_for="1s", **options)(leaf_function)
    registry.task("limited", rate_limit=_limits(limits), **options)(leaf_function)
    registry.task("by_name", rate_limit=_limits(limits, "name:${{ args.name }}"), **options)(leaf_function)
    registry.task("crowd", rate_limit="3/s", group_rate_limit=_limits(limits), **options)(leaf_function)
    registry.task("cached", cache={"ttl": "2s", "key": "${{ args.name }}"}, **options)(leaf_function)
    for mode in ("return_existing", "replace", "keep_last", "skip", "reject"):
        registry.task(mode, unique=True, unique_by="k", unique_mode=mode, **options)(leaf_function)
    registry.task("throttled", unique=True, unique_by="k", unique_mode="keep_last", unique_for="2s",
                  **options)(leaf_function)  # fmt: skip
    registry.task("debounce", unique=True, unique_by="${{ args.name }}", unique_mode="debounce", unique_for="1s",
                  concurrency={"key": "debounced"}, **options)(leaf_function)  # fmt: skip
    registry.task("brief", expires="1s", **options)(leaf_function)
    registry.task("alone", concurrency=1, expires="5s", **options)(leaf_function)
    registry.task("pair", concurrency={"key": "${{ args.name }}", "limit": 2}, expires="10s", **options)(leaf_function)
    return registry


def _limits(rng: random.Random, key: str = "") -> list[RateLimit]:
    """One limit, or two."""
    limit, per = rng.randint(1, 4), f"{rng.choice((100, 300, 1_000, 2_000))}ms"
    found = [RateLimit(limit, per, key), RateLimit(limit, per, key, burst=rng.randint(1, limit), pace=True)]
    return [rng.choice(found), *([RateLimit(8, "5s", key)] if rng.random() < 0.3 else [])]


KEYED = (
    "only",
    "limited",
    "by_name",
    "crowd",
    "return_existing",
    "replace",
    "keep_last",
    "skip",
    "reject",
    "throttled",
    "debounce",
    "alone",
    "brief",
    "pair",
    "cached",
)
POLICIES: tuple[MemberPolicy, ...] = ("fail_fast", "fail_fast", "collect", "ignore")
RUN_ONS: tuple[RunOn, ...] = ("success", "success", "done", "failure")
HOWS = ("quick", "quick", "quick", "slow", "slow", "long", "flaky", "bad", "ignored", "adds", "replaces")


def keyed_run(rng: random.Random, tree: Step) -> Workflow:
    """A whole run under a unique key, a concurrency key, or both; all such runs meet in them."""
    limited = Concurrency("run", rng.randint(1, 2)) if rng.random() < 0.5 else None
    key = "k" if limited is None or rng.random() < 0.7 else None
    return Workflow(
        name="keyed", body=ChainSig(steps=(tree,)), unique_key=key, unique_mode=rng.choice(UNIQUE_MODES),
        unique_for_ms=rng.choice((None, 1_000)), concurrency=limited,
    )  # fmt: skip


KINDS = ("leaf", "leaf", "chain", "group", "chord", "map", "switch", "steps", "loop", "set", "fail", "wait")
WAITING = ("event", "emit", "approval", "workflow", "batch", "ruled")
"""Kinds of steps that trees of worlds with events and approvals have too, and sub-workflows."""
EVENT_TYPE = "t"
"""The type of all events of a world."""


class WaitingRandom(random.Random):
    """A source of trees in which steps wait for events and approvals, and send events."""


def _waiting_step(rng: random.Random, registry: TaskRegistry, depth: int, keyed: str, kind: str) -> Step:
    """A step of one of the kinds in WAITING; each ends by itself after some time."""
    limit_ms = rng.choice((500, 2_000, 6_000))
    leaf = registry.get("leaf")
    assert leaf is not None
    match kind:
        case "event":
            match = rng.choice((None, "event.data.n > 1", "event.data.n > 2"))
            how: OnEventTimeout = rng.choice(("fail", "continue", "skip"))
            return EventSig(event_type=EVENT_TYPE, match=match, limit_ms=limit_ms, on_timeout=how)
        case "emit":
            return EmitSig(event_type=EVENT_TYPE, data={"n": rng.randint(1, 3)}, id=rng.choice((None, "e")))
        case "approval":
            return ApprovalSig(limit_ms=limit_ms, on_timeout=rng.choice(("fail", "approve", "reject", "skip")),
                               on_reject=rng.choice(("fail", "continue")))  # fmt: skip
        case "workflow":
            body: Any = random_tree(rng, registry, depth - 1, keyed)
            called = Workflow(name="called", body=body, inputs={"n": {"type": "integer", "default": 1}},
                              outputs=rng.choice((None, {"n": "${{ inputs.n }}"})))  # fmt: skip
            return with_workflow(WorkflowSig(ref="called", given={"n": rng.choice((1, "none"))}), called)
        case "batch":
            each = leaf.si("i", rng.choice(HOWS))
            return MapSig(do=each, items=f"range({rng.randint(0, 7)})", batch=rng.randint(1, 3), window=2)
    rules = [RetryPolicy.of(retry_on=RuntimeError, max_retries=2, initial="300ms"),
             RetryPolicy.of(when="error.type == 'x'", max_retries=9)]  # fmt: skip
    return leaf.with_options(retry=rules).si("r", rng.choice(HOWS))


def random_tree(rng: random.Random, registry: TaskRegistry, depth: int, keyed: str) -> Step:
    """A tree whose leaves take no input first and then, in chains, that of the step before.

    `keyed` is the task with a key that the runs of one world meet in. A WaitingRandom gives the kinds in WAITING too.
    """
    leaf = registry.get("leaf")
    assert leaf is not None
    kind = rng.choice((*KINDS, *WAITING) if isinstance(rng, WaitingRandom) else KINDS) if depth else "leaf"
    width = rng.randint(1, 3)
    policy: MemberPolicy = rng.choice(POLICIES)
    tree: Step
    if kind == "chain":
        tree = Canvas.chain([_member(rng, registry, depth - 1, keyed), *(_joined(rng, registry) for _ in range(width))])
    elif kind == "group":
        members = [_member(rng, registry, depth - 1, keyed) for _ in range(width)]
        drawn: Any = ({}, {}, {"quorum": rng.randint(1, width)}, {"tolerate": 1}, {"tolerate": "40%"})
        limits: dict[str, Any] = rng.choice(drawn)
        tree = Canvas.group(members, on_member_error=policy, **limits)
        if rng.random() < 0.2:
            tree = Canvas.race(members)
    elif kind == "chord":
        members = [_member(rng, registry, depth - 1, keyed) for _ in range(width)]
        tree = Canvas.chord(members, _joined(rng, registry), on_member_error=policy)
    elif kind == "map":
        each = Canvas.task("leaf", rng.choice(HOWS))
        limits = rng.choice(({}, {"quorum": 2}, {"tolerate": 1}))
        items = [str(i) for i in range(rng.randint(0, 5))]
        tree = Canvas.map(each, items, concurrency=rng.randint(1, 3), **limits)
    elif kind == "switch":
        cases = {str(i): _member(rng, registry, depth - 1, keyed) for i in range(width)}
        default = _member(rng, registry, depth - 1, keyed) if rng.random() < 0.5 else None
        tree = Canvas.switch(str(rng.randint(0, width)), cases, default)
    elif kind == "steps":
        tree = StepsSig(steps=tuple(_step(rng, registry, depth - 1, keyed, i) for i in range(width)))
    elif kind == "loop":
        body = Canvas.chain([_member(rng, registry, depth - 1, keyed), _joined(rng, registry)])
        tree = Canvas.loop(body, while_=f"index < {rng.randint(0, 3)}", max=rng.randint(1, 3))
    elif kind == "set":
        tree = SetSig(values={"sum": "${{ 1 + 1 }}"})
    elif kind == "fail":
        tree = Canvas.chain([Canvas.fail("no"), _joined(rng, registry)])
    elif kind == "wait":
        tree = Canvas.chain([WaitSig(for_ms=rng.randint(1, 3_000)), leaf.si("w", "quick")])
    elif kind in WAITING:
        tree = _waiting_step(rng, registry, depth, keyed, kind)
    else:
        tree = _leaf(rng, registry, keyed)
    if kind in ("chain", "group", "switch") and rng.random() < 0.3:
        tree = tree.with_concurrency(f"scope {depth}")
    if rng.random() < 0.15:
        tree = tree.catch(_member(rng, registry, 0, keyed), on=("RuntimeError",) if rng.random() < 0.3 else ())
    if rng.random() < 0.15:
        late: Step = Canvas.chain(WaitSig(for_ms=500), leaf.si("f", "flaky"))
        tree = tree.finally_(rng.choice((Canvas.task("note"), late)))
    if rng.random() < 0.2:
        tree = rng.choice((tree.on_failure, tree.on_success, tree.on_cancel))(Canvas.task("note"))
    return tree


def _step(rng: random.Random, registry: TaskRegistry, depth: int, keyed: str, index: int) -> Step:
    """A step of a graph that waits for some of those before it."""
    needs = tuple(f"s{i}" for i in range(index) if rng.random() < 0.5)
    run_on = rng.choice(RUN_ONS)
    return structs.replace(random_tree(rng, registry, depth, keyed), name=f"s{index}", needs=needs, run_on=run_on)


def contended_tree(rng: random.Random, registry: TaskRegistry) -> Step:
    """Groups of short tasks, retried at first, that meet those of other runs in few keys."""

    def member() -> Step:
        task = registry.get(rng.choice(("leaf", "alone", "pair", "replace", "debounce", "return_existing")))
        assert task is not None
        if rng.random() < 0.3:
            task = task.with_options(countdown=rng.uniform(0.1, 1.0))
        return task.si(rng.choice("ab"), rng.choice(("quick", "flaky", "slow")))

    return Canvas.chain([Canvas.group([member() for _ in range(rng.randint(2, 4))]) for _ in range(2)])


def wide_tree(rng: random.Random, registry: TaskRegistry) -> Step:
    """A group whose members share a key with several places, so that their ends change the key and the group."""
    task = registry.get("leaf")
    assert task is not None
    places = rng.randint(4, 30)
    room = task.with_options(concurrency=Concurrency(f"room for {places}", places))
    width = rng.randint(6, 24)
    return Canvas.group([room.si("w", rng.choice(("quick", "quick", "slow", "flaky"))) for _ in range(width)])


def _member(rng: random.Random, registry: TaskRegistry, depth: int, keyed: str) -> Step:
    return random_tree(rng, registry, depth, keyed)


def _leaf(rng: random.Random, registry: TaskRegistry, keyed: str) -> Step:
    task = registry.get(rng.choice(("leaf", "leaf", "leaf", keyed, keyed, rng.choice(KEYED))))
    assert task is not None
    return task.si(rng.choice("abc"), rng.choice(HOWS))


def _joined(rng: random.Random, registry: TaskRegistry) -> Step:
    return Canvas.task("joined", rng.choice("xyz"), rng.choice(HOWS[:9]))
