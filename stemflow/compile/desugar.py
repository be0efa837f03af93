"""Desugaring: rewrite a signature in the terms that the state machine supports.

Empty chains in a chain are removed, plain groups in a chord's header are flattened, and hooks move to where they run:
those of a group or map to its members, those of a task to a chain around it. Those of a chain or chord stay: they run
once, at its end. So do catches and a cleanup (`finally`) of every kind.
"""

from __future__ import annotations

from typing import Any, TypeVar, assert_never

from msgspec import structs

from stemflow.model.signature import (
    FOLLOW_UPS,
    HOOKS,
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
    MemberPolicy,
    SetSig,
    Signature,
    StepsSig,
    SwitchSig,
    TaskSig,
    WaitSig,
    WorkflowSig,
)
from stemflow.model.tree import changed, follow_ups_of

Composite = TypeVar("Composite", bound=Signature[Any, Any])
SINGLE = (TaskSig, WaitSig, EventSig, EmitSig, ApprovalSig, SetSig, FailSig)
"""Signatures without members: outputs and compensation of a run need a composite around one."""
_POLICY = ("name", "when", "needs", "run_on", "on_error", "labels", "at")
_NO_POLICY: dict[str, Any] = {
    "name": None, "when": None, "needs": (), "run_on": "success", "on_error": "fail", "labels": {},
}  # fmt: skip


def desugar(sig: AnySig) -> AnySig:
    """The same tree in the machine's own terms."""
    if sig.compensate is not None and isinstance(sig, (MapSig, LoopSig)):
        return desugar(_around(sig))
    match sig:
        case TaskSig() | WaitSig() | EventSig() | EmitSig() | ApprovalSig():
            return _wrapped(sig) if sig.has_follow_ups else sig
        case ChainSig():
            return structs.replace(sig, steps=_chain_steps(sig.steps))
        case GroupSig() | MapSig():
            return _with_member_hooks(sig)
        case ChordSig():
            header = tuple(map(desugar, _flat(sig.header, sig.policy)))
            return structs.replace(sig, header=header, body=desugar(sig.body))
        case WorkflowSig():
            if sig.has_follow_ups:  # a catch replaces the result of its scope, where the inputs are kept
                return desugar(_wrapped(sig))
            if sig.body is None or not sig.wait:
                return sig
            body = desugar_run(sig.body)
            return structs.replace(sig, body=ChainSig(steps=(body,)) if isinstance(body, SINGLE) else body)
        case StepsSig() | SwitchSig() | LoopSig() | SetSig() | FailSig():
            return changed(sig, desugar, members_only=True)
        case _:
            assert_never(sig)


def desugar_run(sig: AnySig) -> AnySig:
    """As `desugar`, for the body of a workflow: its hooks run once, also where it is a group."""
    hooks = {name: getattr(sig, name) for name in HOOKS}
    body = desugar(structs.replace(sig, **dict.fromkeys(hooks, ())))
    if any(hooks.values()) and isinstance(body, SINGLE):
        body = ChainSig(steps=(body,))
    return structs.replace(body, **hooks)


def is_empty(sig: AnySig) -> bool:
    """Whether `sig` is a chain that only passes on what came before. A group without members gives `[]`, and a chain
    with a condition, a name or hooks does more."""
    return isinstance(sig, ChainSig) and not sig.has_policy and all(map(is_empty, sig.steps))


def _chain_steps(steps: tuple[AnySig, ...]) -> tuple[AnySig, ...]:
    return tuple(desugar(step) for step in steps if not is_empty(step))


def _flat(header: tuple[AnySig, ...], policy: MemberPolicy) -> tuple[AnySig, ...]:
    """Groups in a header give it their members, unless they have a policy or an option of their own."""
    out: list[AnySig] = []
    for member in header:
        is_plain = not member.has_policy and getattr(member, "completion", None) is None
        if isinstance(member, GroupSig) and is_plain and member.policy in ("fail_fast", policy):
            out.extend(_flat(member.members, policy))
        else:
            out.append(member)
    return tuple(out)


def _has_hooks(sig: AnySig) -> bool:
    return bool(sig.success_hooks or sig.failure_hooks or sig.cancel_hooks)


def desugared_follow_ups(sig: AnySig) -> list[tuple[str, AnySig]]:
    """(path segment, desugared step) of the follow-ups of a desugared signature, in the order in which they run."""
    return [(segment, desugar(one)) for segment, one in follow_ups_of(sig)]


def _around(sig: MapSig[Any, Any] | LoopSig[Any, Any]) -> ChainSig[Any, Any]:
    """A chain around a step whose undo is one member for each of its own, for the task that undoes it as a whole."""
    policy = {name: getattr(sig, name) for name in _POLICY}
    return ChainSig(steps=(structs.replace(sig, **_NO_POLICY, compensate=None),), compensate=sig.compensate, **policy)


def _with_member_hooks(sig: GroupSig[Any, Any] | MapSig[Any, Any]) -> AnySig:
    """The signature with its hooks moved to each member."""
    return changed(_without_hooks(sig), lambda one: desugar(_give_hooks(sig, (one,))[0]), members_only=True)


def _without_hooks(sig: Composite) -> Composite:
    return structs.replace(sig, **dict.fromkeys(HOOKS, ()))


def _give_hooks(sig: AnySig, members: tuple[AnySig, ...]) -> tuple[AnySig, ...]:
    if not _has_hooks(sig):
        return members
    return tuple(_given(member, {hook: getattr(sig, hook) for hook in HOOKS}) for member in members)


def _given(member: AnySig, hooks: dict[str, Any]) -> AnySig:
    """`member` with hooks from above. A composite fires them once as a whole; a group or map, whose own hooks go to its
    members, is put into a chain for that."""
    if isinstance(member, (GroupSig, MapSig)):
        around: dict[str, Any] = {name: getattr(member, name) for name in _POLICY} | hooks
        return ChainSig(steps=(structs.replace(member, **_NO_POLICY),), **around)
    return structs.replace(member, **{hook: getattr(member, hook) + given for hook, given in hooks.items()})


def _wrapped(sig: AnySig) -> ChainSig[Any, Any]:
    kept = (*_POLICY, *FOLLOW_UPS, "catch_on")
    policy = {name: getattr(sig, name) for name in kept}
    bare = structs.replace(sig, **_NO_POLICY, **dict.fromkeys((*HOOKS, "catches", "catch_on"), ()), cleanup=None)
    return ChainSig(steps=(bare,), **policy)
