"""Every interleaving of what can happen to a small plan, depth first, states distinguished by what they mean."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from stemflow.core.invariants import check_commit, check_run
from stemflow.core.shape import Shape
from stemflow.core.snapshot_invariants import check_standing
from stemflow.core.table import TABLE, Event, Kind
from stemflow.model.effects import Decision
from stemflow.model.facts import Answered, Due, Ended, Fact, HandedBack, InboxRead, Lost, Requested, Sent, Stop
from stemflow.model.plan import ApprovalPlan, LeafPlan, ScopePlan
from stemflow.model.records import (
    FAILED,
    FINAL,
    NO_RUN,
    READY,
    RUNNING,
    STOPPING,
    Claim,
    ClaimSpec,
    Header,
    Key,
    Node,
    Record,
    State,
    StoredEvent,
    Topic,
    event_id_key,
    is_below,
)
from stemflow.store.index_rules import timer_of
from tests.core.evaluate import disagreements
from tests.core.plans import BOOM, OUTCOMES, Spec, build
from tests.core.world import LATER_MS, NOW_MS, Broken, World, world_of

CellKey = tuple[Kind, State, Event]


@dataclass(frozen=True)
class Case:
    """A plan for each run, and how often each fault may strike; a stop may be a forced one."""

    name: str
    runs: tuple[Spec, ...]
    stops: int = 1
    losses: int = 1
    hand_backs: int = 1
    stop_at: tuple[str, ...] = ("",)
    claims: tuple[ClaimSpec | None, ...] = ()
    time_passes: bool = False
    """Windows may be over before their timers are handled."""
    same_plan: bool = False
    """Every run is of the first plan."""
    hot: bool = False
    """Many change each scope at once."""
    sends: tuple[str, ...] = ()
    """Ids of events that may be sent from outside at any time, each once."""
    reruns: bool = False
    """The second run is a rerun of the first."""

    def world(self) -> World:
        plans = [build(spec, f"plan-{number}") for number, spec in enumerate(self.runs)]
        plans = [plans[0]] * len(plans) if self.same_plan else plans
        claims = self.claims or (None,) * len(plans)
        headers = [
            Header(
                run=f"run{number}", plan=plan.digest, claim=claim, inputs=str(number).encode(),
                rerun_of="run0" if number and self.reruns else None,
            )
            for number, (plan, claim) in enumerate(zip(plans, claims, strict=True))
        ]
        world = world_of(*headers, shapes={plan.digest: Shape(plan) for plan in plans})
        world.hot = self.hot
        return world

    def start(self) -> Point:
        """Nothing has been asked for yet."""
        return Point(self.world(), frozenset(), Budget(self.stops, self.losses, self.hand_backs), frozenset())


class Budget(NamedTuple):
    """Faults that may still strike."""

    stops: int
    losses: int
    hand_backs: int


class Step(NamedTuple):
    """One thing that may happen: a fact, what a store does by itself (`lease`, `transfer`), or that time passes."""

    what: str
    fact: Fact | None
    key: Key
    budget: Budget
    benign: bool


@dataclass
class Point:
    """A state of the world: records, leases that were transferred but not yet reported lost, faults left."""

    world: World
    moved: frozenset[Key]
    budget: Budget
    asked: frozenset[str]
    refused: frozenset[str] = frozenset()
    forced: frozenset[Key] = frozenset()
    sent: frozenset[str] = frozenset()
    number: int | None = None
    """Identifies it among those of one exploration, whatever the budget."""


@dataclass
class Result:
    """What exploration saw of one case."""

    states: int = 0
    edges: int = 0
    ends: int = 0
    visited: Counter[tuple[CellKey, State]] = field(default_factory=Counter)


class Explorer:
    """`explore` raises Broken with the story that led to the breach."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.result = Result()
        self._numbers: dict[object, int] = {}
        self._meaning: dict[int, tuple[Record, int]] = {}
        self._back: dict[int, list[int]] = {}
        self._ends: list[int] = []
        self._parents: dict[int, tuple[int, str]] = {}
        self._followed: dict[tuple[object, ...], Point] = {}
        self._is_over: dict[tuple[int, frozenset[str]], bool] = {}

    def explore(self) -> Result:
        start = self.case.start()
        first = self._number_of(start)
        seen, stack = {first}, [(first, start)]
        with watched(self.result.visited):
            while stack:
                number, point = stack.pop()
                for step in steps_from(point, self.case):
                    try:
                        after = self._after(point, step)
                    except AssertionError as error:
                        story = f"{self._story(number)}{step.what} {step.key}"
                        raise Broken(f"{self.case.name}: {story}: {error}") from error
                    target = self._number_of(after)
                    self.result.edges += 1
                    if step.benign:
                        self._back.setdefault(target, []).append(number)
                    if target not in seen:
                        seen.add(target)
                        self._parents[target] = (number, f"{step.what} {'/'.join(step.key)}")
                        stack.append((target, after))
                if self._is_end(point):
                    self._ends.append(number)
        self.result.states, self.result.ends = len(seen), len(self._ends)
        self._nothing_is_stuck(seen)
        return self.result

    def _after(self, point: Point, step: Step) -> Point:
        """What `follow` gives; a step that differs from another in the faults that are left is followed once."""
        known = (self._bare_number_of(point), point.refused, step.what, step.key, _variant(step.fact))
        after = self._followed.get(known)
        if after is None:
            after = self._followed[known] = self.follow(point, step)
        return replace(after, budget=step.budget)

    def follow(self, point: Point, step: Step) -> Point:
        """What the world is after one step; every rule is checked."""
        world = point.world.fork()
        moved, asked, refused, forced, sent = point.moved, point.asked, point.refused, point.forced, point.sent
        if step.what == "time passes":
            world.now_ms = LATER_MS
        elif step.fact is None:
            node = world.records[step.key]
            assert isinstance(node, Node)
            lease = step.what == "lease"
            if lease and not self._may_lease(node):
                raise Broken("a leaf that is READY cannot be leased")
            taken = world.take(node, lease=lease)
            if not lease:
                moved |= {step.key}
                late = Ended(step.key, taken.delivery - 1, OUTCOMES["ok"][0])
                _changes_nothing(world, late, "the late report of a zombie")
                _changes_nothing(world, Lost(step.key, taken.delivery - 1), "the loss of an older lease")
        else:
            decision = world.decide(step.fact)
            granted = any(isinstance(put.record, Node) for put in decision.puts)
            if isinstance(step.fact, Requested):
                asked |= {step.key[0]}
                if not granted:
                    refused |= {step.key[0]}
            elif decision.refused and not _is_known(world, step.fact):
                raise Broken("a fact that holds was refused")
            self._commit(world, decision)
            if isinstance(step.fact, Due):
                _only_what_never_started_expires(world, step.key)
            if isinstance(step.fact, Requested):
                _debounced_gives_its_arguments(world, step.fact.header, decision)
            moved -= {step.key}
            if isinstance(step.fact, Sent):
                sent |= {step.fact.id}
            if isinstance(step.fact, Stop) and step.fact.force:
                forced |= {step.key}
                _all_is_over(world, step.key, decision)
            if isinstance(step.fact, InboxRead):
                _heard_once(world, step.fact)
            elif not isinstance(step.fact, (Stop, Requested)):
                _changes_nothing(world, step.fact, "the same fact again")
        return Point(world, moved, step.budget, asked, refused, forced, sent)

    def _commit(self, world: World, decision: Decision) -> None:
        before: dict[Key, Record | None] = {put.key: world.records.get(put.key) for put in decision.puts}
        world.commit(decision)
        self._see_derived(before, world)
        after = {key: world.records.get(key) for key in before}
        broken = check_commit(before, after, world.now_ms) + check_standing(world.records, world.shapes)
        if broken:
            raise Broken("; ".join(broken))

    def _may_lease(self, node: Node) -> bool:
        """The one cell that a store carries out."""
        cell = TABLE.get(("leaf", node.state, "leased"))
        return cell is not None and RUNNING in cell.to

    def _see_derived(self, before: Mapping[Key, Record | None], world: World) -> None:
        """Members that ended without a record went through the cells of WAITING, which nobody fires."""
        for key, old in before.items():
            scope = world.records.get(key)
            if not isinstance(scope, Node) or scope.tally is None:
                continue
            known = old.tally.ended if isinstance(old, Node) and old.tally is not None else 0
            shape = world.shapes[scope.plan]
            plan = shape.nodes[scope.node]
            assert isinstance(plan, ScopePlan)
            for index, member in enumerate(plan.members):
                how = scope.tally.how(index)
                if how is None or known >> index & 1 or scope.tally.opened >> index & 1:
                    continue
                kind = shape.kinds[member]
                if how == "cancelled":
                    self.result.visited[(kind, "waiting", "stop"), "cancelled"] += 1
                else:
                    self.result.visited[(kind, "waiting", "upstream"), "skipped"] += 1

    def _is_end(self, point: Point) -> bool:
        """Whether every run that was granted has ended; then all must add up."""
        known = (self._bare_number_of(point), point.refused)
        if known not in self._is_over:
            self._is_over[known] = self._adds_up(point)
        return self._is_over[known]

    def _adds_up(self, point: Point) -> bool:
        nodes = {key: node for key, node in point.world.records.items() if isinstance(node, Node)}
        if len(point.asked) < len(self.case.runs) or any(node.state not in FINAL for node in nodes.values()):
            return False
        for run in point.asked - point.refused:
            own = {key: node for key, node in nodes.items() if key[0] == run}
            at = dict.fromkeys(own, 0)
            broken = check_run(own, point.world.shapes, at, at)
            broken += disagreements(own, point.world.shapes, point.forced)
            if broken:
                raise Broken(f"{self.case.name}: {self._story(self._number_of(point))}at the end: {'; '.join(broken)}")
        return True

    def _nothing_is_stuck(self, seen: set[int]) -> None:
        """From every state an end can be reached with no further fault."""
        alive, stack = set(self._ends), list(self._ends)
        while stack:
            for source in self._back.get(stack.pop(), ()):
                if source not in alive:
                    alive.add(source)
                    stack.append(source)
        stuck = seen - alive
        if stuck:
            raise Broken(f"{self.case.name}: {len(stuck)} states are stuck, one after: {self._story(min(stuck))}")

    def _story(self, number: int) -> str:
        told: list[str] = []
        while number in self._parents:
            number, what = self._parents[number]
            told.append(what)
        return "".join(f"{what}, " for what in reversed(told))

    def _number_of(self, point: Point) -> int:
        return self._intern((self._bare_number_of(point), point.budget))

    def _bare_number_of(self, point: Point) -> int:
        """The number of a state whatever faults may still strike."""
        if point.number is None:
            records = frozenset([self._meaning_of(record) for record in point.world.records.values()])
            world, done = point.world, (point.moved, point.asked, point.forced, point.sent)
            point.number = self._intern((records, *done, world.now_ms, world.posts))
        return point.number

    def _meaning_of(self, record: Record) -> int:
        """Revisions and tokens only grow; two records that differ in nothing else have the same future."""
        known = self._meaning.get(id(record))
        if known is None:
            known = self._meaning[id(record)] = (record, self._intern(meaning(record)))
        return known[1]

    def _intern(self, what: object) -> int:
        return self._numbers.setdefault(what, len(self._numbers))


def meaning(record: Record) -> tuple[object, ...]:
    if isinstance(record, Claim):
        return (
            record.key, record.limit, record.holders, record.waiters, record.sharers, record.finished, record.until_ms,
        )  # fmt: skip
    if isinstance(record, Topic):
        return (record.key, record.last, record.first, record.waiters, record.until_ms)
    if isinstance(record, StoredEvent):
        return (record.key, record.number, record.at_ms, record.until_ms)
    node = record
    return (
        node.key, node.plan, node.node, node.index, node.state, node.attempt, node.losses, node.at_ms, node.due_at_ms,
        node.tally, node.extra, node.verdict, node.kill, node.handling, node.result, node.alias, node.failed_at,
        node.cause, node.claim, node.slot, node.inputs, node.stand_in, node.error and node.error.type,
        node.delivery > 0, node.awaits, node.taken,
    )  # fmt: skip


def steps_from(point: Point, case: Case) -> Iterator[Step]:
    """Everything that may happen next."""
    budget, world = point.budget, point.world
    for run, header in world.headers.items():
        if run not in point.asked:
            yield Step("request", Requested(header), (run, ""), budget, True)
    for id in case.sends:
        if id not in point.sent:
            fact = Sent("t", id, b"{}", 10_000)
            yield Step("send", fact, fact.key, budget, True)
    for run in dict.fromkeys(post.run for post in world.posts):
        posts = tuple(post for post in world.posts if post.run == run)
        yield Step("hear", InboxRead((run, ""), len(posts), posts), (run, ""), budget, True)
    for key, node in world.records.items():
        if isinstance(node, Node) and node.state not in FINAL:
            yield from _steps_of(point, world, key, node)
    if case.time_passes and world.now_ms == NOW_MS:
        yield Step("time passes", None, ("", ""), budget, True)
    if budget.stops:
        fewer = budget._replace(stops=budget.stops - 1)
        for key in ((run, path) for run in sorted(point.asked) for path in case.stop_at):
            found = world.records.get(key)
            if isinstance(found, Node) and found.state not in FINAL:
                yield Step("stop", Stop(key), key, fewer, False)
                yield Step("force", Stop(key, force=True), key, fewer, False)


def _steps_of(point: Point, world: World, key: Key, node: Node) -> Iterator[Step]:
    budget, token = point.budget, node.delivery
    due_at_ms = timer_of(node) if node.due_at_ms is not None else None
    if due_at_ms is not None:
        yield Step("due", Due(key, due_at_ms), key, budget, True)
    if node.tally is not None:
        return
    if isinstance(world.shapes[node.plan].nodes[node.node], ApprovalPlan):
        yield Step("approve", Answered(key, b"1"), key, budget, True)
        yield Step("reject", Answered(key, b"0", BOOM), key, budget, False)
    elif node.state == READY:
        yield Step("lease", None, key, budget, True)
    elif key in point.moved:
        yield Step("lost", Lost(key, token), key, budget, True)
    elif node.state in (RUNNING, STOPPING):
        plan = world.shapes[node.plan].nodes[node.node]
        assert isinstance(plan, LeafPlan)
        for number, outcome in enumerate(OUTCOMES[plan.task]):
            what = f"{type(outcome).__name__.lower()}({getattr(outcome, 'verdict', '')})"
            yield Step(what, Ended(key, token, outcome), key, budget, number == 0)
        if budget.hand_backs:
            fewer = budget._replace(hand_backs=budget.hand_backs - 1)
            yield Step("hand back", Ended(key, token, HandedBack()), key, fewer, False)
        if budget.losses:
            yield Step("transfer", None, key, budget._replace(losses=budget.losses - 1), False)


def _is_known(world: World, fact: Fact) -> bool:
    """Whether an event with the id of the one that is sent is kept."""
    return isinstance(fact, Sent) and (NO_RUN, event_id_key(fact.event_type, fact.id)) in world.records


def _variant(fact: Fact | None) -> object:
    """What else distinguishes facts of one kind about one node."""
    if isinstance(fact, Ended):
        return None if isinstance(fact.outcome, HandedBack) else id(fact.outcome)
    return fact.id if isinstance(fact, Sent) else None


def _only_what_never_started_expires(world: World, key: Key) -> None:
    node = world.records.get(key)
    expired = isinstance(node, Node) and node.error is not None and node.error.type == "Expired"
    if expired and (node.state != FAILED or node.delivery > node.base):
        raise Broken(f"{key} is {node.state} after {node.delivery - node.base} deliveries, and has expired")


def _all_is_over(world: World, key: Key, decision: Decision) -> None:
    """A forced stop ends all that is at `key` or below it, and opens nothing there."""
    for other, node in world.records.items():
        if is_below(other, key) and isinstance(node, Node) and node.state not in FINAL:
            raise Broken(f"{other} is {node.state} after a forced stop of {key}")
    opened = [put.key for put in decision.puts if put.guard == 0 and is_below(put.key, key)]
    if opened:
        raise Broken(f"a forced stop of {key} opened {opened}")


def _debounced_gives_its_arguments(world: World, header: Header, decision: Decision) -> None:
    """Whoever was found waiting by a debounced call is called with the arguments of that call."""
    for reply in decision.replies:
        found = world.records.get((reply.run, ""))
        debounced = reply.status == "existing" and header.claim is not None and header.claim.mode == "debounce"
        if debounced and (not isinstance(found, Node) or found.inputs != (header.run, header.inputs)):
            raise Broken(f"{reply.run} does not have the inputs of {header.run}")
    for put in decision.puts:
        claim = world.records.get((NO_RUN, put.record.claim or "")) if isinstance(put.record, Node) else None
        if put.guard or not isinstance(claim, Claim):
            continue
        of = next((one.of for one in claim.sharers if one.node == put.key), None)
        target = world.records.get(of) if of is not None else None
        if isinstance(target, Node) and _mode(world, put.key) == "debounce" and target.stand_in != put.key:
            raise Broken(f"{of} is not called with the arguments of {put.key}")


def _mode(world: World, key: Key) -> str:
    node = world.records[key]
    assert isinstance(node, Node)
    shape = world.shapes[node.plan]
    plan = shape.nodes[node.node]
    return shape.plan.options[plan.options].unique_mode if isinstance(plan, LeafPlan) else ""


def _changes_nothing(world: World, fact: Fact, what: str) -> None:
    decision = world.decide(fact)
    if decision.puts or not decision.refused:
        raise Broken(f"{what} changed something")


def _heard_once(world: World, fact: InboxRead) -> None:
    for put in world.decide(fact).puts:
        stored = world.records.get(put.key)
        if stored is None or put.record is None or meaning(put.record) != meaning(stored):
            raise Broken(f"what was heard twice changed {put.key}")


class _Landings(tuple[State, ...]):
    """The states in which a cell may leave a node; remembers those that were asked for."""

    cell: CellKey
    visited: Counter[tuple[CellKey, State]]

    def __contains__(self, state: object) -> bool:
        self.visited[self.cell, state] += 1  # type: ignore[index]
        return super().__contains__(state)


@contextmanager
def watched(visited: Counter[tuple[CellKey, State]]) -> Iterator[None]:
    """Count the cells of the table that fire, with where they leave the node."""
    before = dict(TABLE)
    for key, cell in before.items():
        landings = _Landings(cell.to)
        landings.cell, landings.visited = key, visited
        TABLE[key] = cell._replace(to=landings)
    try:
        yield
    finally:
        TABLE.update(before)
