"""Workflow -> text of a workflow file. The file, once read, has the plan of the workflow that it was written from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from msgspec import structs

from stemflow.dsl.export_canvas import bound
from stemflow.dsl.export_options import CannotExport, Document, concurrency_document, options_document
from stemflow.dsl.export_steps import OF_CALLEE, step_document
from stemflow.dsl.export_text import dump
from stemflow.dsl.layout import formatted
from stemflow.dsl.parse import parse_workflow
from stemflow.model.exported import KnownTasks
from stemflow.model.policy import normalise
from stemflow.model.signature import (
    HOOKS,
    AnySig,
    ChainSig,
    ChordSig,
    GroupSig,
    Signature,
    StepsSig,
    TaskSig,
    WorkflowSig,
)
from stemflow.model.workflow import Workflow
from stemflow.units import format_duration


def to_yaml(
    source: Workflow | Signature[Any, Any], registry: KnownTasks | None = None, *, name: str | None = None
) -> str:
    """The text of a workflow file that has the same plan as `source`, as its own method `to_yaml` gives it.

    Args:
        source: A workflow or a canvas.
        registry: Has the tasks whose arguments are given by position or by the step before.
        name: Of the workflow; the default is its own name, or `workflow` for a canvas.

    Raises:
        CannotExport: A workflow file cannot hold a part of it.
    """

    def names(task: str) -> tuple[str, ...] | None:
        known = None if registry is None else registry.get(task)
        return None if known is None else known.params

    body: Any = source.body if isinstance(source, Workflow) else source
    workflow = source if isinstance(source, Workflow) else Workflow(name="workflow", body=body)
    workflow = structs.replace(workflow, name=name or workflow.name, body=_body(bound(body, names)))
    return _checked_text(workflow)


def _checked_text(workflow: Workflow) -> str:
    """The text, once it has been read again and compared."""
    text = formatted(dump(document(workflow)))
    parsed = parse_workflow(text, workflow.name)
    if parsed.workflow is None:
        raise CannotExport(f"{workflow.name}: expected a workflow that a file can hold, got one in which "
                           f"{parsed.diagnostics[0].message}")  # fmt: skip
    difference = next(_differences(_comparable(workflow), _comparable(parsed.workflow), ""), None)
    if difference is not None:
        raise CannotExport(f"{workflow.name}: {difference}: expected what a workflow file can hold, got something else")
    return text


def document(workflow: Workflow) -> Document:
    """The document of the file, before it is text."""
    inner = step_document(workflow.body, "")
    found: Document = {"stemflow": "1", "name": workflow.name}
    given = {
        "version": workflow.version, "description": workflow.description, "labels": dict(workflow.labels),
        "inputs": dict(workflow.inputs), "vars": dict(workflow.vars),
    }  # fmt: skip
    found.update((key, value) for key, value in given.items() if value not in (None, {}))
    if workflow.schedules:
        found["on"] = _starts(workflow)
    if workflow.secrets:
        found["secrets"] = {name: {one.provider: one.key} for name, one in workflow.secrets.items()}
    if workflow.task_defaults:
        found["defaults"] = {"task": options_document(workflow.task_defaults, "defaults.task")}
    if workflow.unique_key is not None:
        found["unique"] = {"key": workflow.unique_key}
        if workflow.unique_for_ms is not None:
            found["unique"]["for"] = format_duration(workflow.unique_for_ms)
        found["unique"]["on_conflict"] = workflow.unique_mode
    if workflow.concurrency is not None:
        found["concurrency"] = concurrency_document(workflow.concurrency)
    if workflow.timeout_ms is not None:
        found["timeout"] = format_duration(workflow.timeout_ms)
    hooks = {key: inner.pop(f"on_{key}", {}) for key in ("success", "failure", "cancel")}
    inner.pop("outputs", None)
    found.update(inner)
    if workflow.outputs is not None:
        found["outputs"] = dict(workflow.outputs)
    for key, state in (("success", ""), ("failure", "failed"), ("cancel", "cancelled")):
        hook = {**hooks[key], **({"compensate": True} if state in workflow.compensate_on else {})}
        if hook:
            found[f"on_{key}"] = hook
    return found


def _starts(workflow: Workflow) -> Document:
    """What starts runs. That which an event starts is a schedule with the name of the workflow."""
    found: Document = {}
    for name, one in workflow.schedules.items():
        if "event" in one:
            found["event"] = {("type" if key == "event" else key): value for key, value in one.items()}
        else:
            found.setdefault("schedule", {})[name] = dict(one)
    return found


def _body(sig: AnySig) -> AnySig:
    """The body as the top of a file holds it: a chain, group, chord or graph that has nothing but hooks of the run, a
    catch and a cleanup. Anything else becomes the one step of a chain."""
    sig = structs.replace(sig, name=None)
    own = _OWN.get(type(sig))
    if own is not None:
        plain = type(sig)(**{field: getattr(sig, field) for field in own})
        if plain == structs.replace(sig, **dict.fromkeys((*HOOKS, "catches", "catch_on"), ()), cleanup=None, at=None):
            return sig
    hooks = {field: getattr(sig, field) for field in HOOKS} if not sig.MEMBERS else {}
    return ChainSig(steps=(structs.replace(sig, **dict.fromkeys(hooks, ())),), **hooks)


_OWN: Mapping[type, tuple[str, ...]] = {
    StepsSig: ("steps", "outputs", "fail_fast"),
    ChainSig: ("steps",),
    GroupSig: ("members",),
    ChordSig: ("header", "body"),
}
"""The kinds that the top of a file may have, and what is said of them there."""


# -- comparison


def _comparable(workflow: Workflow) -> Any:
    """The workflow without places, with normalised options."""
    body = workflow.body
    fields = {field: getattr(workflow, field) for field in workflow.__struct_fields__ if field != "body"}
    fields["task_defaults"] = normalise(workflow.task_defaults, "defaults.task")
    if isinstance(body, StepsSig):
        body = structs.replace(body, outputs=workflow.outputs)
    return {**fields, "body": _plain(body)}


def _plain(value: Any) -> Any:
    if isinstance(value, Signature):
        left_out = ("at", "decode", "declared", *(OF_CALLEE if isinstance(value, WorkflowSig) else ()))
        names = (one for one in value.__struct_fields__ if one not in left_out)
        fields = {one: getattr(value, one) for one in names}
        if isinstance(value, TaskSig):
            fields["options"] = normalise(value.options, value.task)
        return {"": type(value).__name__, **{key: _plain(one) for key, one in fields.items()}}
    if isinstance(value, Mapping):
        return {key: _plain(one) for key, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, (list, tuple)) else value


def _differences(a: Any, b: Any, where: str) -> Iterator[str]:
    a, b = _plain(a), _plain(b)
    if isinstance(a, dict) and isinstance(b, dict):
        for key in {**a, **b}:
            yield from _differences(a.get(key), b.get(key), f"{where}.{key}".strip("."))
    elif isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        for i, (one, other) in enumerate(zip(a, b, strict=True)):
            yield from _differences(one, other, f"{where}[{i}]")
    elif a != b and not (a in ([], {}, None) and b in ([], {}, None)):
        yield where
