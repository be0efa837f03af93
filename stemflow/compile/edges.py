"""The edges of a signature: the steps that expressions refer to, and whether they form a cycle."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from graphlib import CycleError as Circle
from graphlib import TopologicalSorter
from typing import Any, assert_never

from stemflow.errors import OptionError, StemflowError
from stemflow.expr import ExpressionError, parse_condition, parse_template
from stemflow.model.policy import Concurrency
from stemflow.model.rates import rates_of
from stemflow.model.records import child_path
from stemflow.model.signature import (
    AnySig,
    ApprovalSig,
    ChainSig,
    ChordSig,
    EmitSig,
    EventSig,
    FailSig,
    GroupSig,
    LoopSig,
    MapSig,
    SetSig,
    StepsSig,
    SwitchSig,
    TaskSig,
    WaitSig,
    WorkflowSig,
)
from stemflow.model.tree import below_of, follow_ups_of, members_of

NAMES = frozenset({"inputs", "vars", "steps", "prev", "results", "item", "index", "run", "env", "self", "error",
                   "carry", "secrets"})  # fmt: skip
"""Every name that an expression may use somewhere; the `as` names of maps are added where they hold."""


class CycleError(StemflowError):
    """The steps of a workflow depend on each other in a cycle; `path` names them in order, the first again at the
    end."""

    def __init__(self, path: tuple[str, ...]) -> None:
        self.path = path
        super().__init__(f"steps: expected no cycle, got {' -> '.join(path)}; take one of these edges out")


def check_names(sig: AnySig, path: str = "") -> None:
    """Raise OptionError for two members with the same name, and so the same path, and for a header member named
    `then`."""
    seen: set[str] = set()
    for segment, member in members_of(sig):
        if segment in seen:
            where = path or "the canvas"
            why = "that is the name of the body" if segment in sig.MEMBERS.values() else "two have it"
            raise OptionError(f"{where}: expected members of different names, got {segment!r}: {why}; rename one")
        seen.add(segment)
        if not isinstance(member, TaskSig):
            check_names(member, child_path(path, segment))
    for segment, follow_up in follow_ups_of(sig):
        check_names(follow_up, path + segment)


def names_below(sig: AnySig, names: frozenset[str]) -> frozenset[str]:
    """The names that expressions below `sig` may use, if it may use `names`."""
    return names | {sig.var, sig.index_var} if isinstance(sig, MapSig) else names


def dependencies(step: AnySig, names: frozenset[str] = NAMES) -> Iterator[tuple[str, str]]:
    """(name of the predecessor, kind of edge), from `needs` and from every expression in `step` and below it.

    `names`: those that `step` may use, which in a map are more than elsewhere. In a graph inside `step`, a name of one
    of its own steps hides the step of that name outside.
    """
    for need in step.needs:
        yield need, "order"
    for source, known, hidden in expressions(step, names):
        for name, kind in step_references(source, known):
            if name not in hidden:
                yield name, kind


def step_references(source: Any, names: frozenset[str]) -> Iterator[tuple[str, str]]:
    """The steps that a template, or a bare condition (marked by a tuple), refers to."""
    try:
        found = parse_condition(source[0], names) if isinstance(source, tuple) else parse_template(source, names)
    except ExpressionError:
        return
    for reference in found.references:
        if len(reference.path) > 1 and reference.path[0] == "steps":
            yield reference.path[1], "optional" if reference.optional else "data"


Scoped = tuple[Any, frozenset[str], frozenset[str]]
"""A tree or (condition,), the names that it may use, and the steps of the graphs inside that hide others."""


def expressions(
    step: AnySig, names: frozenset[str] = NAMES, hidden: frozenset[str] = frozenset()
) -> Iterator[Scoped]:
    """Every tree or (condition,) in `step` and below that is evaluated before or while it runs."""
    if step.when is not None:
        yield (step.when,), names, hidden
    if step.timeout is not None:
        yield step.timeout, names, hidden
    if not isinstance(step, TaskSig) and step.concurrency is not None:
        yield step.concurrency.key, names, hidden
    yield from ((tree, names | more, hidden) for tree, more in _own_expressions(step))
    names = names_below(step, names)
    if isinstance(step, StepsSig):
        hidden = hidden | {inner.name for inner in step.steps if inner.name}
        if step.outputs is not None:
            yield dict(step.outputs), names, hidden
    for on in step.catch_on:
        if on.when is not None:
            yield (on.when,), names, hidden
    # The steps of a sub-workflow see nothing of what is around it.
    for _, member in follow_ups_of(step) if isinstance(step, WorkflowSig) else below_of(step):
        yield from expressions(member, names, hidden)


def _own_expressions(step: AnySig) -> Iterator[tuple[Any, frozenset[str]]]:
    """The trees and conditions that belong to the kind of `step`, each with the names that it has besides."""
    none: frozenset[str] = frozenset()
    match step:
        case TaskSig():
            if step.bind is not None:
                yield dict(step.bind), none
            yield dict(step.env), none
            for key in _keys(step):
                yield key, frozenset({"args", "headers"})
        case WaitSig():
            yield [step.span, step.until], none
        case EventSig():
            yield step.limit, none
            if step.match is not None:
                yield (step.match,), frozenset({"event"})
        case EmitSig():
            yield [step.data, step.id], none
        case ApprovalSig():
            yield [step.message, step.limit], none
        case SetSig():
            yield dict(step.values), none
        case FailSig():
            yield [step.message, step.error_type, step.data], none
        case WorkflowSig():
            yield dict(step.given), none
        case SwitchSig():
            yield (step.on,), none
        case LoopSig():
            yield [step.carry, step.limit], none
            if step.on is not None:
                yield (step.on,), frozenset({"carry", "index"})
        case MapSig():
            yield [step.matrix, step.batch, step.window], none
            if isinstance(step.items, str) and step.matrix is None:
                yield (step.items,), none
        case ChainSig() | GroupSig() | ChordSig() | StepsSig():
            return
        case _:
            assert_never(step)


def _keys(task: TaskSig[Any, Any]) -> Iterator[str]:
    """The templates of a task's keys. A key made by a function was computed at submission."""
    limited, cache = task.options.get("concurrency"), task.options.get("cache")
    found = [task.options.get("unique_by"), task.options.get("group_rate_key")]
    found += [limited.key if isinstance(limited, Concurrency) else None]
    found += [cache.get("key") if isinstance(cache, Mapping) else None]
    found += [one.key for one in rates_of(task.options.get("rate_limit"))]
    for key in found:
        if isinstance(key, str):
            yield key


def refuse_cycles(edges: Mapping[str, Iterable[str]]) -> None:
    """Raise CycleError if the steps, each with its predecessors, cannot be put in order."""
    try:
        TopologicalSorter(edges).prepare()
    except Circle as circle:
        raise CycleError(tuple(circle.args[1])) from None


def check_cycles(sig: AnySig, path: str = "", names: frozenset[str] = NAMES) -> None:
    """Raise CycleError for the first cycle among the steps of `sig`, or of a composite in it."""
    members = members_of(sig)
    if isinstance(sig, StepsSig):
        place = {segment: child_path(path, segment) for segment, _ in members}
        refuse_cycles({
            place[name]: [place[s] for s, _ in dependencies(step, names) if s in place] for name, step in members
        })  # fmt: skip
    for segment, member in below_of(sig):
        if not isinstance(member, TaskSig):
            check_cycles(member, child_path(path, segment), names_below(sig, names))
