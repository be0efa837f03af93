"""Recorded executions as graphs to compare with, and runs of them that write down what their tasks saw."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Collection, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import networkx as nx

from stemflow import TaskContext, TaskRegistry
from stemflow.cli.tree import Row, Tree
from stemflow.core.shape import Shape
from stemflow.dsl import parse_workflow
from stemflow.model.records import Node
from stemflow.model.signature import Workflow
from stemflow.store.base import Store
from tests.dags.convert import to_name, to_workflow, to_yaml

DATA = Path(__file__).parent / "data"
FILES = tuple(sorted(path.stem for path in DATA.glob("*.json")))


class Dag:
    """One record: its workflow as parsed from the file text, and the graph as read from the record itself."""

    def __init__(self, record: Mapping[str, Any]) -> None:
        self.text = to_yaml(record)
        parsed = parse_workflow(self.text, f"{record['name']}.yaml")
        assert parsed.workflow is not None, parsed.diagnostics
        self.workflow: Workflow = parsed.workflow
        self.runtimes_ms = {to_name(task["id"]): round(task["runtime_s"] * 1_000) for task in record["tasks"]}
        self.graph: nx.DiGraph[str] = nx.DiGraph()
        self.graph.add_nodes_from(self.runtimes_ms)
        for task in record["tasks"]:
            self.graph.add_edges_from((to_name(parent), to_name(task["id"])) for parent in task["parents"])

    @property
    def work_ms(self) -> int:
        """The sum of all runtimes."""
        return sum(self.runtimes_ms.values())

    @property
    def critical_path_ms(self) -> int:
        """The longest path: an edge weighs what its source takes, and every task has an edge to the end."""
        weighted: nx.DiGraph[str] = nx.DiGraph()
        weighted.add_weighted_edges_from((a, b, self.runtimes_ms[a]) for a, b in self.graph.edges)
        weighted.add_weighted_edges_from((name, "the end", ms) for name, ms in self.runtimes_ms.items())
        return int(nx.dag_longest_path_length(weighted))

    def descendants(self, name: str) -> set[str]:
        return set(nx.descendants(self.graph, name))


@cache
def record_of(file: str) -> dict[str, Any]:
    """The record with this name in `data/`."""
    record: dict[str, Any] = json.loads((DATA / f"{file}.json").read_text("utf-8"))
    return record


@cache
def load(file: str) -> Dag:
    """The graph of a record in `data/`."""
    return Dag(record_of(file))


class Witness:
    """What the tasks say of themselves, in order: (start or end, step)."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str]] = []

    def steps(self, what: str, first: int = 0) -> Counter[str]:
        """How often each step said `what` from line `first` on."""
        return Counter(step for said, step in self.lines[first:] if said == what)

    def check_order(self, graph: nx.DiGraph[str]) -> None:
        """Every start of a step comes after an end of each parent."""
        ended: set[str] = set()
        for what, step in self.lines:
            if what == "end":
                ended.add(step)
            else:
                missing = set(graph.predecessors(step)) - ended
                assert not missing, f"{step} started before {missing} ended"


def make_registry(witness: Witness, failing: Collection[str] = ()) -> TaskRegistry:
    """The task of the converted files; it fails in the steps `failing`, after its runtime."""
    registry = TaskRegistry()

    @registry.task("run_for", max_retries=0)
    async def run_for(ctx: TaskContext, ms: int) -> None:
        witness.lines.append(("start", ctx.node))
        await asyncio.sleep(ms / 1_000)
        if ctx.node in failing:
            raise RuntimeError("this step was told to fail")
        witness.lines.append(("end", ctx.node))

    return registry


async def shown(store: Store, run: str) -> dict[str, Row]:
    """The steps of a run as `stemflow show` has them, by name."""
    nodes: list[Node] = await store.nodes(run)
    shapes = {}
    for digest in {node.plan for node in nodes}:
        plan = await store.plan(digest)
        assert plan is not None
        shapes[digest] = Shape(plan)
    return {row.path: row for row in Tree("", nodes, shapes).rows() if row.path}


__all__ = ["DATA", "FILES", "Dag", "Witness", "load", "make_registry", "record_of", "shown", "to_workflow"]
