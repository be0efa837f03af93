"""The rules about the arguments and retries of tasks that are known: names, types of literal values, idempotency."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

from stemflow.model.diagnostic import Diagnostic
from stemflow.model.signature import AnySig, TaskSig
from stemflow.model.suggest import nearest
from stemflow.model.tree import walk_all

Locate = Callable[[str, str | None], tuple[int, int, int]]
"""(path of a step, key in it or None) -> (line, column, end column) in the file, from 1."""


class ArgumentFault(NamedTuple):
    """What is wrong with one argument; `path` is where in its value. `known`: the parameters that there are."""

    kind: Literal["unknown", "missing", "value"]
    parameter: str
    expected: str = ""
    got: str = ""
    path: str = ""
    known: tuple[str, ...] = ()


@runtime_checkable
class TypedTasks(Protocol):
    """Tasks whose parameters are known: a registry."""

    def __contains__(self, task: object) -> bool: ...

    def result_schema(self, task: str) -> Mapping[str, Any] | None:
        """The JSON Schema of the value that the task returns; None where it is not declared."""
        ...

    def parameter_schema(self, task: str, parameter: str) -> Mapping[str, Any] | None:
        """The JSON Schema of one argument of the task; None where it is not declared."""
        ...

    def argument_faults(self, task: str, bind: Mapping[str, Any]) -> Iterable[ArgumentFault]:
        """What is wrong with these arguments of a call, as far as it is literal; nothing for an unknown task."""
        ...

    def retries_with_harm(self, sig: TaskSig[Any, Any], defaults: Mapping[str, Any]) -> bool:
        """Whether a call is tried again although its task says that a second time does harm, and no key prevents it."""
        ...


def wrong_arguments(
    body: AnySig, locate: Locate, tasks: TypedTasks, defaults: Mapping[str, Any]
) -> Iterator[Diagnostic]:
    """The findings about the calls in the body of a workflow."""
    for path, sig in walk_all(body):
        if isinstance(sig, TaskSig):
            yield from _of_call(sig, path, locate, tasks, defaults)
        if isinstance(sig.compensate, TaskSig):
            yield from _of_call(sig.compensate, f"{path}!compensate", locate, tasks, defaults)


def _of_call(
    sig: TaskSig[Any, Any], path: str, locate: Locate, tasks: TypedTasks, defaults: Mapping[str, Any]
) -> Iterator[Diagnostic]:
    for fault in tasks.argument_faults(sig.task, sig.bind or {}):
        yield _finding(sig.task, fault, path, locate)
    if tasks.retries_with_harm(sig, defaults):
        yield Diagnostic(
            "SF402", f"`{sig.task}` says that a second time does harm, and it is tried again", *locate(path, "task"),
            hint="give the call `unique`, or take the retries out", severity="warning",
        )  # fmt: skip


def _finding(task: str, fault: ArgumentFault, path: str, locate: Locate) -> Diagnostic:
    if fault.kind == "missing":
        message = f"args: `{task}` needs the argument `{fault.parameter}`, got none"
        place = locate(path, "args")
        return Diagnostic("SF303", message, *(place if place != locate(path, None) else locate(path, "task")))
    place = locate(path, f"args.{fault.parameter}{fault.path}")
    if fault.kind == "value":
        where = f"args.{fault.parameter}{fault.path}"
        return Diagnostic("SF304", f"{where}: `{task}` expects {fault.expected}, got {fault.got}", *place)
    near = nearest(fault.parameter, fault.known)
    hint = f"did you mean `{near}`?" if near else f"parameters: {', '.join(fault.known) or 'none'}"
    message = f"args.{fault.parameter}: `{task}` has no parameter `{fault.parameter}`"
    return Diagnostic("SF303", message, *locate(path, f"args.{fault.parameter}"), hint=hint)
