"""Workflow -> text of a workflow file. The file, once read, has the plan of the workflow that it was written from."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from msgspec import NODEFAULT, UNSET, structs

from stemflow.dsl.export_options import CannotExport, Document, concurrency_document, options_document, timeout_document
from stemflow.dsl.export_text import dump
from stemflow.dsl.layout import formatted
from stemflow.dsl.parse import parse_workflow
from stemflow.model.policy import normalise
from stemflow.model.records import child_path
from stemflow.model.signature import (
    EVENT_KEPT_MS,
    FAIL_TYPE,
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
    Signature,
    StepsSig,
    SwitchSig,
    TaskSig,
    WaitSig,
    WorkflowSig,
)
from stemflow.model.tree import changed, members_of
from stemflow.model.workflow import Workflow
from stemflow.units import format_duration

_OF_CALLEE = ("body", "form", "vars", "outputs", "compensate_on")
"""Fields of the step that calls a workflow which are said in the file of that workflow."""
_SKIPPED = frozenset({"at", "name", "decode", "declared", "needs"})


def to_yaml(workflow: Workflow) -> str:
    """The text of a workflow file that does the same as `workflow`.

    Tasks must have their arguments by name, as those of workflow files; `bound` gives a canvas these.
    Raises CannotExport.
    """
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
    body = workflow.body
    kind = _BODIES.get(type(body))
    if kind is None:
        body, kind = ChainSig(steps=(body,)), "chain"
    inner = _step(structs.replace(body, name=None), "")
    found: Document = {"stemflow": "1", "name": workflow.name}
    given = {
        "version": workflow.version, "description": workflow.description, "labels": dict(workflow.labels),
        "inputs": dict(workflow.inputs), "vars": dict(workflow.vars),
    }  # fmt: skip
    found.update((key, value) for key, value in given.items() if value not in (None, {}))
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


_BODIES: Mapping[type, str] = {StepsSig: "steps", ChainSig: "chain", GroupSig: "group", ChordSig: "chord"}


# -- steps


def _step(sig: AnySig, path: str) -> Document:
    """One step; every field that is set is written, or refused."""
    own = _KINDS.get(type(sig))
    if own is None:
        raise CannotExport(f"{path or 'the body'}: expected a kind that can be written, got {type(sig).__name__}")
    written: set[str] = set()
    found: Document = {}

    def take(field: str) -> Any:
        written.add(field)
        return getattr(sig, field)

    if (when := take("when")) is not None:
        found["when"] = when
    if sig.needs:
        found["needs"] = list(sig.needs)
    if labels := take("labels"):
        found["labels"] = dict(labels)
    for field in ("run_on", "on_error"):
        if (value := take(field)) != _default(sig, field):
            found[field] = value
    if hasattr(sig, "policy") and take("policy") != "fail_fast":
        found["on_member_error"] = sig.policy
    found.update(own(sig, path, take))
    if (returns := take("returns")) is not None:
        found["returns"] = dict(returns)
    found.update(timeout_document(take("timeout_ms"), take("timeout"), found))
    if (limited := take("concurrency")) is not None:
        found["concurrency"] = concurrency_document(limited)
    found.update(_follow_ups(sig, path, take))
    for one in structs.fields(type(sig)):
        value = getattr(sig, one.name)
        if one.name not in written | _SKIPPED and value != _default(sig, one.name):
            raise CannotExport(f"{path or 'the body'}: a workflow file cannot hold `{one.name}` of a step")
    return found


def _default(sig: Any, field: str) -> Any:
    found = next(one for one in structs.fields(type(sig)) if one.name == field)
    if found.default is not NODEFAULT:
        return found.default
    return found.default_factory() if callable(found.default_factory) else UNSET


def _follow_ups(sig: AnySig, path: str, take: Callable[[str], Any]) -> Document:
    """Catches and the cleanup; the hooks of the body become those of the run."""
    found: Document = {}
    catches = [
        {
            **({"on": list(on.types)} if on.types else {}),
            **({"when": on.when} if on.when is not None else {}),
            "do": _step(body, f"{path}!catch"),
        }
        for body, on in zip(take("catches"), take("catch_on"), strict=True)
    ]
    if catches:
        found["catch"] = catches
    if (cleanup := take("cleanup")) is not None:
        found["finally"] = _step(cleanup, f"{path}!finally")
    if not path:
        for key in ("success", "failure", "cancel"):
            hooks = take(f"{key}_hooks")
            if len(hooks) > 1:
                raise CannotExport(f"on_{key}: expected one hook, got {len(hooks)}; make a group of them")
            if hooks:
                found[f"on_{key}"] = {"do": _step(hooks[0], f"!{key}")}
    return found


def _named(sig: AnySig, path: str) -> Document:
    return {segment: _step(member, child_path(path, segment)) for segment, member in members_of(sig)}


def _members(members: tuple[AnySig, ...], path: str) -> Any:
    """A mapping where all members have names, a list where none has."""
    if members and all(one.name for one in members):
        return {one.name: _step(one, child_path(path, str(one.name))) for one in members}
    if any(one.name for one in members):
        raise CannotExport(f"{path or 'the body'}: expected all members to have a name, or none")
    return [_step(one, child_path(path, f"[{i}]")) for i, one in enumerate(members)]


def _task(sig: Any, path: str, take: Callable[[str], Any]) -> Document:
    found: Document = {"task": take("task")}
    bind = take("bind")
    if bind is None:
        raise CannotExport(
            f"{path or 'the body'}: expected the arguments of {sig.task} by name; export it with the registry that "
            "has the task"
        )
    if bind:
        found["args"] = dict(bind)
    take("secrets")  # the document has those of the file
    if env := take("env"):
        found["env"] = dict(env)
    found.update(options_document(take("options"), path))
    if (undo := take("compensate")) is not None:
        found["compensate"] = _step(undo, f"{path}!compensate")
    return found


def _chain(sig: Any, path: str, take: Callable[[str], Any]) -> Document:
    steps = take("steps")
    if any(one.name for one in steps):
        raise CannotExport(f"{path or 'the body'}: a workflow file cannot hold names of the steps of a chain")
    return {"chain": [_step(one, child_path(path, f"[{i}]")) for i, one in enumerate(steps)]}


def _graph(sig: Any, path: str, take: Callable[[str], Any]) -> Document:
    take("steps")
    outputs, fail_fast = take("outputs"), take("fail_fast")
    return {
        "steps": _named(sig, path),
        **({"fail_fast": True} if fail_fast else {}),
        **({"outputs": dict(outputs)} if outputs is not None else {}),
    }


def _chord(sig: Any, path: str, take: Callable[[str], Any]) -> Document:
    return {"chord": {"group": _members(take("header"), path), "then": _step(take("body"), child_path(path, "then"))}}


def _map(sig: Any, path: str, take: Callable[[str], Any]) -> Document:
    items, spread, window = take("items"), take("spread"), take("window")
    if spread != "env" or not isinstance(items, (str, tuple)):
        raise CannotExport(f"{path}: expected a map whose items are a list or an expression, with arguments by name")
    found: Document = {"items": items if isinstance(items, str) else list(items)}
    for key, field, usual in (("as", "var", "item"), ("index", "index_var", "index")):
        if (name := take(field)) != usual:
            found[key] = name
    if window is not None:
        found["concurrency"] = window
    return {"map": {**found, "do": _step(take("do"), child_path(path, "[*]"))}}


def _switch(sig: Any, path: str, take: Callable[[str], Any]) -> Document:
    keys, cases, default = take("keys"), take("cases"), take("default")
    found: Document = {"on": take("on")}
    found["cases"] = {key: _step(one, child_path(path, key)) for key, one in zip(keys, cases, strict=True)}
    if default is not None:
        found["default"] = _step(default, child_path(path, "default"))
    return {"switch": found}


def _loop(sig: Any, path: str, take: Callable[[str], Any]) -> Document:
    on, until, carry = take("on"), take("until"), take("carry")
    found: Document = {} if on is None else {"until" if until else "while": on}
    limit = take("limit")
    if on is None or limit != _default(sig, "limit"):
        found["max"] = limit
    if carry is not None:
        found["carry"] = carry
    return {"loop": {**found, "do": _step(take("do"), child_path(path, "[*]"))}}


def _workflow(sig: Any, path: str, take: Callable[[str], Any]) -> Document:
    """The call; the workflow that was looked up for it is another file."""
    for field in _OF_CALLEE:
        take(field)
    ref, given, wait = take("ref"), take("given"), take("wait")
    found: Document = {"ref": ref, **({"inputs": dict(given)} if given else {})}
    return {"workflow": found if wait else {**found, "wait": False}}


def _fail(sig: Any, path: str, take: Callable[[str], Any]) -> Document:
    message, error_type, data = take("message"), take("error_type"), take("data")
    if error_type == FAIL_TYPE and data is None:
        return {"fail": message}
    return {"fail": {"message": message, "type": error_type, **({} if data is None else {"data": data})}}


def _wait(sig: Any, path: str, take: Callable[[str], Any]) -> Document:
    for_ms, span, until = take("for_ms"), take("span"), take("until")
    if until is not None:
        return {"wait": {"until": until}}
    return {"wait": {"for": span if span is not None else format_duration(for_ms)}}


def _limit(take: Callable[[str], Any]) -> Document:
    """The timeout of a step that waits for somebody else."""
    limit, limit_ms = take("limit"), take("limit_ms")
    if limit is not None:
        return {"timeout": limit}
    return {} if limit_ms is None else {"timeout": format_duration(limit_ms)}


def _event(sig: Any, path: str, take: Callable[[str], Any]) -> Document:
    match, how = take("match"), take("on_timeout")
    found: Document = {"type": take("event_type"), **({} if match is None else {"match": match}), **_limit(take)}
    return {"event": {**found, **({} if how == "fail" else {"on_timeout": how})}}


def _emit(sig: Any, path: str, take: Callable[[str], Any]) -> Document:
    data, own_id, keep_ms = take("data"), take("id"), take("keep_ms")
    found: Document = {"type": take("event_type")}
    found.update((key, value) for key, value in (("data", data), ("id", own_id)) if value is not None)
    return {"emit": {**found, **({} if keep_ms == EVENT_KEPT_MS else {"keep": format_duration(keep_ms)})}}


def _approval(sig: Any, path: str, take: Callable[[str], Any]) -> Document:
    by, message, form = take("by"), take("message"), take("form")
    found: Document = {"by": list(by)} if by else {}
    if message is not None:
        found["message"] = message
    if form:
        found["inputs"] = dict(form)
    found.update(_limit(take))
    for key in ("on_timeout", "on_reject"):
        if (how := take(key)) != "fail":
            found[key] = how
    return {"approval": found}


_KINDS: Mapping[type, Callable[[Any, str, Callable[[str], Any]], Document]] = {
    TaskSig: _task,
    ChainSig: _chain,
    GroupSig: lambda sig, path, take: {"group": _members(take("members"), path)},
    ChordSig: _chord,
    MapSig: _map,
    StepsSig: _graph,
    SwitchSig: _switch,
    LoopSig: _loop,
    SetSig: lambda sig, path, take: {"set": dict(take("values"))},
    FailSig: _fail,
    WorkflowSig: _workflow,
    WaitSig: _wait,
    EventSig: _event,
    EmitSig: _emit,
    ApprovalSig: _approval,
}


# -- a canvas with arguments by name


ParameterNames = Callable[[str], tuple[str, ...] | None]
"""Task -> names of its positional parameters; None for an unknown one."""


def bound(sig: Any, parameters: ParameterNames, fed: str | None = None, path: str = "") -> Any:
    """The same canvas with the arguments of tasks by name, and the value of the step before as an expression.

    `fed`: the expression that is the first argument of what starts first. Raises CannotExport.
    """
    match sig:
        case TaskSig():
            undo = None if sig.compensate is None else bound(sig.compensate, parameters, None, f"{path}!compensate")
            return structs.replace(_bound_task(sig, parameters, fed, path), compensate=undo)
        case ChainSig():
            steps = [
                bound(one, parameters, "prev" if i else fed, child_path(path, f"[{i}]"))
                for i, one in enumerate(sig.steps)
            ]
            return structs.replace(sig, steps=tuple(steps))
        case ChordSig():
            header = tuple(bound(one, parameters, fed, path) for one in sig.header)
            return structs.replace(sig, header=header, body=bound(sig.body, parameters, "results", path))
        case MapSig():
            if sig.spread not in ("env", "item"):
                raise CannotExport(f"{path or 'the body'}: expected a map of items, got {sig.spread}; write Canvas.map")
            items = sig.items if isinstance(sig.items, (str, tuple)) else _range(sig.items.start, sig.items.stop,
                                                                                  sig.items.step)  # fmt: skip
            do = bound(sig.do, parameters, sig.var if sig.spread == "item" else None, child_path(path, "[*]"))
            return structs.replace(sig, do=do, items=items, spread="env")
        case WorkflowSig():
            return sig
        case LoopSig():
            return structs.replace(sig, do=bound(sig.do, parameters, "carry", child_path(path, "[*]")))
    inner = None if isinstance(sig, StepsSig) else fed
    return changed(sig, lambda one: bound(one, parameters, inner, path), members_only=True)


def _range(start: int, stop: int, step: int) -> str:
    return f"range({start}, {stop}, {step})"


def _bound_task(sig: TaskSig[Any, Any], parameters: ParameterNames, fed: str | None, path: str) -> TaskSig[Any, Any]:
    if sig.bind is not None:
        return sig
    takes = fed is not None and not sig.immutable
    values = [*([f"${{{{ {fed} }}}}"] if takes else []), *map(_literal, sig.args)]
    names = parameters(sig.task) if values else ()
    if names is None or len(names) < len(values):
        raise CannotExport(
            f"{path or 'the body'}: expected to know the parameters of {sig.task}, which has arguments by position; "
            "export it with the registry that has the task"
        )
    given = {name: _literal(value) for name, value in sig.kwargs.items()}
    return structs.replace(
        sig, args=(), kwargs={}, bind={**dict(zip(names, values, strict=False)), **given}, immutable=False
    )


def _literal(value: Any) -> Any:
    """A value that stays what it is in a workflow file, where texts may hold expressions."""
    if isinstance(value, str):
        return value if "${{" not in value else f"${{{{ {value!r} }}}}"
    if isinstance(value, Mapping):
        return {key: _literal(inner) for key, inner in value.items()}
    return [_literal(one) for one in value] if isinstance(value, (list, tuple)) else value


# -- comparison


def _comparable(workflow: Workflow) -> Any:
    """The workflow without places, with normalised options."""
    body = workflow.body if type(workflow.body) in _BODIES else ChainSig(steps=(workflow.body,))
    fields = {field: getattr(workflow, field) for field in workflow.__struct_fields__ if field != "body"}
    fields["task_defaults"] = normalise(workflow.task_defaults, "defaults.task")
    if isinstance(body, StepsSig):
        body = structs.replace(body, outputs=workflow.outputs)
    return {**fields, "body": _plain(structs.replace(body, name=None))}


def _plain(value: Any) -> Any:
    if isinstance(value, Signature):
        left_out = ("at", "decode", "declared", *(_OF_CALLEE if isinstance(value, WorkflowSig) else ()))
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
