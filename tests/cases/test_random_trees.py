"""Random trees of chains, groups, chords and maps give what a plain evaluation gives, each leaf run once."""

from __future__ import annotations

import ast
import json
import random
import tempfile
import zlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stemflow import Canvas, Stemflow, TaskRegistry, TaskResult
from stemflow.model.effects import Decision
from stemflow.model.facts import Ended, Fact
from stemflow.model.records import Key, Record
from stemflow.model.signature import ChainSig, ChordSig, GroupSig, LoopSig, MapSig, SwitchSig, TaskSig
from stemflow.model.tree import members_of
from stemflow.store.base import Store
from stemflow.testing.simulation import virtual_loop as vloop
from stemflow.testing.simulation.virtual_files import VirtualSqlite
from tests.conftest import NIGHTLY

DEPTH = 5
LEAVES = 60
"""About how many calls of leaves a tree has at most."""


# -- what the tasks compute


def mixed(salt: int, args: Sequence[Any]) -> int:
    """A small number that depends on the leaf and on all that it was given, in order."""
    return zlib.crc32(json.dumps([salt, args]).encode()) % 10_000


class Broken(Exception):
    """What the leaves raise that fail."""


BROKEN = {
    "error": {"type": "Broken", "qualname": f"{__name__}.Broken", "message": "broken", "data": None},
}
"""The slot of a member that failed, under `collect`."""


@dataclass
class Oracle:
    """Evaluates a signature in the plainest way: recursion, lists, no engine. Notes every call of a leaf.

    `cut`: a fan-in failed fast, so the engine may have called fewer.
    """

    calls: Counter[str]
    cut: bool = False

    def value(self, sig: Any, given: tuple[Any, ...]) -> Any:
        """The value of `sig`, `given` being what is put in front of the arguments of what starts first."""
        match sig:
            case TaskSig():
                return self.leaf(sig, given)
            case ChainSig():
                for step in sig.steps:
                    given = (self.value(step, given),)
                return given[0]
            case GroupSig():
                return self.slots(sig.policy, [(member, given) for member in sig.members])
            case ChordSig():
                members = [(member, given) for member in flat(sig.header, sig.policy)]
                return self.value(sig.body, (self.slots(sig.policy, members),))
            case MapSig():
                return self.slots(sig.policy, [(sig.do, (item,)) for item in items_of(sig)])
            case LoopSig():
                carry, times = sig.carry, int(str(sig.on).split()[-1])
                for _ in range(times):
                    carry = self.value(sig.do, (carry,))
                return carry
            case SwitchSig():
                cases = dict(zip(sig.keys, sig.cases, strict=True))
                return self.value(cases.get(ast.literal_eval(sig.on), sig.default), given)
        raise AssertionError(sig)

    def slots(self, policy: str, members: Sequence[tuple[Any, tuple[Any, ...]]]) -> list[Any]:
        found: list[Any] = []
        for member, before in members:
            try:
                found.append(self.value(member, before))
            except Broken:
                found.append({"collect": BROKEN, "ignore": None, "fail_fast": Broken}[policy])
        if Broken in found:
            self.cut = True
            raise Broken
        return found

    def leaf(self, sig: TaskSig[Any, Any], given: tuple[Any, ...]) -> Any:
        salt, *rest = sig.kwargs["salt"], *sig.args
        args = [*(() if sig.immutable else given), *rest]
        self.calls[json.dumps([salt, args])] += 1
        if sig.task == "broken":
            raise Broken
        return args[0] if sig.task == "first" and args else mixed(salt, args)


def items_of(sig: MapSig[Any, Any]) -> Sequence[Any]:
    return range(sig.items.start, sig.items.stop, sig.items.step) if not isinstance(sig.items, tuple) else sig.items


def flat(header: Sequence[Any], policy: str) -> list[Any]:
    """A group directly in a header counts as its members, unless it has a policy of its own."""
    found: list[Any] = []
    for member in header:
        gives = isinstance(member, GroupSig) and member.policy in ("fail_fast", policy)
        found += flat(member.members, policy) if gives else [member]
    return found


def depth_of(sig: Any) -> int:
    below = [depth_of(member) for _, member in members_of(sig)]
    return 1 + max(below) if below else 0


# -- drawing trees


class Growing:
    """Draws one tree. Each leaf has a salt of its own, so that two calls are never mistaken for each other."""

    def __init__(self, draw: st.DrawFn, failing: bool) -> None:
        self.draw = draw
        self.tasks = ["mix", "mix", "mix_in_thread", "first", *(["broken"] if failing else [])]
        self.policies = st.sampled_from(["fail_fast", "collect", "ignore"] if failing else ["fail_fast"])
        self.left = LEAVES
        self.salts = iter(range(10_000))

    def tree(self, depth: int, times: int = 1) -> Any:
        """A tree of this depth at most, each of whose leaves is called `times` for each call of the tree."""
        composites = ["chain", "group", "chord", "map", "switch", "loop"]
        kinds = ["task"] if depth == 0 or self.left < 4 * times else [*composites, "task"]
        match self.draw(st.sampled_from(kinds)):
            case "chain":
                return Canvas.chain(self.some(1, depth, times, in_chain=True))
            case "group":
                return Canvas.group(self.some(1, depth, times), on_member_error=self.draw(self.policies))
            case "chord":
                header, body = self.some(0, depth, times), self.tree(depth - 1, times)
                return Canvas.chord(header, body, on_member_error=self.draw(self.policies))
            case "map":
                return self.map(depth, times)
            case "switch":
                return self.switch(depth, times)
            case "loop":
                return self.loop(depth, times)
        self.left -= times
        return self.task()

    def some(self, low: int, depth: int, times: int, in_chain: bool = False) -> list[Any]:
        """Members; an empty group is among them only where it has a value of its own, so never in a chain."""
        found = [self.tree(depth - 1, times) for _ in range(self.draw(st.integers(low, 3)))]
        if not in_chain and self.draw(st.sampled_from([False] * 9 + [True])):
            found.append(Canvas.group())
        return found

    def switch(self, depth: int, times: int) -> Any:
        cases: Any = {key: self.tree(depth - 1, times) for key in self.draw(st.sampled_from(["a", "ab", "abc"]))}
        default = self.tree(depth - 1, times)
        return Canvas.switch(repr(self.draw(st.sampled_from("abcd"))), cases, default)

    def loop(self, depth: int, times: int) -> Any:
        number = self.draw(st.integers(0, 3))
        do = self.tree(depth - 1, times * max(1, number))
        condition = self.draw(st.sampled_from(["while_", "until"])) if number else "while_"
        on = f"index < {number}" if condition == "while_" else f"index >= {number}"
        return Canvas.loop(do, carry=self.draw(st.integers(0, 9)), **{condition: on})

    def map(self, depth: int, times: int) -> Any:
        items = self.draw(st.one_of(st.lists(st.integers(0, 9), max_size=3), st.integers(0, 3).map(range)))
        do = self.tree(depth - 1, times * max(1, len(items)))
        window = self.draw(st.sampled_from([None, 1]))
        return Canvas.map(do, items, concurrency=window, on_member_error=self.draw(self.policies))

    def task(self) -> Any:
        name = self.draw(st.sampled_from(self.tasks))
        args = tuple(self.draw(st.lists(st.integers(0, 9), max_size=2)))
        return TaskSig(task=name, args=args, immutable=self.draw(st.booleans()), kwargs={"salt": next(self.salts)})


@st.composite
def trees(draw: st.DrawFn, failing: bool = False) -> Any:
    return Growing(draw, failing).tree(DEPTH)


# -- running them

Evaluated = tuple[TaskResult[Any], Counter[str], int]
Evaluate = Callable[[Any, int, int | None], Evaluated]


def registry_of(calls: Counter[str]) -> TaskRegistry:
    registry = TaskRegistry()

    def called(salt: int, args: Sequence[Any]) -> int:
        calls[json.dumps([salt, args])] += 1
        return mixed(salt, args)

    @registry.task("mix")
    async def mix(*args: Any, salt: int) -> int:
        return called(salt, args)

    @registry.task("mix_in_thread")
    def mix_in_thread(*args: Any, salt: int) -> int:
        return called(salt, args)

    @registry.task("first")
    async def first(*args: Any, salt: int) -> Any:
        value = called(salt, args)
        return args[0] if args else value

    @registry.task("broken")
    async def broken(*args: Any, salt: int) -> None:
        called(salt, args)
        raise Broken("broken")

    return registry


def doubling(app: Stemflow, seed: int) -> None:
    """Every report reaches the machine one to three times in random order, some again after others were decided."""
    decide, rng, late = app.decider.decide, random.Random(seed), []  # type: ignore[var-annotated]

    async def decide_doubled(facts: Sequence[Fact], ahead: Mapping[Key, Record | None] | None = None) -> Decision:
        runs = {fact.key[0] for fact in facts}
        again = [fact for fact in late if fact.key[0] in runs]
        many = [*again, *(fact for fact in facts for _ in range(rng.randint(1, 3) if isinstance(fact, Ended) else 1))]
        late[:] = [fact for fact in (*late, *facts) if isinstance(fact, Ended) and rng.random() < 0.4]
        rng.shuffle(many)
        return await decide(many, ahead)

    app.decider.decide = decide_doubled  # type: ignore[method-assign]


async def evaluated(
    sig: Any, url: str, seed: int | None, clock: Any, ids: Any, store: Store | None = None
) -> Evaluated:
    """The result of `sig`, the calls of its leaves, and how many reports were refused."""
    calls: Counter[str] = Counter()
    app = Stemflow(url, registry_of(calls), clock=clock, ids=ids, store=store)
    if seed is not None:
        doubling(app, seed)
    async with app:
        result = await (await app.submit(sig)).wait(timeout=60)
        assert app.service is not None
        return result, calls, app.service.exchange_loop.stale_reports


def in_memory(sig: Any, order: int, seed: int | None) -> Evaluated:
    """On the memory store, in an order of steps that `order` chooses."""

    def main(loop: vloop.VirtualLoop) -> Any:
        return evaluated(sig, "memory:", seed, vloop.VirtualClock(loop), vloop.SeededIds(random.Random(order)))

    found, _ = vloop.run(main, order)
    return found


def in_sqlite(sig: Any, order: int, seed: int | None) -> Evaluated:
    """On a file of its own, in virtual time as well."""
    with tempfile.TemporaryDirectory() as folder:

        def main(loop: vloop.VirtualLoop) -> Any:
            url = f"sqlite:{Path(folder) / 'tree.db'}"
            clock = vloop.VirtualClock(loop)
            ids = vloop.SeededIds(random.Random(order))
            return evaluated(sig, url, seed, clock, ids, VirtualSqlite(url, clock))

        found, _ = vloop.run(main, order)
        return found


def check(sig: Any, evaluate: Evaluate, order: int, seed: int | None) -> int:
    """Compare with the plain evaluation; answers how many reports were refused."""
    oracle = Oracle(Counter())
    try:
        expected = ("succeeded", oracle.value(sig, ()))
    except Broken:
        expected = ("failed", None)
    result, calls, refused = evaluate(sig, order, seed)
    assert (result.status, result.value) == expected
    assert result.error is None or (result.error.type, result.error.message) == ("Broken", "broken")
    assert calls <= oracle.calls if oracle.cut else calls == oracle.calls
    return refused


few = settings(suppress_health_check=[HealthCheck.too_slow])
STORES = {"memory": (in_memory, 1_000 if NIGHTLY else 100), "sqlite": (in_sqlite, 300 if NIGHTLY else 30)}


@pytest.mark.parametrize("store", STORES)
@pytest.mark.parametrize("doubled", [False, True], ids=["once", "one to three times"])
def test_a_random_tree_gives_what_a_plain_evaluation_gives(store: str, doubled: bool) -> None:
    """Each leaf runs once and the shape and order of values hold, also when every end is reported more than once."""
    evaluate, examples = STORES[store]
    refused = 0

    @settings(few, max_examples=examples)
    @given(trees(), st.integers(0, 1_000), st.integers(0, 1_000))
    def holds(sig: Any, order: int, seed: int) -> None:
        nonlocal refused
        refused += check(sig, evaluate, order, seed if doubled else None)

    holds()
    assert (refused > examples) == doubled


@pytest.mark.parametrize("store", STORES)
def test_a_random_tree_with_failing_leaves_ends_as_its_policies_say(store: str) -> None:
    """Each failure is the run's, an error in a slot, or a null, by the policy around it; no leaf runs twice."""
    evaluate, examples = STORES[store]

    @settings(few, max_examples=examples)
    @given(trees(failing=True), st.integers(0, 1_000), st.integers(0, 1_000))
    def holds(sig: Any, order: int, seed: int) -> None:
        check(sig, evaluate, order, seed)

    holds()


def test_trees_are_drawn_to_the_depth_that_is_promised() -> None:
    # Given the strategy; when trees are drawn; then some reach depth 5 and none goes beyond.
    depths: Counter[int] = Counter()

    @settings(few, max_examples=75)
    @given(trees())
    def draw(sig: Any) -> None:
        depths[depth_of(sig)] += 1

    draw()
    assert max(depths) == DEPTH
    assert depths[DEPTH] > 5
