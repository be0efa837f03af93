"""SF310: test cases name what their workflow has."""

from __future__ import annotations

from collections.abc import Iterator

from stemflow.dsl.cases import Known, unknown_names
from stemflow.dsl.rules.registry import Found, rule
from stemflow.dsl.rules.tasks import calls
from stemflow.dsl.rules.view import View


def known_to_cases(view: View) -> Known:
    """The names of a workflow that its test cases may use."""
    whole = view.whole
    outputs = view.root.get("outputs")
    named = None if outputs is None or not isinstance(outputs.value, dict) else set(outputs.value)
    return Known(
        {path for path in view.steps if path} if whole else None,
        {one.node.value["task"] for one in calls(view)} if whole else None,
        set(view.inputs) if whole else None,
        named if whole else None,
    )


@rule("SF310")
def cases_name_what_exists(view: View) -> Iterator[Found]:
    """A step, task, input or output in `tests` that the workflow does not have."""
    for message, place, hint in unknown_names(view.root.get("tests"), known_to_cases(view)):
        yield Found(message, place, hint)
