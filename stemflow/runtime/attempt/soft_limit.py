"""What the soft time limit of a handler does to it where it runs."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from typing import Any

from stemflow.runtime.tasks.context import SoftTimeLimitExceeded, TaskContext


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
