"""SF310: test cases name what their workflow has."""

from __future__ import annotations

from collections.abc import Iterator

from stemflow.dsl.cases import Known, unknown_names
from stemflow.dsl.rules.registry import Found, rule
from stemflow.dsl.rules.tasks import calls
from stemflow.dsl.rules.view import View
from stemflow.model.records import child_path


def known_to_cases(view: View) -> Known:
    """The names of a workflow that its test cases may use."""
    whole = view.whole
    steps, tasks = _called(view) if whole else (None, None)
    outputs = view.root.get("outputs")
    named = None if outputs is None or not isinstance(outputs.value, dict) else set(outputs.value)
    return Known(
        steps,
        tasks,
        set(view.inputs) if whole else None,
        named if whole else None,
    )


def _called(view: View) -> tuple[set[str] | None, set[str] | None]:
    """Steps and tasks of the file and of the workflows that belong to its runs; None if one of those is not known."""
    steps, tasks = {path for path in view.steps if path}, {one.node.value["task"] for one in calls(view)}
    for step, _, _ in view.refs():
        if step.body is not None and (wait := step.body.get("wait")) is not None and wait.value is False:
            continue  # a run of its own, which no worker serves in a case
        callee = view.callee(step)
        if callee is None:
            return None, None
        steps |= {child_path(child_path(step.path, "body"), path) for path in callee.steps}
        tasks |= set(callee.tasks)
    return steps, tasks


@rule("SF310")
def cases_name_what_exists(view: View) -> Iterator[Found]:
    """A step, task, input or output in `tests` that the workflow does not have."""
    for message, place, hint in unknown_names(view.root.get("tests"), known_to_cases(view)):
        yield Found(message, place, hint)
