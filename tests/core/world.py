"""A tiny synchronous world: records in a dict, guards, needs served at once, gates answered by the plan's own words."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from stemflow.core.decide import decide
from stemflow.core.shape import Shape
from stemflow.core.work import View, guard_of
from stemflow.model.effects import Arrival, Decision, Emission, Frozen, GateError, GateKey, LoopStart, Need
from stemflow.model.facts import Fact, InboxRead, Post
from stemflow.model.plan import ApprovalPlan, EmitPlan, EventPlan, LeafPlan, ScopePlan, WaitPlan
from stemflow.model.records import RUNNING, Header, Key, Node, Record
from tests.core.plans import BOOM, FRAGMENTS

NOW_MS = 1_000
"""The instant of this world: what waits for time may happen at any moment."""
LATER_MS = 2_000
"""The instant after time has passed: windows are over, although nobody may have been notified."""


class Broken(AssertionError):
    """The world is not as it must be; the message says how."""


class World:
    """Immutable but for `records`, which `fork` copies; records themselves are never changed in place."""

    def __init__(self, headers: Mapping[str, Header], shapes: Mapping[str, Shape], records: dict[Key, Record]) -> None:
        self.headers, self.shapes, self.records = headers, shapes, records
        self.now_ms = NOW_MS
        self.hot = False
        """Whether every scope is hot, so that the ends of members are posted."""
        self.posts: tuple[Post, ...] = ()

    def fork(self) -> World:
        twin = World(self.headers, self.shapes, dict(self.records))
        twin.now_ms, twin.hot, twin.posts = self.now_ms, self.hot, self.posts
        return twin

    def decide(self, *facts: Fact, empty: bool = False) -> Decision:
        """Ask until nothing more is needed. `empty`: begin with nothing read."""
        known: dict[Key, Record | None] = {} if empty else dict(self.records)
        gates: dict[GateKey, Any] = {}
        hot = ()
        if self.hot and not any(isinstance(fact, InboxRead) for fact in facts):
            hot = tuple(key for key, one in self.records.items() if isinstance(one, Node) and one.tally is not None)
        while True:
            answer = decide(View(known, self.headers, self.shapes, gates, hot), facts, self.now_ms)
            if isinstance(answer, Decision):
                return answer
            if not (answer.keys or answer.gates):
                raise Broken(f"asked for what is known: {answer}")
            known.update((key, self.records.get(key)) for key in answer.keys)
            for key in answer.gates:
                gates[key] = self._gate(answer, key)

    def commit(self, decision: Decision) -> None:
        """Everything or, where a guard fails, nothing; in this world nothing can have come between."""
        for put in decision.puts:
            stored = self.records.get(put.key)
            delivery = stored.delivery if isinstance(stored, Node) else 0
            if (stored.rev if stored else 0, delivery) != (put.guard, put.token):
                raise Broken(f"{put.key}: the guard {put.guard} with token {put.token} does not hold")
        for key, *guard in decision.seen:
            if (*guard_of(self.records.get(key)),) != (*guard,):
                raise Broken(f"{key}: it rests on revision and delivery {guard}, which was not what was read")
        heard = {run for run, _ in decision.consumed}
        self.posts = (*(post for post in self.posts if post.run not in heard), *decision.posts)
        for put in decision.puts:
            if put.record is None:
                del self.records[put.key]
            else:
                self.records[put.key] = put.record

    def take(self, node: Node, *, lease: bool) -> Node:
        """What a store does by itself: lease a leaf, or transfer a lost lease to a caller that reports the loss."""
        taken = copy.copy(node)
        taken.delivery += 1
        if lease:
            taken.state = RUNNING
        self.records[node.key] = taken
        return taken

    def _gate(self, need: Need, key: GateKey) -> Any:
        run, path, name = key
        node = need.working.get((run, path)) or self.records[run, path]
        assert isinstance(node, Node)
        shape = self.shapes[node.plan]
        plan = shape.nodes[node.node]
        if name == "unique":
            assert isinstance(plan, LeafPlan)
            word = shape.plan.options[plan.options].unique_by
        elif name == "concurrency":
            limited = shape.plan.options[plan.options].concurrency if isinstance(plan, LeafPlan) else plan.concurrency
            assert limited is not None
            word = limited.key
        elif name == "when":
            word = plan.when
        elif name == "catch":
            assert isinstance(plan, ScopePlan)
            fits = (number for number, one in enumerate(plan.catches) if one.when != "no")
            number = next(fits, -1)
            return GateError(BOOM) if number >= 0 and plan.catches[number].when == "error" else number
        elif isinstance(plan, (EventPlan, EmitPlan, ApprovalPlan)):
            return _answer_of_waiting(plan, name)
        elif isinstance(plan, WaitPlan):
            word = plan.until or plan.span
        else:
            assert isinstance(plan, ScopePlan)
            word = str(plan.on) if name.startswith("again") else ""
            value = str((plan.value or {}).get("is"))
            words = {"loop": str(plan.on), "items": str(plan.items), "case": str(plan.on), "value": value}
            words |= {"inputs": str(plan.start), "returns": str((plan.returns or {}).get("is"))}
            word = words.get(name, word)
        if name == "timeout":
            assert isinstance(plan, ScopePlan)
            word = plan.timeout
        if word == "error":
            return GateError(BOOM)
        if name == "timeout":
            return 7
        if name in ("span", "until"):
            return NOW_MS + 1_000
        if name == "items":
            assert isinstance(plan, ScopePlan)
            window = int(plan.window) if isinstance(plan.window, str) else None
            return Frozen(None if isinstance(plan.items, int) else int(str(word)), (b"[]",), window)
        if name == "inputs":
            return b"{}"
        if name == "loop":
            assert isinstance(plan, ScopePlan)
            return LoopStart(b"0", int(str(word)) > 0, int(plan.limit) if isinstance(plan.limit, str) else None)
        if name.startswith("again"):
            return int(name.split()[1]) < int(str(word))
        if name == "case":
            return int(str(word))
        if name == "value":
            return how_members_ended(node).encode()
        return word == "yes" if name == "when" else word


def _answer_of_waiting(plan: EventPlan | EmitPlan | ApprovalPlan, name: str) -> Any:
    """The gates of steps that wait for an event or a person, or send an event."""
    if name == "limit":
        assert not isinstance(plan, EmitPlan)
        return GateError(BOOM) if plan.limit == "error" else 1_000
    if isinstance(plan, EmitPlan):
        return GateError(BOOM) if plan.id == "error" else Emission(plan.id or "e", b"{}", b"1")
    if isinstance(plan, ApprovalPlan):
        return GateError(BOOM) if plan.message == "error" else b"0"
    after, last, *taken = map(int, name.split()[1:])
    numbers = [number for number in range(after + 1, last + 1) if number not in taken]
    if plan.match == "error" and numbers:
        return GateError(BOOM)
    found = [number for number in numbers if plan.match == "yes" or (plan.match == "even" and number % 2 == 0)]
    return Arrival(found[0], b"%d" % found[0]) if found else None


def how_members_ended(scope: Node) -> str:
    """The value of a `steps` scope in this world."""
    assert scope.tally is not None
    return " ".join(str(scope.tally.how(index)) for index in range(scope.tally.size))


def world_of(*headers: Header, shapes: Mapping[str, Shape]) -> World:
    known = {digest: Shape(plan) for digest, plan in FRAGMENTS.items()} | dict(shapes)
    return World({header.run: header for header in headers}, known, {})
