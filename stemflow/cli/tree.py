"""A run as rows, one per node with its state. Members that never opened are derived from the plan."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from stemflow.core.kinds import rules_of
from stemflow.core.kinds.chord import BODY
from stemflow.core.shape import Shape
from stemflow.model.plan import AnyPlan, LeafPlan, ScopePlan
from stemflow.model.records import FINAL, Node, Tally, child_path, parent_path

COLLAPSE_ABOVE = 8
"""A group, header or map of more members becomes one line with counts."""

_ENDED = {"ok": "succeeded", "failed": "failed", "skipped": "skipped", "upstream": "skipped", "cancelled": "cancelled"}
ORDER = ("succeeded", "failed", "skipped", "cancelled", "running", "stopping", "held", "ready", "waiting")


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One node of a run. `node` is None for a member that never opened; `counts` summarise collapsed members."""

    path: str
    name: str
    depth: int
    state: str
    task: str | None = None
    attempts: int = 1
    node: Node | None = None
    cause: str | None = None
    blamed: tuple[str, ...] | None = None
    """Of a step that was skipped without a condition of its own: the steps before it that were skipped."""
    counts: Mapping[str, int] = field(default_factory=dict)

    @property
    def is_final(self) -> bool:
        return self.state in FINAL

    def lasted_ms(self, now_ms: int) -> int | None:
        """Milliseconds from the instant at which it could have started to its end or to now, None if it never could."""
        if self.node is None or not self.node.opened_at_ms:
            return None
        return max((self.node.ended_at_ms or now_ms) - self.node.opened_at_ms, 0)


class Tree:
    """Rows of one run, from its records and the shapes of its plans (by digest)."""

    def __init__(
        self, name: str, nodes: Sequence[Node], shapes: Mapping[str, Shape], collapse: int | None = COLLAPSE_ABOVE
    ) -> None:
        self.name = name
        self.shapes = shapes
        self.collapse = collapse
        self.by_path = {node.path: node for node in nodes}
        self.below: dict[str, list[Node]] = {}
        for node in nodes:
            if node.path:
                self.below.setdefault(parent_path(node.path), []).append(node)

    def rows(self) -> list[Row]:
        """Every row in the order of the plan, the run itself first."""
        root = self.by_path.get("")
        return [] if root is None else list(self._of(root, self.name, 0))

    def _of(self, node: Node, name: str, depth: int) -> Iterator[Row]:
        shape = self.shapes[node.plan]
        plan = shape.nodes[node.node]
        many = isinstance(plan, ScopePlan) and node.tally is not None and self._is_folded(plan, node.tally.size)
        counts = self._counts(node) if many else {}
        yield self._row(shape, node.node, node.path, name, depth, node.state, node, counts)
        planned: set[str] = set()
        if isinstance(plan, ScopePlan) and node.tally is not None:
            yield from self._planned(shape, plan, node, depth, many, planned)
        skipped = [] if many or not isinstance(plan, ScopePlan) else self._skipped_items(plan, node)
        for one in self.below.get(node.path, ()):
            part = one.path[len(node.path) :]
            while skipped and (one.index > skipped[0] or part.startswith("!")):
                yield from self._skipped_item(shape, plan, node, skipped.pop(0), depth + 1)
            if one.path not in planned and not (many and one.index >= 0 and not part.startswith("!")):
                yield from self._of(one, part.removeprefix("."), depth + 1)
        for index in skipped:
            yield from self._skipped_item(shape, plan, node, index, depth + 1)

    def _skipped_items(self, plan: ScopePlan, node: Node) -> list[int]:
        """The items of a map and the iterations of a loop that were skipped, and so have no record."""
        tally = node.tally
        if tally is None or not rules_of(plan).repeats:
            return []
        bits = tally.skipped | tally.upstream
        skipped = [index for index in range(bits.bit_length()) if bits >> index & 1]
        segment = rules_of(plan).segment
        return [index for index in skipped if child_path(node.path, segment(plan, index)) not in self.by_path]

    def _skipped_item(self, shape: Shape, plan: AnyPlan, node: Node, index: int, depth: int) -> Iterator[Row]:
        assert isinstance(plan, ScopePlan) and node.tally is not None
        rules = rules_of(plan)
        path = child_path(node.path, rules.segment(plan, index))
        state, cause = _derived(node.tally, index, node.state)
        yield from self._unopened(shape, rules.place(plan, index), path, depth, state, cause)

    def _planned(
        self, shape: Shape, plan: ScopePlan, node: Node, depth: int, many: bool, named: set[str]
    ) -> Iterator[Row]:
        """The members that the plan names (of a collapsed scope: a chord's body alone); adds their paths to `named`."""
        tally = node.tally
        assert tally is not None
        for index in self._unfolded(plan, many):
            part = rules_of(plan).segment(plan, index)
            path = child_path(node.path, part)
            named.add(path)
            record = self.by_path.get(path)
            if record is not None:
                yield from self._of(record, part, depth + 1)
            else:
                state, cause = _derived(tally, index, node.state)
                blamed = _skipped_before(shape, node, index) if cause == "condition" else None
                yield from self._unopened(shape, plan.members[index], path, depth + 1, state, cause, blamed)

    def _unopened(
        self, shape: Shape, place: int, path: str, depth: int, state: str, cause: str | None = None,
        blamed: tuple[str, ...] | None = None,
    ) -> Iterator[Row]:  # fmt: skip
        """A member without a record; what is inside one that will never run is left out."""
        plan = shape.nodes[place]
        size = rules_of(plan).size(plan) if isinstance(plan, ScopePlan) else 0
        many = isinstance(plan, ScopePlan) and self._is_folded(plan, size)
        counts = {state: size} if many else {}
        name = path[len(parent_path(path)) :].removeprefix(".")
        yield replace(self._row(shape, place, path, name, depth, state, None, counts), cause=cause, blamed=blamed)
        if isinstance(plan, ScopePlan) and state not in FINAL:
            for index in self._unfolded(plan, many):
                inner = child_path(path, rules_of(plan).segment(plan, index))
                yield from self._unopened(shape, plan.members[index], inner, depth + 1, state)

    def _unfolded(self, plan: ScopePlan, many: bool) -> range:
        rules = rules_of(plan)
        size = rules.size(plan)
        if not many:
            return range(size)
        return range(size - 1, size) if rules.has_body else range(0)

    def _is_folded(self, plan: ScopePlan, size: int) -> bool:
        return self.collapse is not None and rules_of(plan).wide and size > self.collapse

    def _counts(self, scope: Node) -> dict[str, int]:
        """Members by state; those without a record are waiting."""
        tally = scope.tally
        assert tally is not None
        counts: Counter[str] = Counter()
        for how, state in _ENDED.items():
            counts[state] += getattr(tally, how).bit_count()
        for one in self.below.get(scope.path, ()):
            if one.index >= 0 and one.state not in FINAL and not one.path.endswith(f".{BODY}"):
                counts[one.state] += 1
        counts["waiting"] += max(tally.size - counts.total(), 0)
        return {state: counts[state] for state in ORDER if counts[state]}

    def _row(
        self, shape: Shape, place: int, path: str, name: str, depth: int, state: str, node: Node | None,
        counts: Mapping[str, int],
    ) -> Row:  # fmt: skip
        plan = shape.nodes[place]
        cause = node.cause if node is not None else None
        if isinstance(plan, LeafPlan):
            most = shape.plan.options[plan.options].max_retries + 1
            return Row(
                path=path, name=name, depth=depth, state=state, node=node, cause=cause, task=plan.task, attempts=most
            )  # fmt: skip
        return Row(path=path, name=name, depth=depth, state=state, node=node, counts=counts, cause=cause)


def _derived(tally: Tally, index: int, parent_state: str) -> tuple[str, str | None]:
    """The state of a member without a record, and the cause if it was skipped."""
    match tally.how(index):
        case "upstream":
            return "skipped", "upstream"
        case "skipped":
            return "skipped", "condition"
        case None:
            return ("cancelled" if parent_state in FINAL else "waiting"), None
        case how:
            return _ENDED[how], None


def _skipped_before(shape: Shape, scope: Node, index: int) -> tuple[str, ...] | None:
    """The members whose skip went on to member `index`; None if the member was skipped for a reason of its own."""
    plan, tally = shape.scope(scope.node), scope.tally
    assert tally is not None
    rules = rules_of(plan)
    if rules.name == "steps":
        member = shape.nodes[plan.members[index]]
        edges = [one for one in shape.dag(scope.node).edges[index] if one.kind == "data" or member.run_on != "success"]
        before = dict.fromkeys(one.source for one in edges if tally.how(one.source) == "skipped")
        found = tuple(rules.segment(plan, one) for one in before)
        return found if found or member.when is None else None
    if rules.name == "chain":
        return (rules.segment(plan, index - 1),) if index else None
    return None


def count_states(rows: Sequence[Row]) -> dict[str, int]:
    """The number of tasks in each state; collapsed members count one by one."""
    counts: Counter[str] = Counter()
    for row in rows:
        if row.counts:
            counts.update(row.counts)
        elif row.task is not None:
            counts[row.state] += 1
    return {state: counts[state] for state in ORDER if counts[state]}
