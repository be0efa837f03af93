"""The lock file of tasks: their declarations as JSON, so that workflow files are checked without importing code."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec
from msgspec import Struct

from stemflow.compile.arguments import ArgumentFault
from stemflow.errors import StemflowError
from stemflow.model.policy import effective, normalise
from stemflow.model.signature import TaskSig
from stemflow.runtime.catalog.published import Declaration, declared_by, options_layer
from stemflow.runtime.catalog.remote_parameters import declared_parameters
from stemflow.runtime.tasks.callables import qualname_of
from stemflow.runtime.tasks.parameters import Parameters
from stemflow.runtime.tasks.registry import TaskRegistry

LOCK_NAME = "stemflow.tasks.lock.json"


class BadLock(StemflowError):
    """A lock file that cannot be used."""


class LockedTask(Struct, frozen=True, omit_defaults=True):
    """One task: its declaration, the JSON Schema of its result, and where its function is (`module:qualname`)."""

    declaration: Declaration
    result: Mapping[str, Any] | None = None
    function: str = ""


class Lock(Struct, frozen=True, forbid_unknown_fields=True):
    """The content of a lock file."""

    lock: Literal[1]
    tasks: Mapping[str, LockedTask]


class LockedTasks(Collection[str]):
    """The tasks of a lock file, with what is known of them, as a registry has it."""

    def __init__(self, tasks: Mapping[str, LockedTask]) -> None:
        self.tasks = tasks
        self._parameters: dict[str, Parameters] = {}

    def __contains__(self, task: object) -> bool:
        return task in self.tasks

    def __iter__(self) -> Iterator[str]:
        return iter(self.tasks)

    def __len__(self) -> int:
        return len(self.tasks)

    def result_schema(self, task: str) -> Mapping[str, Any] | None:
        """The JSON Schema of what a task returns; None where it is unknown or not annotated."""
        found = self.tasks.get(task)
        return None if found is None else found.result

    def parameter_schema(self, task: str, parameter: str) -> Mapping[str, Any] | None:
        """The JSON Schema of one parameter; None where it is unknown or takes more than a schema says."""
        found = self.tasks.get(task)
        if found is None or parameter in found.declaration.loose:
            return None
        schema = found.declaration.schema
        own = schema.get("properties", {}).get(parameter)
        return None if not own else {**own, "definitions": schema.get("definitions", {})}

    def argument_faults(self, task: str, bind: Mapping[str, Any]) -> Iterable[ArgumentFault]:
        """The faults of the arguments of a call in a workflow file; none for an unknown task."""
        found = self.tasks.get(task)
        if found is None:
            return ()
        if task not in self._parameters:
            self._parameters[task] = declared_parameters(task, found.declaration)
        return self._parameters[task].faults(bind)

    def retries_with_harm(self, sig: TaskSig[Any, Any], defaults: Mapping[str, Any]) -> bool:
        """Whether a call is retried although its task is not idempotent and has no unique key."""
        found = self.tasks.get(sig.task)
        if found is None or found.declaration.schema.get("x-stemflow", {}).get("idempotent") is not False:
            return False
        own = options_layer(sig.task, found.declaration)
        options = effective(sig.task, own, normalise(defaults, "defaults.task"), normalise(sig.options, sig.task))
        return options.max_retries > 0 and not options.unique


def locked_by(registry: TaskRegistry) -> dict[str, LockedTask]:
    """What the lock file says of the tasks of a registry, by name."""
    found = {}
    for name, declaration in declared_by(registry).items():
        task = registry.get(name)
        assert task is not None
        function = f"{getattr(task.function, '__module__', '')}:{qualname_of(task.function)}"
        found[name] = LockedTask(declaration, registry.result_schema(name), function)
    return found


def encode(tasks: Mapping[str, LockedTask]) -> str:
    """The text of the lock file; the same tasks always give the same text."""
    text = msgspec.json.encode(Lock(1, dict(sorted(tasks.items()))), order="deterministic")
    return msgspec.json.format(text, indent=2).decode() + "\n"


def decode(text: str, where: str) -> dict[str, LockedTask]:
    """The tasks of a lock file; raises BadLock."""
    try:
        return dict(msgspec.json.decode(text, type=Lock).tasks)
    except (msgspec.DecodeError, UnicodeEncodeError) as error:
        message = f"{where}: expected a lock file of tasks, got {error}; write it with `stemflow tasks lock`"
        raise BadLock(message) from None


def read_lock(path: Path) -> LockedTasks:
    """Read a lock file; raises BadLock."""
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadLock(f"{path}: expected a lock file of tasks that can be read, got {error}") from None
    return LockedTasks(decode(text, str(path)))


def differences(old: Mapping[str, LockedTask], new: Mapping[str, LockedTask]) -> list[str]:
    """A sentence for each task that was added, removed or changed."""
    found = []
    for name in sorted({*old, *new}):
        if name not in new:
            found.append(f"{name}: is in the lock file and not registered")
        elif name not in old:
            found.append(f"{name}: is registered and not in the lock file")
        elif encode({name: old[name]}) != encode({name: new[name]}):
            found.append(f"{name}: {', '.join(_changed(old[name], new[name]))} changed")
    return found


def _changed(old: LockedTask, new: LockedTask) -> list[str]:
    said = []
    arguments = [(one.declaration.schema, one.declaration.rest, one.declaration.loose) for one in (old, new)]
    options = [(one.declaration.options, one.declaration.local) for one in (old, new)]
    for word, pair in (
        ("arguments", arguments), ("options", options), ("result", [old.result, new.result]),
        ("function", [old.function, new.function]),
    ):  # fmt: skip
        if msgspec.json.encode(pair[0], order="deterministic") != msgspec.json.encode(pair[1], order="deterministic"):
            said.append(word)
    return said
