"""`stemflow graph`: the steps of a workflow and what they wait for, to be drawn."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from stemflow.cli.arguments import Arguments
from stemflow.cli.drawing.fold import FOLD_ABOVE
from stemflow.cli.drawing.svg import STATES, Drawing, Part
from stemflow.cli.exits import FINE
from stemflow.cli.text import json_text, shown
from stemflow.cli.workflow_file import read_file, require_valid
from stemflow.compile.desugar import desugar
from stemflow.compile.graph import graph_of
from stemflow.model.records import parent_path
from stemflow.model.signature import TaskSig


@dataclass(frozen=True, slots=True)
class GraphNode:
    """A node of the drawing: a task, or a frame around others."""

    path: str
    kind: str
    label: str
    inside: tuple[str, ...]


def main(arguments: Arguments) -> int:
    """Print the graph in the format that was asked for."""
    workflow = require_valid(read_file(arguments.file).checked(None))
    graph = graph_of(desugar(workflow.body))
    below: dict[str, list[str]] = {}
    for path in graph:
        if path:
            below.setdefault(parent_path(path), []).append(path)
    places = {path: _place(path, graph.nodes[path]["sig"], workflow.name, below) for path in graph}
    edges: Edges = [(source, target, sorted(given["kinds"])) for source, target, given in graph.edges(data=True)]
    states = None if arguments.run is None else asyncio.run(_states(arguments, places))
    if arguments.format == "svg":
        lines = _svg(places, edges, states, arguments.all)
    else:
        lines = {"mermaid": _mermaid, "dot": _dot, "json": _json}[arguments.format](places, edges, states or {})
    print("\n".join(lines))
    return FINE


Edges = list[tuple[str, str, list[str]]]
States = Mapping[str, Mapping[str, int]]
"""Path of a step -> state -> number of nodes of a run."""


async def _states(arguments: Arguments, places: Collection[str]) -> States:
    from stemflow.cli.run_states import run_states

    return await run_states(arguments.store, arguments.run, places)


def _svg(places: dict[str, GraphNode], edges: Edges, states: States | None, every: bool) -> Iterator[str]:
    parts = {path: Part(one.label, one.kind, one.inside) for path, one in places.items()}
    lines = {(source, target): kinds == ["order"] for source, target, kinds in edges}
    return Drawing(parts, lines, states, None if every else FOLD_ABOVE).svg()


def _worst(states: States, path: str) -> str | None:
    """The state that a step is drawn in: of several, the one that needs attention first."""
    return next((state for state in STATES if state in states.get(path, ())), None)


def _place(path: str, sig: Any, name: str, below: dict[str, list[str]]) -> GraphNode:
    kind = "task" if isinstance(sig, TaskSig) else type(sig).__name__.removesuffix("Sig").lower()
    short = path[len(parent_path(path)) :].removeprefix(".") if path else name
    label = f"{short}: {sig.task}" if isinstance(sig, TaskSig) else short if kind == "steps" else f"{short} ({kind})"
    return GraphNode(path, kind, shown(label), tuple(below.get(path, ())))


def _json(places: dict[str, GraphNode], edges: Edges, states: States) -> Iterator[str]:
    nodes: list[dict[str, Any]] = [
        {"path": one.path, "kind": one.kind, "label": one.label, **({"states": states[path]} if path in states else {})}
        for path, one in places.items()
    ]
    lines = [{"from": source, "to": target, "kinds": kinds} for source, target, kinds in edges]
    yield json_text({"nodes": nodes, "edges": lines}, indent=2)


def _mermaid(places: dict[str, GraphNode], edges: Edges, states: States) -> Iterator[str]:
    ids = {path: f"n{number}" for number, path in enumerate(places)}
    yield "flowchart LR"
    yield from _mermaid_inside(places, ids, places[""], 1)
    for source, target, kinds in edges:
        yield f"  {ids[source]} {'-.->' if kinds == ['order'] else '-->'} {ids[target]}"
    for path in places:
        state = _worst(states, path)
        if state is not None:
            fill, border = STATES[state]
            yield f"  style {ids[path]} fill:{fill},stroke:{border}"


_MERMAID: Final = str.maketrans({"#": "#35;", '"': "#quot;", "<": "#lt;", ">": "#gt;", "&": "#amp;", "`": "#96;"})
"""Characters that begin an entity, a tag, Markdown or the end of a label."""


def _mermaid_inside(places: dict[str, GraphNode], ids: dict[str, str], place: GraphNode, depth: int) -> Iterator[str]:
    label = place.label.translate(_MERMAID)
    if not place.inside:
        yield f'{"  " * depth}{ids[place.path]}["{label}"]'
        return
    yield f'{"  " * depth}subgraph {ids[place.path]}["{label}"]'
    for path in place.inside:
        yield from _mermaid_inside(places, ids, places[path], depth + 1)
    yield f"{'  ' * depth}end"


def _dot(places: dict[str, GraphNode], edges: Edges, states: States) -> Iterator[str]:
    yield "digraph workflow {"
    yield "  rankdir=LR; compound=true; node [shape=box];"
    yield from _dot_inside(places, states, places[""], 1)
    for source, target, kinds in edges:
        given = [f"ltail={_quoted('cluster ' + source)}"] if places[source].inside else []
        given += [f"lhead={_quoted('cluster ' + target)}"] if places[target].inside else []
        given += ["style=dashed"] if kinds == ["order"] else []
        first, last = _leaf(places, source), _leaf(places, target)
        yield f"  {_quoted(first)} -> {_quoted(last)}" + (f" [{', '.join(given)}]" if given else "") + ";"
    yield "}"


def _dot_inside(places: dict[str, GraphNode], states: States, place: GraphNode, depth: int) -> Iterator[str]:
    indent, state = "  " * depth, _worst(states, place.path)
    if not place.inside:
        colours = "" if state is None else f', style=filled, fillcolor="{STATES[state][0]}", color="{STATES[state][1]}"'
        yield f"{indent}{_quoted(place.path)} [label={_quoted(place.label)}{colours}];"
        return
    yield f"{indent}subgraph {_quoted('cluster ' + place.path)} {{"
    yield f"{indent}  label={_quoted(place.label)};"
    for path in place.inside:
        yield from _dot_inside(places, states, places[path], depth + 1)
    yield f"{indent}}}"


def _leaf(places: dict[str, GraphNode], path: str) -> str:
    """Graphviz draws edges between leaves and cuts them at the frames that are named."""
    while places[path].inside:
        path = places[path].inside[0]
    return path


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
