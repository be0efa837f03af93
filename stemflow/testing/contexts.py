"""Contexts for calling a handler without an engine. They record what the handler asks for."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, TypeVar

from stemflow.model.signature import Signature
from stemflow.runtime.tasks.context import NOTHING, ChildRun, TaskCancelled, TaskContext
from stemflow.runtime.tasks.sync_context import SyncTaskContext
from stemflow.runtime.tasks.task import Task

T = TypeVar("T")

RUN_ID = "test-run"


class Asked:
    """The calls that a handler made on its context, in order. After `cancel()`, its next heartbeat raises
    TaskCancelled."""

    def __init__(self) -> None:
        self.heartbeats = 0
        self.extensions_ms: list[int] = []
        self.progress_reports: list[tuple[float, Any]] = []
        self.enqueued: list[Signature[Any, Any]] = []
        self.cancelled_runs: list[str] = []
        self.values: list[Any] = []
        """What calls of `context.run` return, in turn; then None."""

    async def heartbeat(self, context: TaskContext) -> None:
        self.heartbeats += 1

    async def extend_lease(self, context: TaskContext, for_ms: int) -> None:
        self.extensions_ms.append(for_ms)

    async def progress(self, context: TaskContext, percent: float, data: Any) -> None:
        self.progress_reports.append((percent, data))

    async def enqueue(self, context: TaskContext, child: ChildRun) -> str:
        self.enqueued.append(child.signature)
        return child.run_id or f"{context.run_id}-child-{len(self.enqueued)}"

    async def run_child(self, context: TaskContext, child: ChildRun) -> Any:
        self.enqueued.append(child.signature)
        return self.values.pop(0) if self.values else None

    async def cancel_run(self, context: TaskContext, run_id: str, force: bool) -> str:
        self.cancelled_runs.append(run_id)
        return "running"

    async def release_slot(self, context: TaskContext) -> None:
        """A recorded context has no slot."""

    async def retake_slot(self, context: TaskContext, at_once: bool) -> None:
        """A recorded context has no slot."""


class RecordedContext(TaskContext):
    """A context for an `async def`. `asked` records the handler's calls, `added` what it added to its group."""

    def __init__(self, *, services: Asked, **given: Any) -> None:
        super().__init__(services=services, **given)
        self.asked = services

    def cancel(self) -> None:
        """Mark the run as stopped."""
        self.cancelled.set()


class RecordedSyncContext(SyncTaskContext):
    """A context for a plain `def`, with the same records."""

    def __init__(self, *, services: Asked, **given: Any) -> None:
        super().__init__(services=services, **given)
        self.asked = services

    def cancel(self) -> None:
        """Mark the run as stopped."""
        self.cancelled.set()


def context_for(task: Task[..., Any] | str = "test", **fields: Any) -> Any:
    """Make a context for calling the handler of `task`: a RecordedSyncContext for a plain `def`, else a
    RecordedContext.

    `fields` are those of a TaskContext: `attempt`, `max_retries`, `headers`, `meta`, `run_id`, `node`, `queue`,
    `enqueued_at_ms`, `deadline_ms`, `parent_id`, `root_id`, `state`, `in_fan_in` (default: true).
    """
    plain = isinstance(task, Task) and not task.is_async
    name = task if isinstance(task, str) else task.name
    asked = Asked()
    given = {"run_id": RUN_ID, "node": "", "in_fan_in": True, "headers": NOTHING, "meta": NOTHING, **fields}
    if plain:
        return RecordedSyncContext(name=name, services=asked, ask=_at_once, **given)
    return RecordedContext(name=name, services=asked, **given)


def _at_once(question: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that never waits."""
    try:
        question.send(None)
    except StopIteration as answer:
        value: T = answer.value
        return value
    question.close()
    raise TaskCancelled("a recorded context waits for nothing, and something waited")
