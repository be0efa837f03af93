"""A canvas with the arguments of its tasks by name, as a workflow file has them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from msgspec import structs

from stemflow.dsl.export_options import CannotExport
from stemflow.model.records import child_path
from stemflow.model.signature import (
    FOLLOW_UPS,
    ChainSig,
    ChordSig,
    LoopSig,
    MapSig,
    Span,
    StepsSig,
    TaskSig,
    WorkflowSig,
)
from stemflow.model.tree import changed

ParameterNames = Callable[[str], tuple[str, ...] | None]
"""Task -> names of its positional parameters; None for an unknown one."""

HAPPENED = "what happened"
"""Stands for the first argument of a hook, a catch or a cleanup, for which expressions have no name."""


def bound(sig: Any, parameters: ParameterNames, fed: str | None = None, path: str = "") -> Any:
    """The same canvas with the arguments of tasks by name, and the value of the step before as an expression.

    `fed`: the expression that is the first argument of what starts first. Raises CannotExport.
    """
    if isinstance(sig, TaskSig):
        sig = _bound_task(sig, parameters, fed, path)
    else:
        sig = _bound_members(sig, parameters, fed, path)
    below: dict[str, Any] = {}
    for field in FOLLOW_UPS:
        held = getattr(sig, field)
        if isinstance(held, tuple):
            below[field] = tuple(bound(one, parameters, HAPPENED, f"{path}!{field}") for one in held)
        elif held is not None:
            below[field] = bound(held, parameters, HAPPENED, f"{path}!finally")
    if sig.compensate is not None:
        below["compensate"] = bound(sig.compensate, parameters, None, f"{path}!compensate")
    return structs.replace(sig, **below)


def _bound_members(sig: Any, parameters: ParameterNames, fed: str | None, path: str) -> Any:
    match sig:
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
            items = sig.items
            if isinstance(items, Span):
                items = f"range({items.start}, {items.stop}, {items.step})"
            do = bound(sig.do, parameters, sig.var if sig.spread == "item" else None, child_path(path, "[*]"))
            return structs.replace(sig, do=do, items=items, spread="env")
        case WorkflowSig():
            return sig
        case LoopSig():
            return structs.replace(sig, do=bound(sig.do, parameters, "carry", child_path(path, "[*]")))
    inner = None if isinstance(sig, StepsSig) else fed
    return changed(sig, lambda one: bound(one, parameters, inner, path), members_only=True)


def _bound_task(sig: TaskSig[Any, Any], parameters: ParameterNames, fed: str | None, path: str) -> TaskSig[Any, Any]:
    if sig.bind is not None:
        return sig
    takes = fed is not None and not sig.immutable
    if takes and fed == HAPPENED:
        raise CannotExport(
            f"{path}: expected {sig.task} with all its arguments (`si`), as a file has no value for what happened; "
            "write `error` and `self` in the file"
        )
    values = [*([f"${{{{ {fed} }}}}"] if takes else []), *map(_literal, sig.args)]
    names = parameters(sig.task) if values else ()
    if names is None or len(names) < len(values):
        raise CannotExport(
            f"{path or 'the body'}: expected to know the parameters of {sig.task}, which has arguments by position; "
            "export it with the registry that has the task"
        )
    given = {name: _literal(value) for name, value in sig.kwargs.items()}
    bind = {**dict(zip(names, values, strict=False)), **given}
    return structs.replace(sig, args=(), kwargs={}, bind=bind, immutable=False)


def _literal(value: Any) -> Any:
    """A value that stays what it is in a workflow file, where texts may hold expressions."""
    if isinstance(value, str):
        return value if "${{" not in value else f"${{{{ {value!r} }}}}"
    if isinstance(value, Mapping):
        return {key: _literal(inner) for key, inner in value.items()}
    return [_literal(one) for one in value] if isinstance(value, (list, tuple)) else value
