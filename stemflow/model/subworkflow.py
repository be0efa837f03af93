"""Sub-workflows: the body of another workflow in the place of the step that calls it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from msgspec import convert, json, structs, to_builtins

from stemflow.model.policy import RetryPolicy
from stemflow.model.signature import AnySig, TaskSig, WorkflowSig
from stemflow.model.tree import changed
from stemflow.model.workflow import Workflow

START_RUN: Final = "stemflow.start"
"""The task that starts the run of a sub-workflow that is not waited for."""


def body_of(flow: Workflow) -> AnySig:
    """The body of a workflow, with the timeout and the concurrency key that the workflow has."""
    body = flow.body if flow.timeout_ms is None else structs.replace(flow.body, timeout_ms=flow.timeout_ms)
    return body if flow.concurrency is None else structs.replace(body, concurrency=flow.concurrency)


def with_workflow(sig: WorkflowSig[Any, Any], flow: Workflow) -> WorkflowSig[Any, Any]:
    """The step with the workflow that it calls."""
    if not sig.wait:
        start: TaskSig[Any, Any] = TaskSig(task=START_RUN, kwargs={"workflow": text_of(flow)}, declared=True)
        return structs.replace(sig, body=start, form=flow.inputs)
    body: Any = _with_file_defaults(structs.replace(body_of(flow), name=None), dict(flow.task_defaults))
    return structs.replace(
        sig, body=body, form=flow.inputs, vars=flow.vars, outputs=flow.outputs, compensate_on=flow.compensate_on
    )


def linked(sig: Any, find: Callable[[str], Workflow | None]) -> Any:
    """The same tree with the workflows that its steps call; `find` gives the one that a step names, if there is one."""
    new = changed(sig, lambda child: linked(child, find))
    if isinstance(new, WorkflowSig) and new.body is None and (flow := find(new.ref)) is not None:
        return with_workflow(new, flow)
    return new


_POLICY = "retry policy"
"""The key under which `text_of` writes a policy, which has other fields than what users write for one."""


def text_of(flow: Workflow) -> str:
    """A workflow as JSON, from which `workflow_of` makes it again."""

    def written(value: Any) -> Any:
        return {_POLICY: to_builtins(value)} if isinstance(value, RetryPolicy) else value

    return json.encode(_with_options(flow, written)).decode()


def workflow_of(text: str) -> Workflow:
    """The workflow that `text_of` wrote."""

    def read(value: Any) -> Any:
        known = isinstance(value, dict) and value.keys() == {_POLICY}
        return convert(value[_POLICY], RetryPolicy) if known else value

    return _with_options(json.decode(text, type=Workflow), read)


def _with_options(flow: Workflow, change: Callable[[Any], Any]) -> Workflow:
    """The workflow with `change` applied to each option of its tasks."""

    def options(given: Mapping[str, Any]) -> dict[str, Any]:
        return {name: change(value) for name, value in given.items()}

    def inside(sig: Any) -> Any:
        new = changed(sig, inside)
        if not isinstance(new, TaskSig):
            return new
        defaults = new.file_defaults
        return structs.replace(
            new, options=options(new.options), file_defaults=None if defaults is None else options(defaults)
        )

    return structs.replace(flow, body=inside(flow.body), task_defaults=options(flow.task_defaults))


def _with_file_defaults(sig: Any, defaults: dict[str, Any]) -> Any:
    """The tree whose tasks take the defaults of its own file; those of workflows inside it have theirs already."""
    new = changed(sig, lambda child: _with_file_defaults(child, defaults))
    if isinstance(new, TaskSig) and new.file_defaults is None:
        return structs.replace(new, file_defaults=defaults)
    return new
