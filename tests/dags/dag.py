"""Recorded executions as graphs to compare with, and what a run of one is asked about afterwards."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import networkx as nx

from stemflow import TaskContext, TaskRegistry
from stemflow.cli.tree import Tree
from stemflow.core.shape import Shape
from stemflow.dsl import parse_workflow
from stemflow.model.workflow import Workflow
from stemflow.store.base import Store
from tests.dags.convert import to_name, to_yaml

DATA = Path(__file__).parent / "data"
FILES = tuple(sorted(path.stem for path in DATA.glob("*.json")))
LARGEST = "montage-chameleon-dss-15d-001"
SPEEDUP = 10
"""How much shorter the tasks of a loaded graph are than they were recorded: idle hours cost much and show nothing."""


def graph_of(record: Mapping[str, Any]) -> nx.DiGraph[str]:
    """The steps of a record, with an edge from each to those that need it."""
    graph: nx.DiGraph[str] = nx.DiGraph()
    graph.add_nodes_from(to_name(task["id"]) for task in record["tasks"])
    for task in record["tasks"]:
        graph.add_edges_from((to_name(parent), to_name(task["id"])) for parent in task["parents"])
    return graph


class Dag:
    """One record: the workflow as parsed from its file, and the graph as read from the record itself."""

    def __init__(self, record: Mapping[str, Any]) -> None:
        parsed = parse_workflow(to_yaml(record), f"{record['name']}.yaml")
        assert parsed.workflow is not None, parsed.diagnostics
        self.workflow: Workflow = parsed.workflow
        self.runtimes_ms = {to_name(task["id"]): round(task["runtime_s"] * 1_000) for task in record["tasks"]}
        self.steps = frozenset(self.runtimes_ms)
        self.graph = graph_of(record)
        assert len(self.steps) == len(record["tasks"]) == len(self.graph)

    @property
    def work_ms(self) -> int:
        """The sum of all runtimes."""
        return sum(self.runtimes_ms.values())

    @property
    def critical_path_ms(self) -> int:
        """The longest path: an edge weighs what its source takes, and every task has an edge to the end."""
        weighted: nx.DiGraph[str] = nx.DiGraph()
        weighted.add_weighted_edges_from((a, b, self.runtimes_ms[a]) for a, b in self.graph.edges)
        weighted.add_weighted_edges_from((step, "the end", ms) for step, ms in self.runtimes_ms.items())
        return int(nx.dag_longest_path_length(weighted))

    def descendants(self, step: str) -> frozenset[str]:
        """Every step that comes after this one on some path."""
        return frozenset(nx.descendants(self.graph, step))


@cache
def read_record(file: str) -> dict[str, Any]:
    """The record with this name in `data/`."""
    record: dict[str, Any] = json.loads((DATA / f"{file}.json").read_text("utf-8"))
    return record


@cache
def load(file: str) -> Dag:
    """The graph of a record in `data/`, with tasks that are SPEEDUP times as fast."""
    record = read_record(file)
    faster = [{**task, "runtime_s": task["runtime_s"] / SPEEDUP} for task in record["tasks"]]
    return Dag({**record, "tasks": faster})


class Witness:
    """What the tasks say of themselves, in order: (start, end or failure; step; loop time in ms)."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str, float]] = []
        self.started = 0

    def write(self, what: str, step: str) -> None:
        self.started += what == "start"
        self.lines.append((what, step, asyncio.get_running_loop().time() * 1_000))

    def times(self, what: str) -> Counter[str]:
        """How often each step said `what`."""
        return Counter(step for said, step, _ in self.lines if said == what)

    def check_order(self, graph: nx.DiGraph[str]) -> None:
        """Each step starts when the last run of every parent has ended."""
        ended: set[str] = set()
        for what, step, at_ms in self.lines:
            if what == "start":
                ended.discard(step)
                missing = set(graph.predecessors(step)) - ended
                assert not missing, f"{step} started at {at_ms:.0f} ms, before {sorted(missing)} ended"
            elif what == "end":
                ended.add(step)


def make_registry(
    witness: Witness, failing: Collection[str] = (), begun: Callable[[int], None] | None = None
) -> TaskRegistry:
    """The task of converted files, which fails in the steps `failing`; `begun` is called at each start, with its ms."""
    registry = TaskRegistry()

    @registry.task("run_for", max_retries=0)
    async def run_for(ctx: TaskContext, ms: int) -> None:
        witness.write("start", ctx.node)
        if begun is not None:
            begun(ms)
        await asyncio.sleep(ms / 1_000)
        if ctx.node in failing:
            witness.write("failure", ctx.node)
            raise RuntimeError("this step was told to fail")
        witness.write("end", ctx.node)

    return registry


async def shown(store: Store, run: str) -> dict[str, tuple[str, str | None]]:
    """The steps of a run as `stemflow show` has them: name -> (state, cause)."""
    nodes = await store.nodes(run)
    shapes = {}
    for digest in {node.plan for node in nodes}:
        plan = await store.plan(digest)
        assert plan is not None
        shapes[digest] = Shape(plan)
    return {row.path: (row.state, row.cause) for row in Tree("", nodes, shapes).rows() if row.path}


def expected(dag: Dag, failed: str | None = None) -> dict[str, tuple[str, str | None]]:
    """What must be shown when all steps succeed but `failed` and those after it."""
    states: dict[str, tuple[str, str | None]] = dict.fromkeys(dag.steps, ("succeeded", None))
    if failed is not None:
        states.update(dict.fromkeys(dag.descendants(failed), ("skipped", "upstream")))
        states[failed] = ("failed", None)
    return states
