"""Where a handler runs, and what its soft time limit does to it there."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Generator
from typing import Any, Literal

from stemflow.errors import OptionError
from stemflow.model.policy import Options
from stemflow.runtime.tasks.context import SoftTimeLimitExceeded, TaskContext

ExecutionMode = Literal["loop", "thread", "process"]


def execution_mode(is_async: bool, options: Options) -> ExecutionMode:
    """The place where a handler of this kind runs under these options."""
    if options.isolation == "process":
        return "process"
    return "loop" if is_async else "thread"


def check_place(where: str, function: Callable[..., Any], options: Options) -> None:
    """Refuse options that this kind of function cannot have; `where` begins the sentence. Raises OptionError."""
    is_async = inspect.iscoroutinefunction(function)
    if options.isolation == "process" and "<" in (qualname := inspect.unwrap(function).__qualname__):
        raise OptionError(
            f"{where}: isolation: expected a function at the top of a module for process, which another process can "
            f"import, got {qualname}; move it there"
        )
    if is_async and options.isolation == "thread":
        raise OptionError(
            f"{where}: isolation: expected async or process for an `async def`, got thread; write a plain `def` for a "
            "thread, or use process"
        )
    if not is_async and options.isolation == "async":
        raise OptionError(
            f"{where}: isolation: expected thread or process for a plain `def`, got async; it would block the event "
            "loop: write an `async def`"
        )
    if not is_async and options.soft_raises:
        raise OptionError(
            f"{where}: soft_raises: expected an `async def`, got a plain `def`, which never awaits; let it look at "
            "`context.soft_timeout`"
        )


def soften(context: TaskContext) -> None:
    """The soft limit has passed: the handler can see it, and it is raised where it awaits if the task asked for it."""
    context.soft_timeout.set()
    if context.strike is not None:
        context.strike()


class SoftLimit:
    """Drives a coroutine so that one SoftTimeLimitExceeded can be raised where it awaits."""

    def __init__(self, coroutine: Any) -> None:
        self.coroutine = coroutine
        self.due = False
        self.task: asyncio.Task[Any] | None = None

    def strike(self) -> None:
        self.due = True
        if self.task is not None:
            self.task.cancel()

    def __await__(self) -> Generator[Any, None, Any]:
        self.task = asyncio.current_task()
        if self.due and self.task is not None:
            self.task.cancel()  # told before it began: where it first awaits
        inner = self.coroutine.__await__()
        raised: BaseException | None = None
        while True:
            try:
                future = inner.throw(raised) if raised is not None else next(inner)
            except StopIteration as stop:
                return stop.value
            raised = None
            try:
                yield future
            except asyncio.CancelledError as cancelled:
                raised = cancelled
                if self.due and self.task is not None:
                    self.due = False
                    self.task.uncancel()
                    raised = SoftTimeLimitExceeded("the soft time limit has passed")
