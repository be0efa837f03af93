"""The context of a running handler: what it can read about its task, and what it can request from the worker."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping
from contextvars import Context, ContextVar, copy_context
from datetime import UTC, datetime
from functools import partial
from types import MappingProxyType
from typing import Any, NamedTuple, NoReturn, Protocol

from stemflow.errors import OptionError, StemflowError
from stemflow.model.policy import RetryPolicy, normalise
from stemflow.model.records import task_id
from stemflow.model.signature import Signature
from stemflow.runtime.tasks.secrets import RedactingLogger, Redaction
from stemflow.units import Duration, duration_of, instant_ms


class TaskCancelled(StemflowError):
    """The run was cancelled, or the lease was lost: the result of this attempt will not be stored."""


class SoftTimeLimitExceeded(StemflowError):
    """The soft time limit has passed; raised once where the handler awaits, if the task has `soft_raises=True`."""


class TaskTimeout(StemflowError):
    """The hard time limit has passed; the error of an attempt that was ended by it."""


class Ignore(StemflowError):
    """Raised by a handler to end its task as SKIPPED (cause `condition`): `raise Ignore("nothing to do")`."""


class Reject(StemflowError):
    """Raised by a handler to fail its task at once, without a retry: `raise Reject("no such order")`."""


class HandBack(StemflowError):
    """Raised by a handler or middleware to give the task back: no attempt is counted.

    `delay`: how long no worker gets the task, in seconds or as text such as `"1m"`. Raises UnitError.
    """

    def __init__(self, delay: Duration = "1s") -> None:
        super().__init__("the delivery is handed back")
        self.delay_ms = duration_of("HandBack: delay", delay)


class RetryRequested(StemflowError):
    """Raised by `context.retry`; the worker turns it into the outcome of the attempt. Do not catch it."""

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
    """Raised by `context.replace`; the worker turns it into the outcome of the attempt. Do not catch it."""

    def __init__(self, signature: Signature[Any, Any]) -> None:
        super().__init__("the handler replaced its task")
        self.signature = signature


class ChildRun(NamedTuple):
    """A run that a handler starts: what it runs, its headers and meta, and its id, if the handler has chosen one."""

    signature: Signature[Any, Any]
    headers: Mapping[str, str]
    meta: Mapping[str, Any]
    run_id: str | None


class HandlerServices(Protocol):
    """What the worker does for a running handler: whatever needs the store or the engine. See `TaskContext`."""

    async def heartbeat(self, context: TaskContext) -> None: ...
    async def extend_lease(self, context: TaskContext, for_ms: int) -> None: ...
    async def progress(self, context: TaskContext, percent: float, data: Any) -> None: ...
    async def enqueue(self, context: TaskContext, child: ChildRun) -> str: ...
    async def run_child(self, context: TaskContext, child: ChildRun) -> Any: ...
    async def cancel_run(self, context: TaskContext, run_id: str, force: bool) -> str: ...
    async def release_slot(self, context: TaskContext) -> None: ...
    async def retake_slot(self, context: TaskContext, at_once: bool) -> None: ...


NOTHING: Mapping[str, Any] = MappingProxyType({})


class TaskContext:
    """The first parameter of a handler, if it is annotated so: one attempt of one task.

    `id`: the id of the task, the same in all attempts: use it as an idempotency key. `attempt`: from 0.
    `max_retries`: attempts after the first. `args`, `kwargs`: of the call, converted. `headers`, `meta`: those of the
    run, overridden by those of the signature; read-only. `labels`: those of the workflow, overridden by those of the
    step. `env`: the environment variables of the step; with `isolation="process"` they are in `os.environ`, too.
    `hidden`: the values of secrets that the call was given; they are `***` in what is stored and logged.
    `run_id`, `node`: the run, and the path of the task in it. `parent_id`: the task before this one, or the task that
    started the run. `root_id`: the run that no task started. `state`: what `registry.lifespan` yielded. `cancelled`,
    `soft_timeout`: events that are set when the run is cancelled, and when the soft time limit passes.

        @registry.task("import", max_retries=3)
        async def import_file(context: TaskContext, rows: int) -> int:
            for row in range(rows):
                await context.progress(100 * row / rows)
            return rows
    """

    __slots__ = (
        "run_id", "node", "name", "attempt", "max_retries", "args", "kwargs", "headers", "meta", "queue",
        "enqueued_at_ms", "deadline_ms", "parent_id", "root_id", "delivery", "in_fan_in", "cancelled", "soft_timeout",
        "added", "state", "labels", "env", "hidden", "_services",
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
        labels: Mapping[str, str] = NOTHING,
        env: Mapping[str, str] = NOTHING,
        hidden: tuple[str, ...] = (),
        state: Any = None,
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
        self.labels, self.env = MappingProxyType(labels), MappingProxyType(env)
        self.hidden = hidden
        """The values of the secrets that the call was given."""
        self.cancelled, self.soft_timeout = asyncio.Event(), asyncio.Event()
        self.added: list[Signature[Any, Any]] = []
        self.state = state
        """What the lifespan of the registry yielded."""
        self._services = services

    def _call_with(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """The handler is called with these arguments now."""
        self.args, self.kwargs = args, kwargs

    def _set_env(self, env: Mapping[str, str]) -> None:
        """The variables of the step were evaluated."""
        self.env = MappingProxyType(env)

    def _hide(self, values: tuple[str, ...]) -> None:
        """The call is given these secrets."""
        self.hidden = values

    def _end_at(self, deadline_ms: int) -> None:
        """The hard time limit ends this attempt at an instant of the store's clock."""
        self.deadline_ms = deadline_ms

    @property
    def id(self) -> str:
        """The id of the task: the run id, or `run id/path` within a canvas or workflow."""
        return task_id((self.run_id, self.node))

    @property
    def enqueued_at(self) -> datetime:
        """When the task was created in the store, in UTC by the store's clock."""
        return _instant(self.enqueued_at_ms)

    @property
    def deadline(self) -> datetime | None:
        """When the hard time limit will end this attempt, in UTC by the store's clock; None without a limit."""
        return None if self.deadline_ms is None else _instant(self.deadline_ms)

    @property
    def logger(self) -> logging.LoggerAdapter[logging.Logger]:
        """A logger named `stemflow.task.NAME`, whose records have `run_id`, `task_id`, `task` and `attempt`."""
        extra = {"run_id": self.run_id, "task_id": self.id, "task": self.name, "attempt": self.attempt}
        logger = logging.getLogger(f"stemflow.task.{self.name}")
        return logging.LoggerAdapter(logger, extra) if not self.hidden else RedactingLogger(
            logger, extra, Redaction(self.hidden)
        )  # fmt: skip

    async def heartbeat(self) -> None:
        """Renew the lease now. Raises TaskCancelled if the run was cancelled or the lease is lost."""
        if self.cancelled.is_set():
            raise TaskCancelled(f"task {self.id}: its run was cancelled")
        await self._services.heartbeat(self)

    async def extend_lease(self, duration: Duration) -> None:
        """Keep the lease for at least `duration` from now, even if no renewal reaches the store meanwhile.

        `duration`: seconds, a timedelta, or text such as `"10m"`. Raises TaskCancelled if the run was cancelled or the
        lease is lost, UnitError.
        """
        await self._services.extend_lease(self, duration_of(f"task {self.id}: extend_lease", duration))

    async def progress(self, percent: float, data: Any = None) -> None:
        """Report progress; it is stored for an hour and shown to everyone who follows the run.

        `percent`: from 0 to 100. `data`: any JSON data. Raises OptionError, NotSerializable.
        """
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
        """Start a run of its own and return its run id.

        `signature`: what to run. `headers`, `meta`: of the new run, which inherits the headers that the engine
        propagates, and its parent and root ids. `run_id`: an id of 1 to 200 characters; one that contains `context.id`
        makes the call idempotent over attempts:

            await context.enqueue(mail.s(order), run_id=f"{context.id}-mail")

        Raises what `Stemflow.submit` raises: OptionError, BadArguments, UnknownTask, RunConflict.
        """
        return await self._services.enqueue(self, ChildRun(signature, headers, meta, run_id))

    spawn = enqueue

    async def run(
        self,
        signature: Signature[Any, Any],
        *,
        headers: Mapping[str, str] = NOTHING,
        meta: Mapping[str, Any] = NOTHING,
        run_id: str | None = None,
    ) -> Any:
        """Submit `signature` as a run of its own, wait for its end, and return its value (None if it was skipped).

        `headers`, `meta` and `run_id` are those of `enqueue`.

        While it waits the handler holds no slot of its worker; its lease and its time limits go on. Raises RunFailed
        if the run failed or was cancelled, and what `enqueue` raises.

            total = await context.run(add.s(1, 2), run_id=f"{context.id}-total")
        """
        return await self._services.run_child(self, ChildRun(signature, headers, meta, run_id))

    async def cancel_run(self, run_id: str, *, force: bool = False) -> str:
        """Cancel the run `run_id`; return the state it was in. Raises UnknownRun.

        With `force` its handlers, hooks and compensation are not waited for, as in `Stemflow.cancel`.
        """
        return await self._services.cancel_run(self, run_id, force)

    async def add_to_group(self, signature: Signature[Any, Any]) -> None:
        """Add `signature` as a member to the group, chord header or map that this task belongs to.

        The member is created when this task succeeds, in the same commit. Raises StemflowError if there is no fan-in.
        """
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
        """End this attempt and retry the task; never returns.

        `countdown`: the delay, in seconds or as text such as `"1m"`. `eta`: the instant, an aware datetime or seconds
        since the epoch. With neither, `policy`, or else the policy of the task, gives the delay. `max_retries`:
        overrides that of the task for this failure. `cause`: the error that is reported if no attempt is left.
        Raises OptionError for wrong arguments.

            await context.retry(countdown="30s", cause=error)
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
        """End this attempt and run `signature` instead of this task, whose value becomes that of `signature`.

        Never returns. An empty chain fails the task.
        """
        raise ReplaceRequested(signature)


def _instant(at_ms: int) -> datetime:
    return datetime.fromtimestamp(at_ms / 1_000, UTC)


_current: ContextVar[TaskContext | None] = ContextVar("stemflow_context", default=None)


def current_context() -> TaskContext | None:
    """Return the context of the task that runs in this asyncio task or thread, or None."""
    return _current.get()


def outside() -> Context | None:
    """The context variables for an asyncio task that belongs to no handler; None: those that are set now will do."""
    if _current.get() is None:
        return None
    variables = copy_context()
    variables.run(_current.set, None)
    return variables


def enter(context: TaskContext) -> Callable[[], None]:
    """Make `context` the current one; call the returned function to undo it."""
    token = _current.set(context)
    return partial(_current.reset, token)
