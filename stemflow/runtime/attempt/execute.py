"""Calling the handler: whatever it returns or raises becomes an Outcome; its exceptions stop here."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from contextvars import copy_context
from functools import partial
from types import CoroutineType
from typing import Any, NamedTuple, Protocol

from stemflow.compile.freeze import compile_plan
from stemflow.errors import ResultMismatch, StemflowError
from stemflow.model.facts import Failed, HandedBack, Ignored, Ok, Outcome, Replaced
from stemflow.model.plan import Plan
from stemflow.model.signature import (
    ApprovalSig,
    ChainSig,
    EmitSig,
    EventSig,
    GroupSig,
    Signature,
    TaskSig,
    WaitSig,
)
from stemflow.runtime.attempt.soft_limit import SoftLimit
from stemflow.runtime.catalog.remote_tasks import RemoteTasks
from stemflow.runtime.payloads.converters import BadArguments
from stemflow.runtime.payloads.encoders import TaskPayloadEncoderRegistry, Write
from stemflow.runtime.payloads.json_data import NotSerializable
from stemflow.runtime.tasks.argument_checks import check_items, check_plan, plain_signature, task_names
from stemflow.runtime.tasks.context import (
    HandBack,
    Ignore,
    Reject,
    ReplaceRequested,
    RetryRequested,
    TaskContext,
    enter,
)
from stemflow.runtime.tasks.middleware import MiddlewareChain
from stemflow.runtime.tasks.registry import TaskRegistry
from stemflow.runtime.tasks.retry_decision import RetryDecider, describe
from stemflow.runtime.tasks.secrets import Redaction
from stemflow.runtime.tasks.sync_context import SyncTaskContext
from stemflow.runtime.tasks.task import Task
from stemflow.runtime.values.binding import Bound, seal_literals
from stemflow.store.base import BackpressureError, StateLost, StoreUnavailable

RunInThread = Callable[[Callable[[], Any]], Awaitable[Any]]
"""Calls a function in a thread and gives its result."""
_REQUESTS = (Ignore, HandBack, RetryRequested, ReplaceRequested)
"""What a handler raises to request something; middlewares see no error."""


def converted(task: Task[..., Any], bound: Bound) -> Bound:
    """The calls with their arguments converted to the annotations of the handler. Raises BadArguments."""
    convert = task.parameters.convert
    if len(bound) == 1:
        return type(bound)((convert(*bound[0]),))
    return type(bound)([convert(*call) for call in bound])


async def call(
    task: Task[..., Any],
    context: TaskContext,
    bound: Bound,
    threads: RunInThread,
    registry: TaskRegistry,
    soft_limit: SoftLimit | None,
) -> Any:
    """Make each of the bound calls with the middlewares around it; a chunk of a map gives the list of their results."""
    results, chain = [], registry.middleware
    for args, kwargs in bound:
        context._call_with(args, kwargs)
        handler = partial(_call_handler, task, context, threads, soft_limit, registry.lifespans.clean_up)
        wrapped = chain.on_execute or chain.on_error
        results.append(await (_call_wrapped(chain, context, handler) if wrapped else handler()))
    return results if bound.chunked else results[0]


async def _call_wrapped(chain: MiddlewareChain, context: TaskContext, handler: Callable[[], Awaitable[Any]]) -> Any:
    """Call the handler inside the middlewares `on_execute`; its errors go to `on_error`."""
    try:
        return await chain.execute(context, handler)
    except _REQUESTS:
        raise
    except Exception as error:
        return await chain.answer(context, error)


async def _call_handler(
    task: Task[..., Any],
    context: TaskContext,
    threads: RunInThread,
    soft_limit: SoftLimit | None,
    clean_up: Callable[[], None],
) -> Any:
    given = (context, *context.args) if task.takes_context else context.args
    if isinstance(context, SyncTaskContext):
        value = await _in_thread(task.function, given, context.kwargs, threads, clean_up)
        # A plain function that wraps an async one returns its coroutine.
        return await value if inspect.isawaitable(value) else value
    returned = task.function(*given, **context.kwargs)
    if soft_limit is None and type(returned) is CoroutineType:
        return await returned
    return await _awaited(returned, soft_limit)


async def _awaited(returned: Any, soft_limit: SoftLimit | None) -> Any:
    """Await a handler, in which the soft limit may be raised. A wrapper may have returned a plain value."""
    if not inspect.isawaitable(returned):
        return returned
    return await (returned if soft_limit is None else soft_limit.wait(returned))


async def _in_thread(
    function: Callable[..., Any], args: Any, kwargs: Any, threads: RunInThread, clean_up: Callable[[], None]
) -> Any:
    frame = copy_context()

    def work() -> tuple[Any, BaseException | None]:
        # As a value: a future that carries GeneratorExit would close the coroutines that await it.
        try:
            return frame.run(function, *args, **kwargs), None
        except BaseException as error:
            return None, error
        finally:
            clean_up()

    value, error = await threads(work)
    if error is not None:
        raise error
    return value


STORE_PAUSE_MS = 1_000
"""How long a task is handed back for when the store could not serve what its handler requested."""


class OutcomeWriter(Protocol):
    """Encodes the outcome of an attempt: its result, and the plans of what it adds or is replaced by."""

    @property
    def registry(self) -> TaskRegistry: ...
    def write(self, value: Any, what: str, /) -> bytes: ...
    async def plan(self, signature: Signature[Any, Any], /) -> Plan: ...


class Output(NamedTuple):
    """Encodes outcomes in the process of the worker.

    `write`: encodes the result. `origin`: the run under whose id values are located. `node`: the path of the task.
    """

    remote_tasks: RemoteTasks
    encoders: TaskPayloadEncoderRegistry
    write: Write
    origin: str
    node: str
    redaction: Redaction | None = None
    """Knows the values of the secrets that the handler was given."""

    @property
    def registry(self) -> TaskRegistry:
        return self.remote_tasks.registry

    async def plan(self, signature: Signature[Any, Any]) -> Plan:
        """The plan of what a handler adds or is replaced by. Raises StemflowError."""
        others, known = await self.remote_tasks.look(set(task_names(signature))), self.remote_tasks.parameters
        sig = plain_signature(signature, lambda one: self.remote_tasks.args_encoder(one, self.encoders.args) == "json")
        plan = compile_plan(sig, lambda one: self.registry.options_of(one, None, others), inline_items=True)
        check_plan(plan, known)
        check_items(sig, known)
        if self.redaction is not None:
            self.redaction.refuse(plan, f"task {self.node}")
        return seal_literals(plan, self.encoders, self.origin, self.node)


async def refused(chain: MiddlewareChain, context: TaskContext, decide_retry: RetryDecider) -> Outcome | None:
    """The outcome if a middleware refuses the delivery in `on_consume`, else None."""
    try:
        return None if await chain.consume(context) else Ignored()
    except HandBack as asked:
        return HandedBack(asked.delay_ms)
    except Ignore:
        return Ignored()
    except Reject as error:
        return Failed(describe(error), "final")
    except Exception as error:
        return decide_retry(error)


async def execute(
    task: Task[..., Any],
    context: TaskContext,
    bound: Bound,
    threads: RunInThread,
    output: OutcomeWriter,
    decide_retry: RetryDecider,
    soft_limit: SoftLimit | None,
) -> Outcome:
    """Call the handler and return the outcome. Only a cancellation by the engine is raised.

    `soft_limit` may raise in the handler; None for a task without one.
    """
    try:
        bound = converted(task, bound)
    except BadArguments as fault:
        return Failed(describe(fault), "final", dead="bad-arguments")
    leave = enter(context)
    try:
        value = await call(task, context, bound, threads, output.registry, soft_limit)
        added: tuple[Plan, ...] = ()
        if context.added:
            added = tuple([await output.plan(GroupSig(members=(sig,))) for sig in context.added])
        return Ok(None if value is None else output.write(value, f"result of {task.name}"), added)
    except asyncio.CancelledError as cancelled:
        if is_cancelled():
            raise
        return decide_retry(cancelled)
    except BaseException as error:
        return await _outcome(error, context, output, decide_retry)
    finally:
        leave()


def is_cancelled() -> bool:
    """Whether the asyncio task that runs here was cancelled; else a CancelledError is the handler's own."""
    try:
        current = asyncio.current_task()
    except RuntimeError:  # a plain function in a process of the pool
        return False
    return current is not None and current.cancelling() > 0


async def _outcome(
    error: BaseException, context: TaskContext, output: OutcomeWriter, decide_retry: RetryDecider
) -> Outcome:
    match error:
        case Ignore():
            return Ignored()
        case HandBack():
            return HandedBack(error.delay_ms)
        case Reject():
            return Failed(describe(error), "final")
        case RetryRequested():
            return _retry(error, decide_retry)
        case ReplaceRequested():
            try:
                return Replaced(await _replacement(error.signature, context, output))
            except StemflowError as refused:
                return Failed(describe(refused), "final")
        case NotSerializable() | ResultMismatch():
            return Failed(describe(error), "final")
        case StoreUnavailable() | BackpressureError() | StateLost():
            # The store could not serve a request of the handler: that is no failure of the task.
            return HandedBack(STORE_PAUSE_MS)
    return decide_retry(error)


def _retry(asked: RetryRequested, decide_retry: RetryDecider) -> Failed:
    cause, policy = asked.cause or asked, asked.policy
    most = policy.max_retries if asked.max_retries is None and policy is not None else asked.max_retries
    failed = Failed(describe(cause), "again", asked.after_ms, most, eta_at_ms=asked.eta_at_ms, retry=policy)
    has_delay = asked.after_ms is not None or asked.eta_at_ms is not None or policy is not None
    return failed if has_delay else decide_retry.paced(failed, cause)


async def _replacement(signature: Signature[Any, Any], context: TaskContext, output: OutcomeWriter) -> Plan:
    if isinstance(signature, (TaskSig, WaitSig, EventSig, EmitSig, ApprovalSig)):
        signature = ChainSig(steps=(signature,))
    if isinstance(signature, ChainSig) and not signature.steps:
        raise StemflowError(f"task {context.id}: replace: expected something to run, got an empty chain")
    return await output.plan(signature)
