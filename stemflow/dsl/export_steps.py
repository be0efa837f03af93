"""One step of a signature -> what a workflow file says of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from msgspec import NODEFAULT, UNSET, structs

from stemflow.dsl.export_options import CannotExport, Document, concurrency_document, options_document, timeout_document
from stemflow.model.completion import Completion
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
    StepsSig,
    SwitchSig,
    TaskSig,
    WaitSig,
    WorkflowSig,
)
from stemflow.model.tree import members_of
from stemflow.units import format_duration

OF_CALLEE = ("body", "form", "vars", "outputs", "compensate_on")
"""Fields of the step that calls a workflow which are said in the file of that workflow."""
_SKIPPED = frozenset({"at", "name", "decode", "declared", "needs"})


def step_document(sig: AnySig, path: str) -> Document:
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
    if hasattr(sig, "completion"):
        found.update(_completion(take("completion")))
    found.update(own(sig, path, take))
    if (returns := take("returns")) is not None:
        found["returns"] = dict(returns)
    found.update(timeout_document(take("timeout_ms"), take("timeout"), found))
    if (limited := take("concurrency")) is not None:
        found["concurrency"] = concurrency_document(limited)
    found.update(_follow_ups(sig, path, take))
    if (undo := take("compensate")) is not None:
        found["compensate"] = step_document(undo, f"{path}!compensate")
    for one in structs.fields(type(sig)):
        value = getattr(sig, one.name)
        if one.name not in written | _SKIPPED and value != _default(sig, one.name):
            raise CannotExport(f"{path or 'the body'}: a workflow file cannot hold `{one.name}` of a step")
    return found


def _completion(limits: Completion | None) -> Document:
    if limits is None:
        return {}
    if limits.race:
        return {"race": True}
    if limits.quorum is not None:
        return {"quorum": limits.quorum}
    return {"tolerate": limits.tolerate if limits.percent is None else f"{limits.percent:.15g}%"}


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
            "do": step_document(body, f"{path}!catch"),
        }
        for body, on in zip(take("catches"), take("catch_on"), strict=True)
    ]
    if catches:
        found["catch"] = catches
    if (cleanup := take("cleanup")) is not None:
        found["finally"] = step_document(cleanup, f"{path}!finally")
    if not path:
        for key in ("success", "failure", "cancel"):
            hooks = take(f"{key}_hooks")
            if len(hooks) > 1:
                raise CannotExport(f"on_{key}: expected one hook, got {len(hooks)}; make a group of them")
            if hooks:
                found[f"on_{key}"] = {"do": step_document(hooks[0], f"!{key}")}
    return found


def _named(sig: AnySig, path: str) -> Document:
    return {segment: step_document(member, child_path(path, segment)) for segment, member in members_of(sig)}


def _members(members: tuple[AnySig, ...], path: str) -> Any:
    """A mapping where all members have names, a list where none has."""
    if members and all(one.name for one in members):
        return {one.name: step_document(one, child_path(path, str(one.name))) for one in members}
    if any(one.name for one in members):
        raise CannotExport(f"{path or 'the body'}: expected all members to have a name, or none")
    return [step_document(one, child_path(path, f"[{i}]")) for i, one in enumerate(members)]


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
    return found


def _chain(sig: Any, path: str, take: Callable[[str], Any]) -> Document:
    steps = take("steps")
    if any(one.name for one in steps):
        raise CannotExport(f"{path or 'the body'}: a workflow file cannot hold names of the steps of a chain")
    return {"chain": [step_document(one, child_path(path, f"[{i}]")) for i, one in enumerate(steps)]}


def _graph(sig: Any, path: str, take: Callable[[str], Any]) -> Document:
    take("steps")
    outputs, fail_fast = take("outputs"), take("fail_fast")
    return {
        "steps": _named(sig, path),
        **({"fail_fast": True} if fail_fast else {}),
        **({"outputs": dict(outputs)} if outputs is not None else {}),
    }


def _chord(sig: Any, path: str, take: Callable[[str], Any]) -> Document:
    then = step_document(take("body"), child_path(path, "then"))
    return {"chord": {"group": _members(take("header"), path), "then": then}}


def _map(sig: Any, path: str, take: Callable[[str], Any]) -> Document:
    items, matrix, spread = take("items"), take("matrix"), take("spread")
    if spread != "env" or not isinstance(items, (str, tuple)):
        raise CannotExport(f"{path}: expected a map whose items are a list or an expression, with arguments by name")
    if matrix is not None:
        found: Document = {"matrix": dict(matrix)}
    else:
        found = {"items": items if isinstance(items, str) else list(items)}
    for key, field, usual in (("as", "var", "item"), ("index", "index_var", "index")):
        if (name := take(field)) != usual:
            found[key] = name
    for key, field in (("batch", "batch"), ("concurrency", "window")):
        if (number := take(field)) is not None:
            found[key] = number
    return {"map": {**found, "do": step_document(take("do"), child_path(path, "[*]"))}}


def _switch(sig: Any, path: str, take: Callable[[str], Any]) -> Document:
    keys, cases, default = take("keys"), take("cases"), take("default")
    found: Document = {"on": take("on")}
    found["cases"] = {key: step_document(one, child_path(path, key)) for key, one in zip(keys, cases, strict=True)}
    if default is not None:
        found["default"] = step_document(default, child_path(path, "default"))
    return {"switch": found}


def _loop(sig: Any, path: str, take: Callable[[str], Any]) -> Document:
    on, until, carry = take("on"), take("until"), take("carry")
    found: Document = {} if on is None else {"until" if until else "while": on}
    limit = take("limit")
    if on is None or limit != _default(sig, "limit"):
        found["max"] = limit
    if carry is not None:
        found["carry"] = carry
    return {"loop": {**found, "do": step_document(take("do"), child_path(path, "[*]"))}}


def _workflow(sig: Any, path: str, take: Callable[[str], Any]) -> Document:
    """The call; the workflow that was looked up for it is another file."""
    for field in OF_CALLEE:
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
