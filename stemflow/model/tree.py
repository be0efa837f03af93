"""Traversal of signature trees. Each signature class declares the fields that contain other signatures.

`Signature.MEMBERS` names the fields whose signatures are steps of the composite, in order, each with the path segment
of its one member, or None where a member's segment is its name or its index. `Signature.OTHERS` names the fields whose
signatures run under some condition in addition to the members: hooks and the compensation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from operator import is_not
from typing import Any, TypeVar

from msgspec import structs

from stemflow.model.records import child_path
from stemflow.model.signature import AnySig, GroupSig, Signature, TaskSig

Sig = TypeVar("Sig", bound=Signature[Any, Any])


def members_of(sig: AnySig) -> tuple[tuple[str, AnySig], ...]:
    """(path segment, signature) of each static member, in order; a map has its template under `[*]`."""
    found: list[tuple[str, AnySig]] = []
    if not sig.MEMBERS:
        return ()
    for field, segment in sig.MEMBERS.items():
        for one in _listed(getattr(sig, field)):
            found.append((segment or one.name or f"[{len(found)}]", one))
    return tuple(found)


def follow_ups_of(sig: AnySig) -> tuple[tuple[str, AnySig], ...]:
    """(path segment, signature) of what runs after `sig`, in this order: catches, hooks, cleanup."""
    found = [(f"!catch{number + 1}" if number else "!catch", one) for number, one in enumerate(sig.catches)]
    for segment, hooks in (
        ("!success", sig.success_hooks), ("!failure", sig.failure_hooks), ("!cancel", sig.cancel_hooks),
    ):  # fmt: skip
        if hooks:
            found.append((segment, hooks[0] if len(hooks) == 1 else GroupSig(members=hooks, policy="ignore")))
    return tuple(found) if sig.cleanup is None else (*found, ("!finally", sig.cleanup))


def below_of(sig: AnySig) -> tuple[tuple[str, AnySig], ...]:
    """The members, then the follow-ups."""
    return (*members_of(sig), *follow_ups_of(sig))


def walk_all(sig: AnySig, path: str = "") -> Iterator[tuple[str, AnySig]]:
    """As `walk`, with follow-ups and everything below them."""
    yield path, sig
    for segment, member in below_of(sig):
        yield from walk_all(member, child_path(path, segment))


def walk(sig: AnySig, path: str = "") -> Iterator[tuple[str, AnySig]]:
    """(path, signature) of `sig` and of every member below it, a composite before its members."""
    yield path, sig
    for segment, member in members_of(sig):
        if member.MEMBERS:
            yield from walk(member, child_path(path, segment))
        else:
            yield child_path(path, segment), member


def everything(sig: AnySig) -> Iterator[AnySig]:
    """`sig` and everything in it: members, hooks and compensations, at any depth."""
    left: list[Any] = [sig]
    while left:
        one = left.pop()
        yield one
        for field in reversed((*one.MEMBERS, *one.OTHERS)):
            held = getattr(one, field)
            if held:
                left.extend(reversed(_listed(held)))


def changed(sig: Sig, change: Callable[[Any], Any], *, members_only: bool = False) -> Sig:
    """`sig` with `change` applied to each of its direct children; `sig` itself if nothing changes.

    `members_only` leaves hooks and compensations as they are.
    """
    fields: dict[str, Any] = {}
    for field in sig.MEMBERS if members_only else (*sig.MEMBERS, *sig.OTHERS):
        held = getattr(sig, field)
        if isinstance(held, tuple):
            new = tuple(map(change, held))
            if any(map(is_not, held, new)):
                fields[field] = new
        elif held is not None and (one := change(held)) is not held:
            fields[field] = one
    return structs.replace(sig, **fields) if fields else sig


def depth(sig: Signature[Any, Any]) -> int:
    """How deeply composites are nested: 0 for a task, 1 for a group of tasks."""
    deepest = 0
    left: list[tuple[Signature[Any, Any], int]] = [(sig, 0)]
    while left:
        one, level = left.pop()
        deepest = max(deepest, level)
        for field in one.MEMBERS:
            left += [(member, level + 1) for member in _listed(getattr(one, field))]
    return deepest


def first_task(sig: AnySig) -> TaskSig[Any, Any] | None:
    """The task that gets the arguments of `sig`; None if there is no task in it."""
    while not isinstance(sig, TaskSig):
        members = members_of(sig)
        if not members:
            return None
        sig = members[0][1]
    return sig


def _listed(held: Any) -> tuple[Any, ...]:
    if isinstance(held, tuple):
        return held
    return () if held is None else (held,)
