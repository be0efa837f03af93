"""The context of a handler that is a plain function: the same requests, by methods that block its thread."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import CancelledError
from typing import Any, NoReturn, TypeVar

from stemflow.errors import StemflowError
from stemflow.model.signature import Signature
from stemflow.runtime.tasks.context import TaskCancelled, TaskContext
from stemflow.units import Duration

T = TypeVar("T")

ANSWER_S = 1.0
"""How often a thread that waits for an answer checks that the event loop is still open, in seconds."""


class SyncTaskContext(TaskContext):
    """The `TaskContext` of a plain `def`; its methods block until the worker has answered.

    `cancelled` and `soft_timeout` are `threading.Event`s: check them, or `wait` for them.

        @registry.task("shrink")
        def shrink(context: SyncTaskContext, path: str) -> None:
            while not context.cancelled.is_set() and step(path):
                context.heartbeat()
    """

    __slots__ = ("_ask",)

    cancelled: threading.Event  # type: ignore[assignment]
    soft_timeout: threading.Event  # type: ignore[assignment]

    def __init__(self, *, ask: Callable[[Coroutine[Any, Any, Any]], Any], **given: Any) -> None:
        super().__init__(**given)
        self.cancelled, self.soft_timeout = threading.Event(), threading.Event()
        self._ask = ask

    def heartbeat(self) -> None:  # type: ignore[override]
        """Renew the lease now, as `TaskContext.heartbeat`. Raises TaskCancelled."""
        self._ask(super().heartbeat())

    def extend_lease(self, duration: Duration) -> None:  # type: ignore[override]
        """Keep the lease for at least `duration` from now, as `TaskContext.extend_lease`. Raises TaskCancelled."""
        self._ask(super().extend_lease(duration))

    def progress(self, percent: float, data: Any = None) -> None:  # type: ignore[override]
        """Report progress: `percent` from 0 to 100, and any JSON `data`, as `TaskContext.progress`."""
        self._ask(super().progress(percent, data))

    def enqueue(self, signature: Signature[Any, Any], **given: Any) -> str:  # type: ignore[override]
        """Submit `signature` as a run of its own and return the run id. `given`: as in `TaskContext.enqueue`."""
        return str(self._ask(super().enqueue(signature, **given)))

    spawn = enqueue  # type: ignore[assignment]

    def run(self, signature: Signature[Any, Any], **given: Any) -> Any:
        """Submit `signature` as a run of its own and return its value. `given`: as in `TaskContext.run`."""
        return self._ask(super().run(signature, **given))

    def cancel_run(self, run_id: str, *, force: bool = False) -> str:  # type: ignore[override]
        """Cancel the run `run_id`, with `force` at once; return the state it was in. Raises UnknownRun."""
        return str(self._ask(super().cancel_run(run_id, force=force)))

    def add_to_group(self, signature: Signature[Any, Any]) -> None:  # type: ignore[override]
        """Add `signature` as a member to the fan-in of this task, as `TaskContext.add_to_group`."""
        self._ask(super().add_to_group(signature))

    def retry(self, **how: Any) -> NoReturn:
        """End this attempt and retry the task; never returns. `how`: as in `TaskContext.retry`."""
        raise AssertionError(super().retry(**how))

    def replace(self, signature: Signature[Any, Any]) -> NoReturn:
        """End this attempt and run `signature` instead, as `TaskContext.replace`; never returns."""
        raise AssertionError(super().replace(signature))


def ask_loop(loop: asyncio.AbstractEventLoop, task_id: str, question: Coroutine[Any, Any, T]) -> T:
    """Run the coroutine `question` on the event loop of the worker, and wait for its result in this thread.

    Raises TaskCancelled if the loop is closed, StemflowError if this is the thread of the loop.
    """
    if threading.get_ident() == getattr(loop, "_thread_id", None):
        question.close()
        raise StemflowError(
            f"task {task_id}: expected a call in the thread of the handler, got one on the event loop, which it "
            "would block; make the handler an `async def`"
        )
    gone = TaskCancelled(f"task {task_id}: its worker has gone")
    if loop.is_closed():
        question.close()
        raise gone
    answer = asyncio.run_coroutine_threadsafe(question, loop)
    while True:
        try:
            return answer.result(ANSWER_S)
        except CancelledError:
            raise gone from None
        except TimeoutError:
            if loop.is_closed():
                raise gone from None
            if answer.done():
                raise
