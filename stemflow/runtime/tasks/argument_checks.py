"""Before a canvas or workflow is stored: arguments become JSON data, and those of known tasks are checked."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from msgspec import structs

from stemflow.core.kinds import rules_of
from stemflow.model.plan import LeafPlan, Plan, ScopePlan
from stemflow.model.signature import AnySig, ChainSig, MapSig, Span, TaskSig
from stemflow.model.tree import changed, everything, first_task, walk
from stemflow.runtime.payloads.converters import BadArguments
from stemflow.runtime.payloads.json_data import plain
from stemflow.runtime.tasks.parameters import Parameters, is_dynamic

Known = Callable[[str], Parameters | None]
"""What a task may be called with, by its name."""


def plain_signature(sig: Any, as_json: Callable[[TaskSig[Any, Any]], bool]) -> Any:
    """The same tree with dataclasses, dates, models and the like in arguments and items turned into JSON data.

    Arguments of tasks of which `as_json` is not true are left as they are for their encoder. Raises NotSerializable
    with the path of what cannot become JSON.
    """
    fields: dict[str, Any] = {}
    if isinstance(sig, TaskSig) and as_json(sig):
        where = f"arguments of {sig.task}"
        _note(fields, "args", sig.args, tuple(plain(sig.args, where)))
        _note(fields, "kwargs", sig.kwargs, plain(sig.kwargs, where))
    elif isinstance(sig, MapSig) and isinstance(sig.items, tuple):
        task = first_task(sig.do)
        if task is None or as_json(task):
            _note(fields, "items", sig.items, tuple(plain(sig.items, "items")))
    own = structs.replace(sig, **fields) if fields else sig
    return changed(own, lambda child: plain_signature(child, as_json))


def task_names(sig: Any) -> Iterator[str]:
    """The names of all tasks in a tree."""
    return (one.task for one in everything(sig) if isinstance(one, TaskSig))


def _note(fields: dict[str, Any], name: str, old: Any, new: Any) -> None:
    same = old is new
    if isinstance(old, tuple):
        same = all(a is b for a, b in zip(old, new, strict=True))
    if not same:
        fields[name] = new


def check_plan(plan: Plan, known: Known) -> None:
    """Check the arguments in a plan; unknown tasks are skipped. Raises BadArguments."""
    for place, leaf in enumerate(plan.nodes):
        if isinstance(leaf, LeafPlan):
            parameters = known(leaf.task)
            if parameters is None:
                continue
            if leaf.bind is None:
                parameters.check(leaf.args, leaf.kwargs, _ahead(plan, place) if leaf.takes_prev else 0)
            else:
                check_bound(parameters, leaf.bind)


def check_bound(parameters: Parameters, bind: Mapping[str, Any]) -> None:
    """Check arguments of a workflow file: all names, and the values in which nothing is left to be evaluated."""
    parameters.fit((), bind, 0)
    parameters.check((), {name: value for name, value in bind.items() if not is_dynamic(value)}, None)


def _ahead(plan: Plan, place: int) -> int | None:
    """How many values are put in front of the arguments of the leaf at `place`; None when that is not known."""
    while True:
        above = plan.nodes[place].parent
        if above < 0:
            return 1
        scope = plan.nodes[above]
        assert isinstance(scope, ScopePlan)
        if place not in scope.members:
            return 1
        index = scope.members.index(place)
        feed = rules_of(scope).feed(scope, index)
        if feed is not None:
            return None if feed == "item" and scope.spread != "item" else 1
        place = above


def check_items(sig: AnySig, known: Known) -> None:
    """Check the items of the maps of a canvas as first arguments; raises BadArguments that names the item."""
    for found, first in _mapped(sig):
        parameters = known(first.task)
        if parameters is None or first.bind is not None or first.immutable or found.spread == "env":
            continue
        for place, item in _sample(found.items):
            for given in _given(found.spread, item):
                try:
                    parameters.check((*given, *first.args), first.kwargs, 0)
                except BadArguments as fault:
                    raise BadArguments(
                        fault.task, f"items[{place}]: {fault.parameter}", fault.expected, fault.got, fault.path
                    ) from None


def _sample(items: Any) -> Iterator[tuple[int, Any]]:
    """Items with their places; the numbers of a range are all of one type."""
    if isinstance(items, Span):
        numbers = range(items.start, items.stop, items.step)
        return iter([(0, numbers[0])] if numbers else [])
    return enumerate(items) if isinstance(items, tuple) else iter(())


def _given(spread: str, item: Any) -> Iterator[tuple[Any, ...]]:
    for one in item if spread == "chunk" else (item,):
        unpacked = spread != "item" and isinstance(one, (list, tuple))
        yield tuple(one) if unpacked else (one,)


def _mapped(body: AnySig) -> Iterator[tuple[MapSig[Any, Any], TaskSig[Any, Any]]]:
    """Maps whose first task is alone at the beginning, with that task."""
    for _, sig in walk(body):
        if isinstance(sig, MapSig):
            head = sig.do
            while isinstance(head, ChainSig) and head.steps:
                head = head.steps[0]
            if isinstance(head, TaskSig):
                yield sig, head
