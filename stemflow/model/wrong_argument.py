"""Descriptions of arguments that are no signatures or no exceptions, for the errors of the modifiers of signatures."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from stemflow.errors import OptionError


def type_names(given: Iterable[str | type[BaseException]]) -> tuple[str, ...]:
    """The names of classes of exceptions; raises OptionError."""
    if isinstance(given, (str, type)):
        given = (given,)
    names: list[str] = []
    for one in given:
        if isinstance(one, type) and issubclass(one, BaseException):
            names.append(f"{one.__module__}.{one.__qualname__}")
        elif isinstance(one, str) and one:
            names.append(one)
        else:
            raise OptionError(f"catch: on: expected classes of exceptions or their names, got {one!r}")
    return tuple(names)


def described(value: Any) -> str:
    """A description of what was given instead of a signature, and how to make one from it."""
    if callable(getattr(value, "s", None)):
        name = getattr(value, "name", "task")
        return f"the task {name}; call .s(...) on it: {name}.s(...)"
    owner = getattr(value, "__self__", None)
    if callable(value) and callable(getattr(owner, "s", None)):
        called = f".{getattr(value, '__name__', 's')}"
        return f"the method {called} of the task {getattr(owner, 'name', '')}; call it: {called}(...)"
    if isinstance(value, str):
        return f"the text {value[:80]!r}; write Canvas.task({value[:80]!r}, ...) for a task by its name, or task.s(...)"
    if isinstance(value, (list, tuple, set, frozenset)):
        return f"a {type(value).__name__}; put its signatures into Canvas.group(...) or Canvas.chain(...)"
    if callable(value):
        name = getattr(value, "__name__", type(value).__name__)
        return f"the function {name}; register it with @registry.task() and call .s(...) on the task"
    return f"{type(value).__name__}; call .s(...) on a task, or use a constructor of Canvas"
