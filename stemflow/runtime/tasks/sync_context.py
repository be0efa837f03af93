"""The context of a plain `def`: the same questions, asked from a thread, with methods that block."""

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
"""How often a thread that waits for an answer looks whether the loop is still there."""


class SyncTaskContext(TaskContext):
    """What a plain `def` is given: a `TaskContext` whose methods block until the engine has answered.

    `cancelled` and `soft_timeout` are `threading.Event`s: look at them, or `wait` for them.
    """

    __slots__ = ("ask",)

    cancelled: threading.Event  # type: ignore[assignment]
    soft_timeout: threading.Event  # type: ignore[assignment]

    def __init__(self, **given: Any) -> None:
        super().__init__(**given)
        self.cancelled, self.soft_timeout = threading.Event(), threading.Event()
        self.ask: Callable[[Coroutine[Any, Any, Any]], Any]

    def heartbeat(self) -> None:  # type: ignore[override]
        """Renew the lease now; raises TaskCancelled if the run was stopped or the lease is lost."""
        self.ask(super().heartbeat())

    def extend_lease(self, duration: Duration) -> None:  # type: ignore[override]
        """Keep the lease for at least `duration` from now, as `TaskContext.extend_lease`."""
        self.ask(super().extend_lease(duration))

    def progress(self, percent: float, data: Any = None) -> None:  # type: ignore[override]
        """Report progress, 0 to 100, with any JSON data: stored for an hour, shown to whoever follows the run."""
        self.ask(super().progress(percent, data))

    def enqueue(self, signature: Signature[Any, Any], **given: Any) -> str:  # type: ignore[override]
        """Start a run of its own for `signature`; answers its run id. `given` is that of `TaskContext.enqueue`."""
        return str(self.ask(super().enqueue(signature, **given)))

    spawn = enqueue  # type: ignore[assignment]

    def add_to_group(self, signature: Signature[Any, Any]) -> None:  # type: ignore[override]
        """Add a member to the fan-in that this task runs in; it joins in the commit that ends this task well."""
        self.ask(super().add_to_group(signature))

    def retry(self, **how: Any) -> NoReturn:
        """End this attempt and try again, as `TaskContext.retry`. Never returns."""
        raise AssertionError(super().retry(**how))

    def replace(self, signature: Signature[Any, Any]) -> NoReturn:
        """End this attempt and run `signature` in this task's place. Never returns."""
        raise AssertionError(super().replace(signature))


def ask_loop(loop: asyncio.AbstractEventLoop, context: TaskContext, question: Coroutine[Any, Any, T]) -> T:
    """Have `question` answered on the engine's loop, and wait for it in this thread. Raises TaskCancelled when the
    loop has gone."""
    if threading.get_ident() == getattr(loop, "_thread_id", None):
        question.close()
        raise StemflowError(
            f"task {context.id}: expected to be asked from a thread, got a call on the event loop, which would wait "
            "for itself; make the handler an `async def`"
        )
    gone = TaskCancelled(f"task {context.id}: its worker has gone")
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
