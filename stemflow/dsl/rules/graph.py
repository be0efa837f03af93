"""SF1: the graph that `needs` and references make."""

from __future__ import annotations

import re
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter

from stemflow.dsl.findings import did_you_mean
from stemflow.dsl.rules.registry import Found, rule
from stemflow.dsl.rules.view import Edge, Step, View
from stemflow.model.records import child_path, parent_path

_DASHED = re.compile(r"-[A-Za-z_]")
"""What follows `steps.my` in `steps.my-step`, which reads as a subtraction and is reported as such."""
MOST_CYCLES = 50
"""Cycles that are reported for one graph."""


@rule("SF101")
def unknown_needs(view: View) -> Iterator[Found]:
    """`needs` names a step that does not exist."""
    for step in view.having("needs"):
        needs = step.node.get("needs") if step.path else None
        siblings = None if step.context is None else step.context.siblings
        if needs is None or siblings is None:
            continue
        for item in needs.items:
            if not item.flawed and item.value not in siblings:
                hint = did_you_mean(item.value, view.names_at(step.path), "steps here")
                yield Found(f"needs: there is no step `{item.value}`", item.place, hint)


@rule("SF104")
def unknown_references(view: View) -> Iterator[Found]:
    """An expression refers to a step that does not exist."""
    inner = _inner_names(view)
    for read in view.reads:
        for one in read.references:
            if one.path[0] != "steps" or len(one.path) < 2 or "steps" not in read.names:
                continue
            name = one.path[1]
            dashed = _DASHED.match(read.node.value, one.end)
            if view.owner(read.path, name) is None and name not in inner and not dashed:
                place = view.at(read, one.column, one.end)
                hint = did_you_mean(name, view.names_at(read.path), "steps here")
                yield Found(f"`steps.{name}`: there is no step `{name}`", place, hint)


@rule("SF109")
def inner_references(view: View) -> Iterator[Found]:
    """An expression refers to a step inside a composite as if it were in the same graph."""
    inner = _inner_names(view)
    for read in view.reads:
        for one in read.references:
            if one.path[0] != "steps" or len(one.path) < 2 or "steps" not in read.names:
                continue
            name = one.path[1]
            if name in inner and view.owner(read.path, name) is None:
                outer = parent_path(inner[name])
                yield Found(
                    f"`steps.{name}`: `{name}` is inside `{outer}` and cannot be read from here",
                    view.at(read, one.column, one.end),
                    f"read steps.{outer}.output",
                )


def _inner_names(view: View) -> dict[str, str]:
    """Name -> path of the steps inside others that have a name."""
    found: dict[str, str] = {}
    for path, step in view.steps.items():
        if step.context is not None and step.context.name is not None and step.context.depth > 1:
            found.setdefault(step.context.name, path)
    return found


@rule("SF103")
def waits_for_itself(view: View) -> Iterator[Found]:
    """A step waits for itself, or for the composite that holds it."""
    for edge in view.edges:
        if edge.source == edge.target:
            yield Found(f"step `{edge.target}` waits for itself", edge.place, "take this edge out")


@rule("SF102")
def cycles(view: View) -> Iterator[Found]:
    """Steps wait for each other."""
    within: dict[str, list[Edge]] = {}
    for edge in view.edges:
        if edge.source != edge.target:
            within.setdefault(parent_path(edge.target), []).append(edge)
    for scope, names in view.graphs.items():
        order = {path: i for i, path in enumerate(view.children.get(scope, ()))}
        places: dict[tuple[str, str], Edge] = {}
        waits: dict[str, set[str]] = {child_path(scope, name): set() for name in sorted(names)}
        for edge in within.get(scope, ()):
            if edge.target in waits and edge.source in waits:
                waits[edge.target].add(edge.source)
                places.setdefault((edge.target, edge.source), edge)
        for cycle in _cycles(waits):
            first = min(range(len(cycle)), key=lambda i: order.get(cycle[i], 0))
            turned = [*cycle[first:], *cycle[:first], cycle[first]]
            shown = " -> ".join(path[len(scope) :].lstrip(".") for path in turned)
            yield Found(
                f"steps wait for each other: {shown}", places[turned[0], turned[1]].place, "take one of these edges out"
            )


def _cycles(waits: dict[str, set[str]]) -> Iterator[list[str]]:
    """One cycle of each knot, each step followed by one that it waits for."""
    for _ in range(MOST_CYCLES):
        try:
            TopologicalSorter(waits).prepare()
            return
        except CycleError as found:
            cycle = list(reversed(found.args[1]))[:-1]
        yield cycle
        for path in cycle:
            waits[path] -= set(cycle)


@rule("SF106")
def run_on_without_effect(view: View) -> Iterator[Found]:
    """`run_on` on a step that is not a step of a graph."""
    for step in view.having("run_on"):
        if step.path and not _in_graph(step):
            inside = view.steps.get(parent_path(step.path))
            kind = "composite" if inside is None or inside.kind is None else inside.kind
            yield Found(
                f"run_on has no effect on a step of a {kind}",
                step.node.keys["run_on"],
                "put it on a step of `steps`, which waits for others by `needs` or a reference",
            )


@rule("SF107")
def run_on_after_nothing(view: View) -> Iterator[Found]:
    """`run_on` on a step that waits for nothing."""
    waiting = {edge.target for edge in view.edges}
    broken = {step.path for step in view.having("needs")}
    for step in view.having("run_on"):
        node = step.node.get("run_on") if step.path else None
        if node is None or node.value == "success" or not _in_graph(step):
            continue
        if step.path not in waiting and step.path not in broken:
            yield Found(
                f"run_on: {node.value}: no step comes before `{step.context.name if step.context else ''}`, "
                "so it would run at the start",
                node.place,
                "name the steps to wait for in `needs`",
            )


def _in_graph(step: Step) -> bool:
    return step.context is not None and step.context.siblings is not None


@rule("SF110", "warning")
def hidden_steps(view: View) -> Iterator[Found]:
    """A step of an inner graph with the name of a step around it."""
    for scope, names in view.graphs.items():
        above = scope
        while above:
            above = parent_path(above)
            for name in sorted(names & view.graphs.get(above, frozenset())):
                step = view.steps.get(child_path(scope, name))
                if step is not None:
                    text = f"`{step.path}` hides the step `{name}` of the graph around it from what reads `steps` here"
                    yield Found(text, step.place, "give one of them another name")
