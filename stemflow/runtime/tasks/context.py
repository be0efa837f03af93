"""What a handler is given of its task, and what it may ask of the engine while it runs."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping
from contextvars import ContextVar
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, NoReturn, Protocol

from stemflow.errors import OptionError, StemflowError
from stemflow.model.policy import RetryPolicy, normalise
from stemflow.model.records import task_id
from stemflow.model.signature import Signature
from stemflow.units import Duration, duration_of


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


class HandBack(StemflowError):
    """Give this delivery back, uncharged: no attempt is counted, and no worker gets the task for `delay`."""

    def __init__(self, delay: Duration = "1s") -> None:
        super().__init__("the delivery is handed back")
        self.delay_ms = duration_of("HandBack: delay", delay)


class RetryRequested(StemflowError):
    """What `context.retry` raises; caught by the worker."""

    def __init__(
        self,
        after_ms: int | None,
        eta_at_ms: int | None,
        policy: RetryPolicy | None,
        max_retries: int | None,
        cause: BaseException | None,
    ) -> None:
        super().__init__("the handler asked for a retry")
        self.after_ms, self.eta_at_ms, self.policy = after_ms, eta_at_ms, policy
        self.max_retries, self.cause = max_retries, cause


class ReplaceRequested(StemflowError):
    """What `context.replace` raises; caught by the worker."""

    def __init__(self, signature: Signature[Any, Any]) -> None:
        super().__init__("the handler put a sub-graph in its place")
        self.signature = signature


class HandlerServices(Protocol):
    """What the worker does for a running handler; all of it that needs the store or the engine."""

    async def heartbeat(self, context: TaskContext) -> None: ...
    async def extend_lease(self, context: TaskContext, for_ms: int) -> None: ...
    async def progress(self, context: TaskContext, percent: float, data: Any) -> None: ...
    async def enqueue(
        self,
        context: TaskContext,
        signature: Signature[Any, Any],
        headers: Mapping[str, str],
        meta: Mapping[str, Any],
        run_id: str | None,
    ) -> str: ...


NOTHING: Mapping[str, Any] = MappingProxyType({})
LATEST_S = 253_402_300_799
"""The end of the year 9999."""


class TaskContext:
    """One attempt of one task.

    `id` is the same over retries (run id, or run id/path): use it as an idempotency key. `attempt` counts from 0.
    `headers` and `meta` are the run's with the signature's own put over them. `parent_id` is the task that led to this
    one (the step before, or the task that started the run), `root_id` the run that no task started.
    """

    __slots__ = (
        "run_id", "node", "name", "attempt", "max_retries", "args", "kwargs", "headers", "meta", "queue",
        "enqueued_at_ms", "deadline_ms", "parent_id", "root_id", "delivery", "in_fan_in", "cancelled", "soft_timeout",
        "raise_soft_limit", "added", "_services",
    )  # fmt: skip

    def __init__(
        self,
        *,
        run_id: str,
        node: str,
        name: str,
        services: HandlerServices,
        attempt: int = 0,
        max_retries: int = 0,
        headers: Mapping[str, str] = NOTHING,
        meta: Mapping[str, Any] = NOTHING,
        queue: str = "default",
        enqueued_at_ms: int = 0,
        deadline_ms: int | None = None,
        parent_id: str | None = None,
        root_id: str | None = None,
        delivery: int = 0,
        in_fan_in: bool = False,
    ) -> None:
        self.run_id, self.node, self.name = run_id, node, name
        self.attempt, self.max_retries = attempt, max_retries
        self.args: tuple[Any, ...] = ()
        self.kwargs: Mapping[str, Any] = NOTHING
        self.headers, self.meta = MappingProxyType(headers), MappingProxyType(meta)
        self.queue = queue
        self.enqueued_at_ms, self.deadline_ms = enqueued_at_ms, deadline_ms
        self.parent_id, self.root_id = parent_id, root_id or run_id
        self.delivery = delivery
        self.in_fan_in = in_fan_in
        self.cancelled, self.soft_timeout = asyncio.Event(), asyncio.Event()
        self.raise_soft_limit: Callable[[], None] | None = None
        """Raises SoftTimeLimitExceeded where the handler awaits."""
        self.added: list[Signature[Any, Any]] = []
        self._services = services

    @property
    def id(self) -> str:
        return task_id((self.run_id, self.node))

    @property
    def enqueued_at(self) -> datetime:
        """When the task became known to the store, in UTC by the store's clock."""
        return _instant(self.enqueued_at_ms)

    @property
    def deadline(self) -> datetime | None:
        """When the hard time limit ends this attempt, in UTC by the store's clock; None without a limit."""
        return None if self.deadline_ms is None else _instant(self.deadline_ms)

    @property
    def logger(self) -> logging.LoggerAdapter[logging.Logger]:
        """Logs under `stemflow.task.NAME` with the task's id and attempt."""
        extra = {"task_id": self.id, "attempt": self.attempt}
        return logging.LoggerAdapter(logging.getLogger(f"stemflow.task.{self.name}"), extra)

    async def heartbeat(self) -> None:
        """Renew the lease now; raises TaskCancelled if the run was stopped or the lease is lost."""
        if self.cancelled.is_set():
            raise TaskCancelled(f"task {self.id}: its run was stopped")
        await self._services.heartbeat(self)

    async def extend_lease(self, duration: Duration) -> None:
        """Keep the lease for at least `duration` (seconds, or `"10m"`) from now, even if no renewal reaches the store.

        Raises TaskCancelled as `heartbeat` does.
        """
        await self._services.extend_lease(self, duration_of(f"task {self.id}: extend_lease", duration))

    async def progress(self, percent: float, data: Any = None) -> None:
        """Report progress, 0 to 100, with any JSON data: stored for an hour, shown to whoever follows the run."""
        if not 0 <= percent <= 100:
            raise OptionError(f"task {self.id}: progress: expected a percentage from 0 to 100, got {percent!r}")
        await self._services.progress(self, percent, data)

    async def enqueue(
        self,
        signature: Signature[Any, Any],
        *,
        headers: Mapping[str, str] = NOTHING,
        meta: Mapping[str, Any] = NOTHING,
        run_id: str | None = None,
    ) -> str:
        """Start a run of its own for `signature`; answers its run id.

        It inherits the ids of its parent and root and the headers that the engine propagates, and nothing else. Under
        a `run_id` made of `context.id` a later attempt finds the run that an earlier one has started.
        """
        return await self._services.enqueue(self, signature, headers, meta, run_id)

    spawn = enqueue

    async def add_to_group(self, signature: Signature[Any, Any]) -> None:
        """Add a member to the fan-in that this task runs in; it joins in the commit that ends this task well."""
        if not self.in_fan_in:
            raise StemflowError(
                f"task {self.id}: add_to_group: expected a group, chord header or map around it, found none"
            )
        self.added.append(signature)

    def retry(
        self,
        *,
        countdown: Duration | None = None,
        eta: datetime | float | None = None,
        policy: RetryPolicy | None = None,
        max_retries: int | None = None,
        cause: BaseException | None = None,
    ) -> Coroutine[Any, Any, NoReturn]:
        """End this attempt and try again: in `countdown`, at `eta` (aware, or epoch seconds), else by `policy` or the
        task's own. `max_retries` counts for this failure instead of the task's. Never returns.
        """
        if countdown is not None and eta is not None:
            raise OptionError(f"task {self.id}: retry: expected countdown or eta, got both")
        where = f"task {self.id}: retry"
        if policy is not None and not isinstance(policy, RetryPolicy):
            raise OptionError(f"{where}: policy: expected a RetryPolicy, got {policy!r}")
        if max_retries is not None:
            max_retries = normalise({"max_retries": max_retries}, where)["max_retries"]
        after_ms = None if countdown is None else duration_of(f"{where}: countdown", countdown)
        eta_at_ms = None if eta is None else instant_ms(eta, where)
        raise RetryRequested(after_ms, eta_at_ms, policy, max_retries, cause)

    def replace(self, signature: Signature[Any, Any]) -> Coroutine[Any, Any, NoReturn]:
        """End this attempt and run `signature` in this task's place. Never returns."""
        raise ReplaceRequested(signature)


def _instant(at_ms: int) -> datetime:
    return datetime.fromtimestamp(at_ms / 1_000, UTC)


def instant_ms(eta: datetime | float, where: str) -> int:
    """Epoch milliseconds of an aware datetime or of epoch seconds; `where` begins the error's sentence."""
    if isinstance(eta, datetime):
        if eta.tzinfo is None:
            raise OptionError(f"{where}: eta: expected a datetime with a time zone, got {eta}; add tzinfo=UTC")
        return int(eta.timestamp() * 1_000)
    if isinstance(eta, bool) or not isinstance(eta, (int, float)) or not 0 <= eta <= LATEST_S:
        raise OptionError(
            f"{where}: eta: expected an aware datetime, or seconds since the epoch up to the year 9999, got {eta!r}"
        )
    return int(eta * 1_000)


_current: ContextVar[TaskContext | None] = ContextVar("stemflow_context", default=None)


def current_context() -> TaskContext | None:
    """The context of the task that is running here, or None outside one."""
    return _current.get()


def enter(context: TaskContext) -> Callable[[], None]:
    """Make `context` the current one; call the answer to undo it."""
    token = _current.set(context)
    return lambda: _current.reset(token)
