"""A run as rows: which places there are, and how each stands. Members that never opened are derived from the plan."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from stemflow.core.shape import Shape, segment, static_size
from stemflow.model.plan import LeafPlan, ScopePlan
from stemflow.model.records import FINAL, ErrorInfo, Node, child_path, parent_path

COLLAPSE_ABOVE = 8
"""A group, header or map of more members becomes one line with counts."""

_ENDED = {"ok": "succeeded", "failed": "failed", "skipped": "skipped", "upstream": "skipped", "cancelled": "cancelled"}
_ORDER = ("succeeded", "failed", "skipped", "cancelled", "running", "ready", "waiting")


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One place of a run. `node` is None for a member that never opened; `counts` are set when members are collapsed."""

    path: str
    name: str
    depth: int
    state: str
    task: str | None = None
    attempts: int = 1
    node: Node | None = None
    counts: Mapping[str, int] = field(default_factory=dict)

    @property
    def attempt(self) -> int:
        return self.node.attempt if self.node is not None else 0

    @property
    def error(self) -> ErrorInfo | None:
        return self.node.error if self.node is not None else None

    @property
    def is_final(self) -> bool:
        return self.state in FINAL

    def lasted_ms(self, now_ms: int) -> int | None:
        """Milliseconds from the instant at which it could have started to its end, or to now; None if it did not open."""
        if self.node is None or not self.node.opened_at_ms:
            return None
        return max((self.node.ended_at_ms or now_ms) - self.node.opened_at_ms, 0)


class Tree:
    """Rows of one run from its records and the shapes of its plans (by digest)."""

    def __init__(self, name: str, nodes: Sequence[Node], shapes: Mapping[str, Shape], collapse: int | None = COLLAPSE_ABOVE) -> None:
        self.name = name
        self.shapes = shapes
        self.collapse = collapse
        self.by_path = {node.path: node for node in nodes}
        self.below: dict[str, list[Node]] = {}
        for node in nodes:
            if node.path:
                self.below.setdefault(parent_path(node.path), []).append(node)

    def rows(self) -> list[Row]:
        """Every place in the order of the plan, the run itself first."""
        root = self.by_path.get("")
        return [] if root is None else list(self._of(root, self.name, 0))

    def _of(self, node: Node, name: str, depth: int) -> Iterator[Row]:
        shape = self.shapes[node.plan]
        plan = shape.nodes[node.node]
        row = self._row(shape, node.node, node.path, name, depth, node.state, node)
        if not isinstance(plan, ScopePlan) or node.tally is None:
            yield row
            # What runs for a leaf beside it, such as its compensation.
            yield from self._unplanned(node, set(), depth)
            return
        folded = self._folded(plan, node)
        counts = self._counts(plan, node) if folded else {}
        yield Row(path=row.path, name=name, depth=depth, state=node.state, node=node, counts=counts)
        told = set(self._members(shape, plan, node)) if plan.kind == "map" else set()
        if not folded or plan.kind == "chord":
            yield from self._planned(shape, plan, node, depth, told, folded)
        if folded:
            told |= {one.path for one in self.below.get(node.path, ()) if not one.path[len(node.path) :].startswith("!")}
        else:
            told -= set(self._members(shape, plan, node))
        yield from self._unplanned(node, told, depth)

    def _planned(
        self, shape: Shape, plan: ScopePlan, node: Node, depth: int, told: set[str], body_only: bool
    ) -> Iterator[Row]:
        """Members that the plan names; of a folded chord the body alone."""
        assert node.tally is not None
        size = static_size(plan)
        for index in range(size - 1 if body_only else 0, size):
            part = segment(plan, index)
            path = child_path(node.path, part)
            told.add(path)
            record = self.by_path.get(path)
            if record is not None:
                yield from self._of(record, part, depth + 1)
                continue
            how = node.tally.how(index)
            state = _ENDED[how] if how is not None else "cancelled" if node.state in FINAL else "waiting"
            yield from self._unopened(shape, plan.members[index], path, part, depth + 1, state)

    def _unopened(self, shape: Shape, place: int, path: str, name: str, depth: int, state: str) -> Iterator[Row]:
        """A member without a record; what is inside one that will never run is left out."""
        yield self._row(shape, place, path, name, depth, state, None)
        plan = shape.nodes[place]
        if not isinstance(plan, ScopePlan) or state in FINAL or plan.kind == "map":
            return
        size = static_size(plan)
        first = size - 1 if self._is_fan(plan) and self._is_many(size) and plan.kind == "chord" else 0
        if self._is_fan(plan) and self._is_many(size) and plan.kind != "chord":
            return
        for index in range(first, size):
            part = segment(plan, index)
            yield from self._unopened(shape, plan.members[index], child_path(path, part), part, depth + 1, state)

    def _unplanned(self, node: Node, told: set[str], depth: int) -> Iterator[Row]:
        """Records below `node` that its plan does not list: members of maps, those that joined, handlers."""
        for one in self.below.get(node.path, ()):
            if one.path not in told:
                yield from self._of(one, one.path[len(node.path) :].removeprefix("."), depth + 1)

    def _members(self, shape: Shape, plan: ScopePlan, node: Node) -> Iterator[str]:
        return (one.path for one in self.below.get(node.path, ()) if one.path[len(node.path) :].startswith("["))

    def _row(self, shape: Shape, place: int, path: str, name: str, depth: int, state: str, node: Node | None) -> Row:
        plan = shape.nodes[place]
        if not isinstance(plan, LeafPlan):
            return Row(path=path, name=name, depth=depth, state=state, node=node)
        attempts = shape.plan.options[plan.options].max_retries + 1
        return Row(path=path, name=name, depth=depth, state=state, node=node, task=plan.task, attempts=attempts)

    def _is_fan(self, plan: ScopePlan) -> bool:
        return plan.kind in ("group", "map", "chord")

    def _is_many(self, size: int) -> bool:
        return self.collapse is not None and size > self.collapse

    def _folded(self, plan: ScopePlan, node: Node) -> bool:
        return node.tally is not None and self._is_fan(plan) and self._is_many(node.tally.size)

    def _counts(self, plan: ScopePlan, node: Node) -> dict[str, int]:
        """Members by state; those without a record are waiting."""
        tally = node.tally
        assert tally is not None
        counts: Counter[str] = Counter()
        for how, state in _ENDED.items():
            counts[state] += getattr(tally, how).bit_count()
        for one in self.below.get(node.path, ()):
            if one.index >= 0 and not one.is_final_member(tally) if False else False:
                counts[one.state] += 1
        return {state: counts[state] for state in _ORDER if counts[state]}


def states(rows: Sequence[Row]) -> dict[str, int]:
    """How many tasks stand in each state; members that are collapsed count one by one."""
    counts: Counter[str] = Counter()
    for row in rows:
        if row.counts:
            counts.update(row.counts)
        elif row.task is not None:
            counts[row.state] += 1
    return {state: counts[state] for state in _ORDER if counts[state]}


def progress_text(progress: Any) -> str:
    """`40%` of what a handler last reported."""
    if isinstance(progress, (tuple, list)) and progress:
        progress = progress[0]
    return f"{progress:g}%" if isinstance(progress, (int, float)) else ""
