"""A signature as a networkx DiGraph: one node per path, one edge per dependency.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from stemflow.compile.desugar import desugared_follow_ups
from stemflow.compile.edges import NAMES, check_cycles, dependencies, names_below
from stemflow.lazy_import import LazyModule
from stemflow.model.records import child_path
from stemflow.model.signature import AnySig, ChainSig, ChordSig, StepsSig, TaskSig
from stemflow.model.tree import members_of

if TYPE_CHECKING:
    import networkx as nx
else:
    nx = LazyModule("networkx")  # a tenth of a second, which only compiling has to pay


def graph_of(sig: AnySig) -> nx.DiGraph[str]:
    """Expand a (desugared) signature; raises CycleError. Node attributes: `sig`; edge attribute: `kinds`, a set."""
    check_cycles(sig)
    graph: nx.DiGraph[str] = nx.DiGraph()
    _add(graph, sig, "", NAMES)
    return graph


def _add(graph: nx.DiGraph[str], sig: AnySig, path: str, names: frozenset[str]) -> None:
    graph.add_node(path, sig=sig)
    members = members_of(sig)
    paths = [child_path(path, segment) for segment, _ in members]
    for child, (_, member) in zip(paths, members, strict=True):
        if isinstance(member, TaskSig):
            graph.add_node(child, sig=member)
        else:
            _add(graph, member, child, names_below(sig, names))
    if isinstance(sig, ChainSig):
        graph.add_edges_from(pairwise(paths), kinds={"data"})
    elif isinstance(sig, ChordSig):
        graph.add_edges_from(((source, paths[-1]) for source in paths[:-1]), kinds={"data"})
    elif isinstance(sig, StepsSig):
        _add_step_edges(graph, sig, path, names)
    for segment, follow_up in desugared_follow_ups(sig):
        _add(graph, follow_up, path + segment, names)


def _add_step_edges(graph: nx.DiGraph[str], sig: StepsSig[Any, Any], path: str, names: frozenset[str]) -> None:
    place = {step.name: child_path(path, step.name) for step in sig.steps if step.name}
    for step in sig.steps:
        target = place[step.name]
        for source, kind in dependencies(step, names):
            if source not in place:
                continue
            edge = (place[source], target)
            if graph.has_edge(*edge):
                graph.edges[edge]["kinds"].add(kind)
            else:
                graph.add_edge(*edge, kinds={kind})


def reversed_edges(graph: nx.DiGraph[str], paths: Iterable[str]) -> Mapping[str, tuple[str, ...]]:
    """For each of `paths`, those that come after it (directly or through others) and so are undone before it."""
    wanted = set(paths)
    return {
        path: tuple(sorted(nx.descendants(graph, path) & wanted)) if path in graph else () for path in wanted
    }  # fmt: skip
