"""What the soft time limit does to a running handler."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Generator
from typing import Any

from stemflow.runtime.tasks.context import SoftTimeLimitExceeded, TaskContext


class SoftLimit:
    """Sets `context.soft_timeout` when the limit has passed; with `raises` it also raises SoftTimeLimitExceeded.

    The error is raised in each handler that is awaited, once, at its current or next await.
    """

    __slots__ = ("_context", "_raises", "_task", "due")

    def __init__(self, context: TaskContext, raises: bool) -> None:
        self._context, self._raises = context, raises
        self._task: asyncio.Task[Any] | None = None
        """The asyncio task in which a handler is awaited now."""
        self.due = False
        """The error is still to be raised in that handler."""

    def expire(self) -> None:
        """The limit has passed. Called on the event loop that awaits the handler."""
        self._context.soft_timeout.set()
        if self._task is not None:
            self.due = True
            self._task.cancel()

    async def wait(self, handler: Awaitable[Any]) -> Any:
        """Await a handler; raises SoftTimeLimitExceeded in it when the limit passes, or has passed before."""
        if not self._raises:
            return await handler
        task = self._task = asyncio.current_task()
        assert task is not None
        if self._context.soft_timeout.is_set():
            self.due = True
            task.cancel()
        try:
            return await _Interruptible(handler, self, task)
        finally:
            self._task, self.due = None, False


class _Interruptible:
    """Awaits a handler; turns the cancellation by its soft limit into SoftTimeLimitExceeded."""

    def __init__(self, handler: Awaitable[Any], limit: SoftLimit, task: asyncio.Task[Any]) -> None:
        self._handler, self._limit, self._task = handler, limit, task

    def __await__(self) -> Generator[Any, None, Any]:
        inner: Any = self._handler.__await__()
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
                if self._limit.due:
                    self._limit.due = False
                    self._task.uncancel()
                    raised = SoftTimeLimitExceeded("the soft time limit has passed")
