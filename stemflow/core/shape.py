"""A plan with data derived from it once: path segments, successors and predecessor masks of `steps` scopes."""

from __future__ import annotations

from functools import cached_property
from typing import assert_never

from stemflow.core.table import Kind
from stemflow.model.plan import (
    AnyPlan,
    ApprovalPlan,
    Edge,
    EmitPlan,
    EventPlan,
    LeafPlan,
    Plan,
    ScopePlan,
    WaitPlan,
)
from stemflow.model.policy import Options
from stemflow.model.records import Node


class Shape:
    """Read-only view of one plan; created once per process and plan."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.nodes: tuple[AnyPlan, ...] = plan.nodes
        self._dags: dict[int, Dag] = {}

    def dag(self, node: int) -> Dag:
        """Successors and predecessor masks of the `steps` scope `node`."""
        found = self._dags.get(node)
        if found is None:
            found = self._dags[node] = Dag(self.scope(node), self.nodes)
        return found

    def scope(self, node: int) -> ScopePlan:
        """The composite at `node`."""
        plan = self.nodes[node]
        assert isinstance(plan, ScopePlan)
        return plan

    def queue_of(self, node: int) -> str:
        """The queue of a task, or of the first task in a composite; `default` where there is none."""
        plan = self.nodes[node]
        while isinstance(plan, ScopePlan) and plan.members:
            plan = self.nodes[plan.members[0]]
        return self.plan.options[plan.options].queue if isinstance(plan, LeafPlan) else Options().queue

    @cached_property
    def keep_ms(self) -> int:
        """The longest `result_ttl` or unique window of its tasks, in milliseconds."""
        options = self.plan.options
        each = [options[node.options] for node in self.nodes if isinstance(node, LeafPlan)] or [Options()]
        return max(max(one.result_ttl_ms, one.unique_for_ms or 0) for one in each)

    @cached_property
    def kinds(self) -> tuple[Kind, ...]:
        return tuple(kind_of(node) for node in self.nodes)


class Dag:
    """The edges of a `steps` scope, inverted: from predecessor to successors."""

    def __init__(self, scope: ScopePlan, nodes: tuple[AnyPlan, ...]) -> None:
        size = len(scope.members)
        self.edges: tuple[tuple[Edge, ...], ...] = scope.edges or ((),) * size
        self.needed = [0] * size
        self.successors: list[list[int]] = [[] for _ in range(size)]
        for target, edges in enumerate(self.edges):
            for source in sorted({edge.source for edge in edges}):
                self.needed[target] |= 1 << source
                self.successors[source].append(target)
        self.roots = tuple(i for i in range(size) if not self.needed[i])
        self.always = tuple(i for i, member in enumerate(scope.members) if nodes[member].run_on == "always")

    @cached_property
    def above(self) -> list[int]:
        """The mask of all from which edges lead to each member, over however many steps."""
        above, missing, reached = [0] * len(self.needed), list(self.needed), list(self.roots)
        for source in reached:
            for target in self.successors[source]:
                above[target] |= above[source] | 1 << source
                missing[target] &= ~(1 << source)
                if not missing[target]:
                    reached.append(target)
        return above


def kind_of(node: AnyPlan) -> Kind:
    """The rows of the transition table that apply to a node of the plan."""
    match node:
        case LeafPlan():
            return "leaf"
        case ScopePlan():
            return "scope"
        case WaitPlan():
            return "wait"
        case EventPlan():
            return "event"
        case EmitPlan():
            return "emit"
        case ApprovalPlan():
            return "approval"
        case _:
            assert_never(node)


def base_size(record: Node) -> int:
    """The number of members of an opened scope, without those that joined while it ran."""
    assert record.tally is not None
    if not record.extra:
        return record.tally.size
    return record.tally.size - sum(count for _, count in record.extra)


def shares_keys(plan: Plan) -> bool:
    """Whether it shares a unique key, a concurrency key, a rate limit or events with other runs."""
    if any(isinstance(node, (EventPlan, EmitPlan)) for node in plan.nodes):
        return True
    for one in plan.options:
        if one.unique or one.concurrency is not None or one.rate_limits or one.group_rates:
            return True
    return any(isinstance(node, ScopePlan) and node.concurrency is not None for node in plan.nodes)


def starts_identically(plan: Plan) -> bool:
    """Whether all runs of the plan start with the same records, whatever their arguments and headers are: the plan is
    one task, and none of its keys depends on the call."""
    leaf = plan.nodes[0]
    return len(plan.nodes) == 1 and isinstance(leaf, LeafPlan) and not leaf.undo and not shares_keys(plan)
