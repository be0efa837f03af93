"""Checks of the arguments of `Canvas`; each raises OptionError with the constructor's name first."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from stemflow.errors import OptionError
from stemflow.expr import ExpressionError, parse_condition
from stemflow.model.completion import Completion, completion_of_tolerance
from stemflow.model.signature import MapSig, Signature, Span, expect_signature

_MEMBER_POLICIES = ("fail_fast", "collect", "ignore")


def expect_members(where: str, members: tuple[Any, ...]) -> tuple[Any, ...]:
    """Signatures that were given one by one, or as one iterable; raises OptionError for what is none."""
    if len(members) == 1 and not isinstance(members[0], (Signature, str)) and isinstance(members[0], Iterable):
        members = tuple(members[0])
    for place, member in enumerate(members):
        expect_signature(member, f"{where}: member {place}")
    return members


def expect_policy(where: str, policy: Any) -> Any:
    if policy not in _MEMBER_POLICIES:
        raise OptionError(f"{where}: on_member_error: expected {' or '.join(_MEMBER_POLICIES)}, got {policy!r}")
    return policy


def completion_of(where: str, quorum: Any, tolerate: Any, size: int | None) -> Completion | None:
    """How many of `size` members must succeed, or may fail; raises OptionError."""
    if quorum is not None and tolerate is not None:
        raise OptionError(f"{where}: expected quorum or tolerate, got both")
    if quorum is not None:
        most = "" if size is None else f" to {size}, the number of members"
        if isinstance(quorum, bool) or not isinstance(quorum, int) or not 1 <= quorum <= (size or quorum):
            raise OptionError(f"{where}: quorum: expected a whole number from 1{most}, got {quorum!r}")
        return Completion(quorum=quorum)
    return None if tolerate is None else completion_of_tolerance(where, tolerate)


def expect_one_of(where: str, value: Any, known: tuple[str, ...]) -> None:
    if value not in known:
        raise OptionError(f"{where}: expected {' or '.join(known)}, got {value!r}")


def expect_condition(source: str, where: str, names: frozenset[str]) -> None:
    """Raise OptionError for what is no expression over `names`."""
    try:
        parse_condition(source, names)
    except ExpressionError as error:
        raise OptionError(f"{where}: {error.message}") from None


def map_of(
    where: str, task: Any, items: Any, spread: Any, concurrency: Any, policy: Any, completion: Completion | None
) -> MapSig[Any, Any]:
    """The signature of `map`, `starmap` and `chunks`; raises OptionError for an argument that makes no map."""
    expect_signature(task, f"{where}: task")
    if concurrency is not None and (isinstance(concurrency, bool) or not isinstance(concurrency, int)):
        raise OptionError(f"{where}: concurrency: expected a whole number of at least 1, got {concurrency!r}")
    if concurrency is not None and concurrency < 1:
        raise OptionError(f"{where}: concurrency: expected at least 1, got {concurrency}")
    return MapSig(
        do=task, items=items_of(where, items), spread=spread, window=concurrency, policy=expect_policy(where, policy),
        completion=completion,
    )  # fmt: skip


def items_of(where: str, items: Any) -> Span | tuple[Any, ...]:
    if isinstance(items, range):
        return Span(items.start, items.stop, items.step)
    if isinstance(items, (str, bytes, Mapping, Signature)) or not isinstance(items, Iterable):
        raise OptionError(f"{where}: items: expected a list or another iterable of items, got {type(items).__name__}")
    return tuple(items)
