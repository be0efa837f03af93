"""A signature as a networkx DiGraph: one node a path, one edge a dependency.

A chain is edges in a row, a group a fan, a chord a fan plus its body, `steps` the edges that references and
`needs` make.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import pairwise
from typing import Any

import networkx as nx

from stemflow.errors import StemflowError
from stemflow.expr import ExpressionError, parse_condition, parse_template
from stemflow.model.records import child_path
from stemflow.model.signature import AnySig, ChainSig, ChordSig, GroupSig, MapSig, StepsSig, TaskSig

BODY = "then"

NAMES = frozenset({"inputs", "vars", "steps", "prev", "results", "item", "index", "run", "env", "self", "error"})
"""Every name that an expression may use somewhere; the `as` names of maps are added where they hold."""


class CycleError(StemflowError):
    """The steps of a workflow wait for each other in a circle; `path` names them in order, the first again at the
    end."""

    def __init__(self, path: tuple[str, ...]) -> None:
        self.path = path
        super().__init__(f"steps: expected no cycle, got {' -> '.join(path)}; take one of these edges out")


def graph_of(sig: AnySig) -> nx.DiGraph[str]:
    """Expand a (desugared) signature; raises CycleError. Node attributes: `sig`; edge attribute: `kinds`, a set."""
    graph: nx.DiGraph[str] = nx.DiGraph()
    _add(graph, sig, "")
    return graph


def members_of(sig: AnySig) -> tuple[tuple[str, AnySig], ...]:
    """(path segment, signature) of each static member; a map has its template under `[*]`."""
    match sig:
        case ChainSig() | StepsSig():
            return _segments(sig.steps)
        case GroupSig():
            return _segments(sig.members)
        case ChordSig():
            return (*_segments(sig.header), (BODY, sig.body))
        case MapSig():
            return (("[*]", sig.do),)
        case _:
            return ()


def _segments(members: tuple[AnySig, ...]) -> tuple[tuple[str, AnySig], ...]:
    return tuple((member.name or f"[{i}]", member) for i, member in enumerate(members))


def _add(graph: nx.DiGraph[str], sig: AnySig, path: str) -> None:
    graph.add_node(path, sig=sig)
    members = members_of(sig)
    paths = [child_path(path, segment) for segment, _ in members]
    for child, (_, member) in zip(paths, members, strict=True):
        _add(graph, member, child)
    if isinstance(sig, ChainSig):
        graph.add_edges_from(pairwise(paths), kinds={"data"})
    elif isinstance(sig, ChordSig):
        graph.add_edges_from(((source, paths[-1]) for source in paths[:-1]), kinds={"data"})
    elif isinstance(sig, StepsSig):
        _add_step_edges(graph, sig, path)


def _add_step_edges(graph: nx.DiGraph[str], sig: StepsSig[Any, Any], path: str) -> None:
    place = {step.name: child_path(path, step.name) for step in sig.steps if step.name}
    for step in sig.steps:
        target = place[step.name]
        for source, kind in dependencies(step):
            if source not in place:
                continue
            edge = (place[source], target)
            if graph.has_edge(*edge):
                graph.edges[edge]["kinds"].add(kind)
            else:
                graph.add_edge(*edge, kinds={kind})
    _refuse_cycles(graph.subgraph(place.values()))


def _refuse_cycles(graph: nx.DiGraph[str]) -> None:
    if not nx.is_directed_acyclic_graph(graph):
        edges = nx.find_cycle(graph)
        raise CycleError((*(edge[0] for edge in edges), edges[0][0]))


def dependencies(step: AnySig) -> Iterator[tuple[str, str]]:
    """(name of the step referred to, kind of edge), for `needs` and every expression in `step` and below it."""
    for need in step.needs:
        yield need, "order"
    for source, names in expressions(step):
        yield from step_references(source, names)


def step_references(source: Any, names: frozenset[str]) -> Iterator[tuple[str, str]]:
    """The steps that a tree with `${{ }}` (or a bare condition, marked by a tuple) refers to."""
    try:
        found = parse_condition(source[0], names) if isinstance(source, tuple) else parse_template(source, names)
    except ExpressionError:
        return
    for reference in found.references:
        if len(reference.path) > 1 and reference.path[0] == "steps":
            yield reference.path[1], "optional" if reference.optional else "data"


def expressions(step: AnySig, names: frozenset[str] = NAMES) -> Iterator[tuple[Any, frozenset[str]]]:
    """Every tree or (condition,) in `step` and below that is evaluated before or while it runs."""
    if step.when is not None:
        yield (step.when,), names
    if isinstance(step, TaskSig):
        if step.bind is not None:
            yield dict(step.bind), names
        if isinstance(step.options.get("unique_by"), str):
            yield step.options["unique_by"], names
    if isinstance(step, MapSig):
        if isinstance(step.items, str):
            yield (step.items,), names
        names = names | {step.var, step.index_var}
    for _, member in members_of(step):
        yield from expressions(member, names)


def reversed_edges(graph: nx.DiGraph[str], paths: Iterable[str]) -> Mapping[str, tuple[str, ...]]:
    """For each of `paths`, those that come after it (directly or through others) and so are undone before it."""
    wanted = set(paths)
    return {path: tuple(sorted(nx.descendants(graph, path) & wanted)) for path in wanted}
