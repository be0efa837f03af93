"""What the soft time limit does to a running handler."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from typing import Any

from stemflow.runtime.tasks.context import SoftTimeLimitExceeded, TaskContext


def signal_soft_limit(context: TaskContext) -> None:
    """Set `context.soft_timeout`, and raise SoftTimeLimitExceeded where the handler awaits if the task asked for it."""
    context.soft_timeout.set()
    if context.raise_soft_limit is not None:
        context.raise_soft_limit()


class SoftLimit:
    """Awaits a coroutine so that SoftTimeLimitExceeded can be raised in it, once, at its current or next await."""

    def __init__(self, coroutine: Any) -> None:
        self.coroutine = coroutine
        self.due = False
        self.task: asyncio.Task[Any] | None = None

    def raise_soft_limit(self) -> None:
        """The soft limit has passed: raise in the coroutine."""
        self.due = True
        if self.task is not None:
            self.task.cancel()

    def __await__(self) -> Generator[Any, None, Any]:
        self.task = asyncio.current_task()
        if self.due and self.task is not None:
            self.task.cancel()  # the limit passed before the start: raise at the first await
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
