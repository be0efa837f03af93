"""The rules over a built workflow: unknown tasks, arguments, keys that a step waits for forever."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any, TypeGuard

from stemflow.compile.arguments import Locate, TypedTasks, wrong_arguments
from stemflow.compile.edges import NAMES
from stemflow.expr import ExpressionError, parse_template
from stemflow.model.diagnostic import Diagnostic
from stemflow.model.policy import Concurrency
from stemflow.model.records import child_path
from stemflow.model.signature import AnySig, TaskSig
from stemflow.model.suggest import nearest
from stemflow.model.tree import below_of, walk_all
from stemflow.model.workflow import Workflow


def check(workflow: Workflow, locate: Locate, known_tasks: Collection[str] | None) -> list[Diagnostic]:
    """The findings about a workflow as it was built; `known_tasks` None means that no registry was named.

    Where it knows parameters too, as a registry does, literal arguments are checked.
    """
    around = () if workflow.concurrency is None else ((workflow.concurrency.key, "the workflow"),)
    found = [*_self_deadlocks(workflow.body, "", locate, around)]
    if known_tasks is not None:
        found += _unknown_tasks(workflow.body, locate, known_tasks)
    if isinstance(known_tasks, TypedTasks):
        found += wrong_arguments(workflow.body, locate, known_tasks, workflow.task_defaults)
    return found


def _at(locate: Locate, path: str, key: str | None, code: str, message: str, hint: str | None) -> Diagnostic:
    line, column, end = locate(path, key)
    return Diagnostic(code, message, line, column, end, hint)


def did_you_mean(word: str, known: Collection[str], what: str) -> str | None:
    """A hint that names the nearest known word, or the known ones where they are few."""
    near = nearest(word, known)
    if near is not None:
        return f"did you mean `{near}`?"
    return f"{what}: {', '.join(sorted(known))}" if 0 < len(known) <= 12 else None


def _unknown_tasks(body: AnySig, locate: Locate, known: Collection[str]) -> Iterator[Diagnostic]:
    for path, sig in walk_all(body):
        for task, key in ((sig, "task"), (sig.compensate, "compensate")):
            if isinstance(task, TaskSig) and task.task not in known and len(task.task.split()) == 1:
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
                          f"concurrency.key: `{key}` is held by {holder} around this step, which waits for it forever",
                          "give this step another key, or take one of them out")  # fmt: skip
        around = (*around, (limited.key, f"`{path}`"))
    for segment, member in below_of(sig):
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
