"""Signals: events of tasks, runs and workers in this process, for listeners, which cannot change what happens."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Generic, Literal, TypeVar

from msgspec import Struct

from stemflow.model.records import ErrorInfo, task_id
from stemflow.runtime.runs.progress import Progress
from stemflow.runtime.tasks.context import TaskContext

E = TypeVar("E", bound="TaskEvent | RunEvent | WorkerEvent | RegistryEvent")
F = TypeVar("F", bound="Callable[..., Any]")

log = logging.getLogger("stemflow.signals")

PATIENCE_S = 5.0
"""How long a closing engine waits for listeners that are still running, in seconds."""


class TaskEvent(Struct, frozen=True, kw_only=True):
    """An event of a task. `signal`: the name of the signal. `task`, `queue`: of the task. `run_id`, `node`: the address
    of the node. `attempt`: from 0. `at_ms`: epoch milliseconds by the store's clock. `error`: of the attempt.
    `progress`: for `progress`. Fields that the signal does not use are None."""

    signal: str
    task: str
    run_id: str
    node: str
    attempt: int
    queue: str
    at_ms: int
    error: ErrorInfo | None = None
    next_at_ms: int | None = None
    """For `retry`: when the next attempt is due, in epoch milliseconds."""
    limit: Literal["soft", "hard"] | None = None
    """For `timeout`: which limit has passed."""
    progress: Progress | None = None
    context: TaskContext | None = None
    """For `prerun`, `postrun`, `progress` and `timeout`: the context of the attempt."""

    @property
    def id(self) -> str:
        """The id of the task, as `TaskContext.id`."""
        return task_id((self.run_id, self.node))


class RunEvent(Struct, frozen=True, kw_only=True):
    """An event of a run. `signal`: the name of the signal. `name`: that of the workflow or first task. `headers`: those
    of the run. `at_ms`: epoch milliseconds by the store's clock. `error`: of a run that failed. `existing`: for
    `after_publish`: the unique key or the id belongs to an earlier run, which is `run_id`."""

    signal: str
    run_id: str
    name: str
    at_ms: int
    headers: Mapping[str, str] = {}
    existing: bool = False
    error: ErrorInfo | None = None


class WorkerEvent(Struct, frozen=True, kw_only=True):
    """An event of a worker. `signal`: the name of the signal. `worker`: its id in the store. `at_ms`: epoch
    milliseconds by the store's clock. `running`: the number of tasks that it runs. `error`: for `worker_error`."""

    signal: str
    worker: str
    at_ms: int
    running: int = 0
    error: ErrorInfo | None = None


class RegistryEvent(Struct, frozen=True, kw_only=True):
    """An event of a registry. `signal`: its name. `task`: the name of the task that was registered, or replaced."""

    signal: str
    task: str


class Signal(Generic[E]):
    """The listeners of one kind of event. It is true if there are any.

    @registry.signals.failed.connect
    def alert(event: TaskEvent) -> None:
        page(f"{event.id} failed: {event.error.message}")
    """

    __slots__ = ("name", "listeners", "_followed")

    def __init__(self, name: str, followed: set[asyncio.Task[Any]]) -> None:
        self.name = name
        self.listeners: list[Callable[[E], Any]] = []
        """In the order of connecting; where each task asks whether there are any, this is read, and not called."""
        self._followed = followed

    def __bool__(self) -> bool:
        return bool(self.listeners)

    def connect(self, listener: F) -> F:
        """Add a listener and return it, so that it can be a decorator.

        `listener(event)` is called on the event loop for each event, in the order of connecting. If it is an
        `async def`, it continues as an asyncio task of its own. What it raises is logged.
        """
        self.listeners.append(listener)
        return listener

    def disconnect(self, listener: Callable[..., Any]) -> None:
        """Remove a listener, if it is connected."""
        if listener in self.listeners:
            self.listeners.remove(listener)

    def send(self, event: E) -> None:
        """Call all listeners; what one raises is logged, and the others are called."""
        for listener in tuple(self.listeners):
            try:
                answer = listener(event)
            except KeyboardInterrupt:
                raise
            except BaseException:
                log.exception("signal %s: its listener %r raised; outcomes are not affected", self.name, listener)
                continue
            if inspect.iscoroutine(answer):
                try:
                    loop = asyncio.get_running_loop()
                except RuntimeError:  # tasks are registered while modules are imported
                    answer.close()
                    log.error("signal %s: its listener %r is async, and no event loop runs", self.name, listener)
                    continue
                task = loop.create_task(self._finish(answer, listener))
                self._followed.add(task)
                task.add_done_callback(self._followed.discard)

    async def _finish(self, answer: Coroutine[Any, Any, Any], listener: Callable[..., Any]) -> None:
        try:
            await answer
        except Exception:
            log.exception("signal %s: its listener %r raised; outcomes are not affected", self.name, listener)


class Signals:
    """All signals of a registry: of tasks, of runs, and of the workers that serve it in this process."""

    def __init__(self) -> None:
        self._followed: set[asyncio.Task[Any]] = set()
        self.registered: Signal[RegistryEvent] = self._signal("registered")
        self.before_publish: Signal[RunEvent] = self._signal("before_publish")
        self.after_publish: Signal[RunEvent] = self._signal("after_publish")
        self.received: Signal[TaskEvent] = self._signal("received")
        self.prerun: Signal[TaskEvent] = self._signal("prerun")
        self.postrun: Signal[TaskEvent] = self._signal("postrun")
        self.progress: Signal[TaskEvent] = self._signal("progress")
        self.timeout: Signal[TaskEvent] = self._signal("timeout")
        self.retry: Signal[TaskEvent] = self._signal("retry")
        self.succeeded: Signal[TaskEvent] = self._signal("succeeded")
        self.failed: Signal[TaskEvent] = self._signal("failed")
        self.cancelled: Signal[TaskEvent] = self._signal("cancelled")
        self.run_started: Signal[RunEvent] = self._signal("run_started")
        self.run_completed: Signal[RunEvent] = self._signal("run_completed")
        self.run_failed: Signal[RunEvent] = self._signal("run_failed")
        self.run_cancelled: Signal[RunEvent] = self._signal("run_cancelled")
        self.run_suspended: Signal[RunEvent] = self._signal("run_suspended")
        self.run_resumed: Signal[RunEvent] = self._signal("run_resumed")
        self.worker_init: Signal[WorkerEvent] = self._signal("worker_init")
        self.worker_ready: Signal[WorkerEvent] = self._signal("worker_ready")
        self.worker_heartbeat: Signal[WorkerEvent] = self._signal("worker_heartbeat")
        self.worker_error: Signal[WorkerEvent] = self._signal("worker_error")
        self.worker_stopping: Signal[WorkerEvent] = self._signal("worker_stopping")
        self.worker_shutdown: Signal[WorkerEvent] = self._signal("worker_shutdown")
        self.of_ends: dict[str, Signal[TaskEvent]] = {
            "succeeded": self.succeeded, "failed": self.failed, "cancelled": self.cancelled,
        }  # fmt: skip
        self.of_run_ends: dict[str, Signal[RunEvent]] = {
            "succeeded": self.run_completed, "skipped": self.run_completed,
            "failed": self.run_failed, "cancelled": self.run_cancelled,
        }  # fmt: skip

    @property
    def listens_to_task_ends(self) -> bool:
        """Whether somebody listens to retries or ends of tasks."""
        ends = self.succeeded.listeners or self.failed.listeners or self.cancelled.listeners
        return bool(ends or self.retry.listeners)

    @property
    def listens_to_run_ends(self) -> bool:
        """Whether somebody listens to ends of runs."""
        return bool(self.run_completed.listeners or self.run_failed.listeners or self.run_cancelled.listeners)

    def join(self, other: Signals) -> None:
        """Add the listeners that are connected to another registry now."""
        for name, signal in vars(self).items():
            if isinstance(signal, Signal):
                for listener in getattr(other, name).listeners:
                    signal.connect(listener)

    def _signal(self, name: str) -> Signal[Any]:
        return Signal(name, self._followed)

    async def settle(self) -> None:
        """Wait for async listeners that are still running on this loop, at most 5 s; then cancel them."""
        loop = asyncio.get_running_loop()
        mine = {task for task in self._followed if task.get_loop() is loop and task is not asyncio.current_task()}
        if not mine:
            return
        _, late = await asyncio.wait(mine, timeout=PATIENCE_S)
        for task in late:
            log.warning("a listener has not returned within %g s and is cancelled: %r", PATIENCE_S, task.get_coro())
            task.cancel()
        if late:
            await asyncio.wait(late, timeout=PATIENCE_S)
