"""`stemflow graph`: the steps of a workflow and what they wait for, to be drawn."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from stemflow.cli.arguments import Arguments
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
    writer = {"mermaid": _mermaid, "dot": _dot, "json": _json}[arguments.format]
    print("\n".join(writer(places, edges)))
    return FINE


Edges = list[tuple[str, str, list[str]]]


def _place(path: str, sig: Any, name: str, below: dict[str, list[str]]) -> GraphNode:
    kind = "task" if isinstance(sig, TaskSig) else type(sig).__name__.removesuffix("Sig").lower()
    short = path[len(parent_path(path)) :].removeprefix(".") if path else name
    label = f"{short}: {sig.task}" if isinstance(sig, TaskSig) else short if kind == "steps" else f"{short} ({kind})"
    return GraphNode(path, kind, shown(label), tuple(below.get(path, ())))


def _json(places: dict[str, GraphNode], edges: Edges) -> Iterator[str]:
    nodes = [{"path": one.path, "kind": one.kind, "label": one.label} for one in places.values()]
    lines = [{"from": source, "to": target, "kinds": kinds} for source, target, kinds in edges]
    yield json_text({"nodes": nodes, "edges": lines}, indent=2)


def _mermaid(places: dict[str, GraphNode], edges: Edges) -> Iterator[str]:
    ids = {path: f"n{number}" for number, path in enumerate(places)}
    yield "flowchart LR"
    yield from _mermaid_inside(places, ids, places[""], 1)
    for source, target, kinds in edges:
        yield f"  {ids[source]} {'-.->' if kinds == ['order'] else '-->'} {ids[target]}"


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


def _dot(places: dict[str, GraphNode], edges: Edges) -> Iterator[str]:
    yield "digraph workflow {"
    yield "  rankdir=LR; compound=true; node [shape=box];"
    yield from _dot_inside(places, places[""], 1)
    for source, target, kinds in edges:
        given = [f"ltail={_quoted('cluster ' + source)}"] if places[source].inside else []
        given += [f"lhead={_quoted('cluster ' + target)}"] if places[target].inside else []
        given += ["style=dashed"] if kinds == ["order"] else []
        first, last = _leaf(places, source), _leaf(places, target)
        yield f"  {_quoted(first)} -> {_quoted(last)}" + (f" [{', '.join(given)}]" if given else "") + ";"
    yield "}"


def _dot_inside(places: dict[str, GraphNode], place: GraphNode, depth: int) -> Iterator[str]:
    indent = "  " * depth
    if not place.inside:
        yield f"{indent}{_quoted(place.path)} [label={_quoted(place.label)}];"
        return
    yield f"{indent}subgraph {_quoted('cluster ' + place.path)} {{"
    yield f"{indent}  label={_quoted(place.label)};"
    for path in place.inside:
        yield from _dot_inside(places, places[path], depth + 1)
    yield f"{indent}}}"


def _leaf(places: dict[str, GraphNode], path: str) -> str:
    """Graphviz draws edges between leaves and cuts them at the frames that are named."""
    while places[path].inside:
        path = places[path].inside[0]
    return path


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
