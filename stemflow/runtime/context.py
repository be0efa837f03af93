"""What a handler is given of its task, and what it may ask of the engine while it runs."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping
from contextvars import ContextVar
from typing import Any, Protocol

from stemflow.errors import StemflowError
from stemflow.model.signature import Signature


class TaskCancelled(StemflowError):
    """The run was stopped, or the lease was lost: nothing that this handler reports counts any more."""


class SoftTimeLimitExceeded(StemflowError):
    """The soft time limit has passed; raised once where the handler awaits, if the task asked for it."""


class TaskTimeout(StemflowError):
    """The hard time limit has passed; the attempt failed."""


class Ignore(StemflowError):
    """Raised by a handler: end as SKIPPED by its own condition."""


class Reject(StemflowError):
    """Raised by a handler: fail at once, without a retry."""


class RetryRequested(StemflowError):
    """What `context.retry` raises; caught by the worker."""

    def __init__(self, after_ms: int | None, max_retries: int | None, cause: BaseException | None) -> None:
        super().__init__("the handler asked for a retry")
        self.after_ms, self.max_retries, self.cause = after_ms, max_retries, cause


class ReplaceRequested(StemflowError):
    """What `context.replace` raises; caught by the worker."""

    def __init__(self, signature: Signature[Any, Any]) -> None:
        super().__init__("the handler put a sub-graph in its place")
        self.signature = signature


class Backstage(Protocol):
    """What the worker does for a running handler."""

    async def heartbeat(self, context: TaskContext) -> None: ...
    async def progress(self, context: TaskContext, percent: float, data: Any) -> None: ...
    async def enqueue(self, context: TaskContext, signature: Signature[Any, Any]) -> str: ...


class TaskContext:
    """One attempt of one task.

    `id` is the same over retries (run id, or run id/path): use it as an idempotency key. `attempt` counts from 0.
    """

    __slots__ = (
        "run_id", "node", "name", "attempt", "max_retries", "args", "kwargs", "queue", "enqueued_at_ms", "deadline_ms",
        "cancelled", "soft_timeout", "told", "added", "in_fan_in", "parent_id", "_backstage",
    )  # fmt: skip

    def __init__(
        self, *, run_id: str, node: str, name: str, attempt: int, max_retries: int, backstage: Backstage
    ) -> None:
        self.run_id = run_id
        self.node = node
        self.name = name
        self.attempt = attempt
        self.max_retries = max_retries
        self.args: tuple[Any, ...] = ()
        self.kwargs: Mapping[str, Any] = {}
        self.queue = "default"
        self.enqueued_at_ms = 0
        self.deadline_ms: int | None = None
        self.cancelled = asyncio.Event()
        self.soft_timeout = asyncio.Event()
        self.told: tuple[float, Any] | None = None
        self.added: list[Signature[Any, Any]] = []
        self.in_fan_in = False
        self.parent_id: str | None = None
        self._backstage = backstage

    @property
    def id(self) -> str:
        return f"{self.run_id}/{self.node}" if self.node else self.run_id

    @property
    def root_id(self) -> str:
        return self.run_id

    @property
    def logger(self) -> logging.LoggerAdapter[logging.Logger]:
        """Logs under `stemflow.task.NAME` with the task's id and attempt."""
        extra = {"task_id": self.id, "attempt": self.attempt}
        return logging.LoggerAdapter(logging.getLogger(f"stemflow.task.{self.name}"), extra)

    async def heartbeat(self) -> None:
        """Renew the lease now; raises TaskCancelled if the run was stopped or the lease is lost."""
        if self.cancelled.is_set():
            raise TaskCancelled(f"task {self.id}: its run was stopped")
        await self._backstage.heartbeat(self)

    async def progress(self, percent: float, data: Any = None) -> None:
        """Report progress, 0 to 100, with any JSON data; it is shown beside the running task."""
        await self._backstage.progress(self, percent, data)

    async def enqueue(self, signature: Signature[Any, Any]) -> str:
        """Start a run of its own for `signature`; answers its run id. It inherits nothing but the parent's id."""
        return await self._backstage.enqueue(self, signature)

    spawn = enqueue

    def add_to_group(self, signature: Signature[Any, Any]) -> None:
        """Add a member to the fan-in that this task runs in; it joins in the commit that ends this task well."""
        if not self.in_fan_in:
            raise StemflowError(
                f"task {self.id}: add_to_group: expected a group, chord header or map around it, found none"
            )
        self.added.append(signature)

    def retry(
        self, *, countdown: float | None = None, max_retries: int | None = None, cause: BaseException | None = None
    ) -> Coroutine[Any, Any, None]:
        """End this attempt and try again in `countdown` seconds (default: by the task's policy). Never returns."""
        raise RetryRequested(None if countdown is None else int(countdown * 1_000), max_retries, cause)

    def replace(self, signature: Signature[Any, Any]) -> Coroutine[Any, Any, None]:
        """End this attempt and run `signature` in this task's place. Never returns."""
        raise ReplaceRequested(signature)


_current: ContextVar[TaskContext | None] = ContextVar("stemflow_context", default=None)


def current_context() -> TaskContext | None:
    """The context of the task that is running here, or None outside one."""
    return _current.get()


def enter(context: TaskContext) -> Callable[[], None]:
    """Make `context` the current one; call the answer to undo it."""
    token = _current.set(context)
    return lambda: _current.reset(token)
