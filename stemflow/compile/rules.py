"""The rules that a workflow's graph must keep; each finding has a code, a place and a next step."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterator
from typing import Any, TypeGuard

from stemflow.compile.arguments import Locate, TypedTasks, wrong_arguments
from stemflow.compile.edges import NAMES, CycleError, check_cycles, dependencies
from stemflow.expr import ExpressionError, parse_template
from stemflow.model.diagnostic import Diagnostic
from stemflow.model.policy import Concurrency
from stemflow.model.records import child_path
from stemflow.model.signature import AnySig, StepsSig, TaskSig, Workflow
from stemflow.model.tree import members_of, walk


def check(workflow: Workflow, locate: Locate, known_tasks: Collection[str] | None) -> list[Diagnostic]:
    """Every finding of the graph and task rules; `known_tasks` None means that no registry was named.

    Where it knows parameters too, as a registry does, literal arguments are checked.
    """
    found = [*_references(workflow.body, "", locate, frozenset())]
    around = () if workflow.concurrency is None else ((workflow.concurrency.key, "the workflow"),)
    found += _self_deadlocks(workflow.body, "", locate, around)
    if known_tasks is not None:
        found += _unknown_tasks(workflow.body, locate, known_tasks)
    if isinstance(known_tasks, TypedTasks):
        found += wrong_arguments(workflow.body, locate, known_tasks, workflow.task_defaults)
    try:
        check_cycles(workflow.body)
    except CycleError as cycle:
        text = f"steps wait for each other: {' -> '.join(cycle.path)}"
        found.append(_at(locate, cycle.path[0], "needs", "SF102", text, "take one of these edges out"))
    return found


def _at(locate: Locate, path: str, key: str | None, code: str, message: str, hint: str | None) -> Diagnostic:
    line, column, end = locate(path, key)
    return Diagnostic(code, message, line, column, end, hint)


def did_you_mean(word: str, known: Collection[str], what: str) -> str | None:
    """A hint that names the nearest known word, or the known ones where they are few."""
    near = difflib.get_close_matches(word, list(known), 1, 0.6)
    if near:
        return f"did you mean `{near[0]}`?"
    return f"{what}: {', '.join(sorted(known))}" if 0 < len(known) <= 12 else None


def _references(sig: AnySig, path: str, locate: Locate, around: frozenset[str]) -> Iterator[Diagnostic]:
    """Findings about references; `around`: the steps of the graphs around `sig`, which it may read."""
    if isinstance(sig, StepsSig):
        names = frozenset(step.name for step in sig.steps if step.name)
        for step in sig.steps:
            place = child_path(path, step.name or "")
            yield from _of_step(step, place, locate, names, around)
            if step.name in around:
                text = f"`{place}` hides the step `{step.name}` of the graph around it from what reads `steps` here"
                yield Diagnostic("SF110", text, *locate(place, None), hint="give one of them another name",
                                 severity="warning")  # fmt: skip
        if sig.outputs is not None:
            yield from _outputs(sig, path, names | around, locate)
        around = around | names
    for segment, member in members_of(sig):
        yield from _references(member, child_path(path, segment), locate, around)


def _of_step(
    step: AnySig, place: str, locate: Locate, names: frozenset[str], around: frozenset[str]
) -> Iterator[Diagnostic]:
    for source, kind in dict.fromkeys(dependencies(step)):
        if source == step.name:
            yield _at(locate, place, "needs" if kind == "order" else None, "SF102",
                      f"step `{source}` waits for itself", "take this edge out")  # fmt: skip
        elif source not in (names if kind == "order" else names | around):
            yield _unknown_step(locate, place, source, kind, names | around)


def _unknown_step(locate: Locate, place: str, source: str, kind: str, names: Collection[str]) -> Diagnostic:
    hint = did_you_mean(source, names, "steps here")
    if kind == "order":
        return _at(locate, place, "needs", "SF101", f"needs: there is no step `{source}`", hint)
    return _at(locate, place, f"ref:{source}", "SF104", f"`steps.{source}`: there is no step `{source}`", hint)


def _outputs(sig: StepsSig[Any, Any], path: str, names: Collection[str], locate: Locate) -> Iterator[Diagnostic]:
    from_outputs = TaskSig[Any, Any](task="", bind=dict(sig.outputs or {}))
    for source, _ in dict.fromkeys(dependencies(from_outputs)):
        if source not in names:
            key = f"ref:{source}" if path else f"outputs:{source}"
            yield _at(locate, path, key, "SF104", f"outputs: there is no step `{source}`",
                      did_you_mean(source, names, "steps here"))  # fmt: skip


def _unknown_tasks(body: AnySig, locate: Locate, known: Collection[str]) -> Iterator[Diagnostic]:
    calls = ((path, sig) for path, sig in walk(body) if isinstance(sig, TaskSig))
    for path, sig in calls:
        for task, key in ((sig, "task"), (sig.compensate, "compensate")):
            if task is not None and task.task not in known:
                yield _at(locate, path, key, "SF401", f"no task is registered as `{task.task}`",
                          did_you_mean(task.task, known, "registered tasks"))  # fmt: skip


def _self_deadlocks(
    sig: AnySig, path: str, locate: Locate, around: tuple[tuple[str, str], ...]
) -> Iterator[Diagnostic]:
    """Steps whose concurrency key is held by what is around them: (key, who holds it) of all that is."""
    limited = Concurrency.of(sig.options["concurrency"]) if _has_key(sig) else sig.concurrency
    if limited is not None:
        for key, holder in around:
            if key == limited.key and _same_everywhere(key):
                yield _at(locate, path, "concurrency.key", "SF504",
                          f"concurrency.key: `{key}` is held by {holder} around this step, which waits for it for ever",
                          "give this step another key, or take one of them out")  # fmt: skip
        around = (*around, (limited.key, f"`{path}`"))
    for segment, member in members_of(sig):
        yield from _self_deadlocks(member, child_path(path, segment), locate, around)


def _has_key(sig: AnySig) -> TypeGuard[TaskSig[Any, Any]]:
    return isinstance(sig, TaskSig) and sig.options.get("concurrency") is not None


def _same_everywhere(key: str) -> bool:
    """Whether the key has one value in the whole run."""
    try:
        references = parse_template(key, NAMES | {"args"}).references
    except ExpressionError:
        return False
    return all(reference.path[0] in ("inputs", "vars", "run") for reference in references)
