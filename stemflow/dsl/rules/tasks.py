"""SF3 and SF4: calls of tasks, by their names and by the types of their parameters."""

from __future__ import annotations

import re
from collections.abc import Iterator

from stemflow.dsl.findings import describe, did_you_mean
from stemflow.dsl.rules.registry import Found, rule
from stemflow.dsl.rules.types import may_fit, of_schema
from stemflow.dsl.rules.values import task_defaults
from stemflow.dsl.rules.view import Step, View
from stemflow.dsl.task_defaults import fits

_NAME = re.compile(r"[^\s\x00-\x1f\x7f]{1,200}")


def calls(view: View) -> Iterator[Step]:
    """Every call: steps of kind task, and compensations."""
    for step in view.steps.values():
        if step.kind == "task":
            yield step
    yield from view.undos.values()


@rule("SF306")
def argument_of_another_type(view: View) -> Iterator[Found]:
    """An expression whose value the parameter never accepts."""
    if view.tasks is None:
        return
    read = {id(one.node) for one in view.reads}
    for call in calls(view):
        task = call.node.text("task")
        for name, value in call.node.entries("args").items():
            if task is None or id(value) not in read:
                continue
            schema = view.tasks.parameter_schema(task, name)
            found = view.type_of(value)
            wanted = None if schema is None else of_schema(schema)
            if wanted is not None and not may_fit(found, wanted):
                yield Found(
                    f"args.{name}: `{task}` expects {wanted.words()}, and this gives {found.words()}", value.place
                )


@rule("SF403")
def impossible_names(view: View) -> Iterator[Found]:
    """A task name that no task can have."""
    for call in calls(view):
        node = call.node.get("task")
        if (
            node is not None
            and isinstance(node.value, str)
            and "${{" not in node.value
            and not _NAME.fullmatch(node.value)
        ):
            yield Found(
                f"task: expected a name of 1 to 200 visible characters without spaces, got {describe(node.value)}",
                node.place,
                "write the name that the task was registered with",
            )


@rule("SF405", "warning")
def retried_and_not_retried(view: View) -> Iterator[Found]:
    """A class in both `retry_on` and `never_retry_on`."""
    owners = [call.node for call in calls(view)]
    defaults = task_defaults(view)
    for node in owners if defaults is None else [*owners, defaults]:
        retry = node.get("retry")
        for one in [] if retry is None else retry.items or [retry]:
            never, wanted = one.get("never_retry_on"), one.get("retry_on")
            names = set() if never is None else {item.value for item in never.items if not item.flawed}
            for item in [] if wanted is None else wanted.items:
                if not item.flawed and item.value in names:
                    yield Found(
                        f"retry_on: `{item.value}` is in never_retry_on too, which wins",
                        item.place,
                        "take it out of one of the two",
                    )


@rule("SF406", "warning")
def undone_by_itself(view: View) -> Iterator[Found]:
    """A compensation that calls the task that it undoes."""
    for path, undo in view.undos.items():
        step = view.steps.get(path.removesuffix("!compensate"))
        task = undo.node.get("task")
        same = step is not None and task is not None and task.value == step.node.value.get("task")
        if (
            step is not None
            and task is not None
            and same
            and undo.node.value.get("args") == step.node.value.get("args")
        ):
            yield Found(
                f"compensate: `{task.value}` with the same arguments does the step again instead of undoing it",
                task.place,
                "name the task that undoes it",
            )


@rule("SF709", "warning")
def defaults_without_calls(view: View) -> Iterator[Found]:
    """Defaults for a task that no step calls."""
    called = [call.node.text("task") or "" for call in calls(view)]
    defaults = view.root.get("defaults")
    tasks = None if defaults is None or not view.whole else defaults.get("tasks")
    for pattern in () if tasks is None else tasks.members:
        assert tasks is not None
        if not any(fits(pattern, task) for task in called):
            hint = "write PREFIX.*" if pattern.endswith("*") else did_you_mean(pattern, called, "called")
            yield Found(f"defaults.tasks: no step calls a task named `{pattern}`", tasks.keys[pattern], hint)
