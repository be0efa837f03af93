"""Converting the stored value of a run to the annotated result types of its tasks, for callers that wait for it."""

from __future__ import annotations

import types
import typing
from collections.abc import Callable
from typing import Any, Protocol

from stemflow.core.kinds import rules_of
from stemflow.model.plan import LeafPlan, Plan, ScopePlan
from stemflow.model.signature import AnySig, TaskSig
from stemflow.model.tree import members_of
from stemflow.runtime.payloads.converters import BadResult, Converter, Misfit

Decode = Callable[[Any], Any]
_ERROR = {"type", "qualname", "message", "data"}


class ResultTypes(Protocol):
    """Knows the annotated result types of tasks; the registry of tasks is one."""

    def result_converter(self, task: str) -> Converter | None:
        """The converter to the annotated result type of a task; None for a task that is not known."""
        ...


def decoder(plan: Plan, results: ResultTypes, sig: AnySig | None = None, place: int = 0) -> Decode | None:
    """What makes the value of the node at `place` out of its JSON data; None when that is the value.

    `results`: the result types of registered tasks. `sig`: the desugared tree of the plan, which may have a `decode=`
    for a task.
    """
    node = plan.nodes[place]
    if isinstance(node, LeafPlan):
        return _of_task(node.task, results, sig)
    if not isinstance(node, ScopePlan) or node.value is not None or not node.members:
        return None
    rules = rules_of(node)
    if rules.gives == "nothing" or node.catches:
        return None
    # The plan has a chain of one for a task with hooks; the signature of such a task has no members.
    given: list[AnySig | None] = [] if sig is None else [member for _, member in members_of(sig)]
    members = list(zip(node.members, given or [None] * len(node.members), strict=True))
    if rules.gives == "last":
        last, of_last = members[-1]
        return decoder(plan, results, of_last, last)
    inside = [decoder(plan, results, of_it, one) for one, of_it in members]
    if not any(inside):
        return None
    if rules.gives == "taken" or (node.completion is not None and node.completion.race):
        return _common(inside)
    if rules.repeats:
        one = _listed(inside, repeated=True) if node.spread == "chunk" else inside[0]
        return _listed([one], repeated=True)
    return _listed(inside, repeated=False)


def _listed(decoders: list[Decode | None], *, repeated: bool) -> Decode:
    """Decodes the slots of a list; null and the error of a failed member stay as they are, so do members that joined
    while it ran."""

    def decode(values: Any) -> Any:
        if not isinstance(values, list):
            return values
        return [
            value if one is None or value is None or _is_error(value) else one(value)
            for value, one in zip(values, _for_all(decoders, len(values), repeated), strict=True)
        ]

    return decode


def _for_all(decoders: list[Decode | None], count: int, repeated: bool) -> list[Decode | None]:
    return decoders * count if repeated else [*decoders, *[None] * (count - len(decoders))][:count]


def _is_error(value: Any) -> bool:
    return isinstance(value, dict) and value.keys() == {"error"} and isinstance(value["error"], dict) and (
        value["error"].keys() == _ERROR
    )  # fmt: skip


def _of_task(name: str, results: ResultTypes, sig: AnySig | None) -> Decode | None:
    if isinstance(sig, TaskSig) and sig.decode is not None:
        return decode_as(sig.decode, name)
    converter = results.result_converter(name)
    if converter is None or converter.convert is None or converter.exact is type(None):
        return None  # a handler that returns None may still replace itself by something with a result
    return _Checked(converter, name)


def decode_as(decode: Any, task: str) -> Decode:
    """A `decode=` as a function: a type is converted to, a function is called. Raises OptionError."""
    is_type = isinstance(decode, (type, types.UnionType)) or typing.get_origin(decode) is not None
    if not is_type and callable(decode):
        called: Decode = decode
        return called
    return _Checked(Converter(decode, f"task {task}: decode"), task)


class _Checked:
    """Converts the result of a task. Raises BadResult."""

    def __init__(self, converter: Converter, task: str) -> None:
        self.converter, self.task = converter, task

    def __call__(self, value: Any) -> Any:
        try:
            return self.converter(value)
        except Misfit as fault:
            raise BadResult(self.task, fault) from None


def _common(decoders: list[Decode | None]) -> Decode | None:
    """What all of these do, or None if they differ: the value does not tell which of them made it."""
    types_of = [one.converter.annotation if isinstance(one, _Checked) else one for one in decoders]
    return decoders[0] if all(one == types_of[0] for one in types_of) else None
