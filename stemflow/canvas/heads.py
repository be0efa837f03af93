"""Changes of the tasks of a canvas that start first: further arguments, a delay."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar, assert_never

from msgspec import structs

from stemflow.errors import OptionError
from stemflow.model.signature import (
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
from stemflow.model.tree import changed
from stemflow.units import Duration, duration_of

A = TypeVar("A")
B = TypeVar("B")
Sig = Signature
Step = Signature[Any, Any]


def call(sig: Step, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Step:
    """Put arguments in front of the first tasks of a canvas: of a chain's head, of every member of a group or
    header."""
    if not args and not kwargs:
        return sig
    called: Step = _at_heads(
        sig, lambda task: structs.replace(task, args=(*args, *task.args), kwargs={**task.kwargs, **kwargs})
    )
    return called


def skew(group: Sig[A, B], start: Duration = 1, step: Duration = 1) -> Sig[A, B]:
    """Delay the members of a group so that they start one after another.

    Args:
        group: the group whose members get a countdown.
        start: the delay of the first member, as a duration such as `"5s"` or in seconds.
        step: the further delay of each next member, in the same form.

    Example:
        `skew(Canvas.group(poll.s("a"), poll.s("b")), start="10s", step="1s")`
    """
    first_ms, step_ms = duration_of("skew: start", start), duration_of("skew: step", step)
    if not isinstance(group, GroupSig):
        raise OptionError(f"skew: expected a group, got {type(group).__name__}")
    members = tuple(_at_heads(m, _starting_in(first_ms + step_ms * i)) for i, m in enumerate(group.members))
    return structs.replace(group, members=members)


def _starting_in(delay_ms: int) -> Callable[[TaskSig[Any, Any]], TaskSig[Any, Any]]:
    return lambda task: structs.replace(task, countdown_ms=delay_ms)


def _at_heads(given: Any, change: Callable[[TaskSig[Any, Any]], TaskSig[Any, Any]]) -> Any:
    """Apply `change` to the tasks that start first."""
    sig: AnySig = given
    match sig:
        case TaskSig():
            return change(sig)
        case ChainSig():
            if not sig.steps:
                return sig
            steps = list(sig.steps)
            head = next((i for i, step in enumerate(steps) if not _is_void(step)), 0)
            steps[head] = _at_heads(steps[head], change)
            return structs.replace(sig, steps=tuple(steps))
        case GroupSig() | MapSig() | SwitchSig() | LoopSig():
            return changed(sig, lambda member: _at_heads(member, change), members_only=True)
        case ChordSig():
            return structs.replace(sig, header=tuple(_at_heads(m, change) for m in sig.header))
        case StepsSig() | WaitSig() | EventSig() | EmitSig() | ApprovalSig() | SetSig() | FailSig() | WorkflowSig():
            return sig  # the steps of a graph name what they need; the others call no task
        case _:
            assert_never(sig)


def _is_void(sig: Any) -> bool:
    return isinstance(sig, ChainSig) and all(map(_is_void, sig.steps))
