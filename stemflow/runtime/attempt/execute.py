"""Executing one attempt: whatever the handler does becomes an Outcome value; exceptions stop here."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextvars import copy_context
from functools import partial
from typing import Any, NamedTuple, Protocol

from stemflow.compile.freeze import compile_plan
from stemflow.errors import StemflowError
from stemflow.model.facts import Failed, HandedBack, Ignored, Ok, Outcome, Replaced
from stemflow.model.plan import Plan
from stemflow.model.policy import Options
from stemflow.model.signature import ChainSig, GroupSig, Signature, TaskSig, WaitSig
from stemflow.runtime.attempt.soft_limit import SoftLimit
from stemflow.runtime.catalog.remote_tasks import Elsewhere
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
from stemflow.runtime.tasks.registry import Task, TaskRegistry
from stemflow.runtime.tasks.retry_decision import Judge, describe
from stemflow.runtime.tasks.sync_context import SyncTaskContext
from stemflow.runtime.values.binding import Bound, seal_literals
from stemflow.store.base import BackpressureError, StateLost, StoreUnavailable

Threads = Callable[[Callable[[], Any]], Awaitable[Any]]
"""Calls a function in a thread."""
_ASKED_FOR = (Ignore, HandBack, RetryRequested, ReplaceRequested)
"""What a handler raises to ask for something; no error."""


def converted(task: Task[..., Any], bound: Bound) -> Bound:
    """The calls with their arguments as the handler is annotated; raises BadArguments."""
    calls = Bound([task.parameters.convert(*call) for call in bound])
    calls.chunked = bound.chunked
    return calls


async def call(
    task: Task[..., Any],
    options: Options,
    context: TaskContext,
    bound: Bound,
    threads: Threads,
    chain: MiddlewareChain,
) -> Any:
    """Call the handler as often as it is bound, with the middlewares around each call; a chunk gives a list."""
    results = []
    for args, kwargs in bound:
        context.args, context.kwargs = args, kwargs
        inmost = partial(_called, task, options, context, threads)
        results.append(await (_guarded(chain, context, inmost) if chain.on_execute or chain.on_error else inmost()))
    return results if bound.chunked else results[0]


async def _guarded(chain: MiddlewareChain, context: TaskContext, inmost: Callable[[], Awaitable[Any]]) -> Any:
    try:
        return await chain.execute(context, inmost)
    except _ASKED_FOR:
        raise
    except Exception as error:
        return await chain.answer(context, error)


async def _called(task: Task[..., Any], options: Options, context: TaskContext, threads: Threads) -> Any:
    given = (context, *context.args) if task.takes_context else context.args
    if isinstance(context, SyncTaskContext):
        return await _threaded(task.function, given, context.kwargs, threads)
    return await _awaited(task.function(*given, **context.kwargs), options, context)


async def _awaited(coroutine: Any, options: Options, context: TaskContext) -> Any:
    if options.soft_ms is None or not options.soft_raises:
        return await coroutine
    limit = SoftLimit(coroutine)
    context.strike = limit.strike
    if context.soft_timeout.is_set():  # while a middleware was at work
        limit.strike()
    try:
        return await limit
    finally:
        context.strike = None


async def _threaded(function: Callable[..., Any], args: Any, kwargs: Any, threads: Threads) -> Any:
    frame = copy_context()

    def work() -> tuple[Any, BaseException | None]:
        # As a value: a future that carries GeneratorExit would close the coroutines that await it.
        try:
            return frame.run(function, *args, **kwargs), None
        except BaseException as error:
            return None, error

    value, error = await threads(work)
    if error is not None:
        raise error
    return value


STORE_PAUSE_MS = 1_000
"""How long a task waits that met a store which could not serve it."""


class Writes(Protocol):
    """What the outcome of an attempt is written with: its result, and the plans of what it adds or is replaced by."""

    @property
    def registry(self) -> TaskRegistry: ...
    def write(self, value: Any, what: str, /) -> bytes: ...
    async def plan(self, signature: Signature[Any, Any], /) -> Plan: ...


class Output(NamedTuple):
    """Writes as the engine of this process does."""

    elsewhere: Elsewhere
    encoders: TaskPayloadEncoderRegistry
    write: Write
    origin: str
    node: str

    @property
    def registry(self) -> TaskRegistry:
        return self.elsewhere.registry

    async def plan(self, signature: Signature[Any, Any]) -> Plan:
        others, known = await self.elsewhere.look(set(task_names(signature))), self.elsewhere.parameters
        sig = plain_signature(signature, lambda one: self.elsewhere.args_encoder(one, self.encoders.args) == "json")
        plan = compile_plan(sig, lambda one: self.registry.options_of(one, None, others), inline_items=True)
        check_plan(plan, known)
        check_items(sig, known)
        return seal_literals(plan, self.encoders, self.origin, self.node)


async def refused(chain: MiddlewareChain, context: TaskContext, judge: Judge) -> Outcome | None:
    """What the middlewares make of a delivery instead of letting it through; None when they do."""
    try:
        return None if await chain.consume(context) else Ignored()
    except HandBack as asked:
        return HandedBack(asked.delay_ms)
    except Ignore:
        return Ignored()
    except Reject as error:
        return Failed(describe(error), "final")
    except Exception as error:
        return judge(error)


async def attempt(
    task: Task[..., Any], context: TaskContext, bound: Bound, threads: Threads, output: Writes, judge: Judge
) -> Outcome:
    """Run one attempt. Only cancellation by the engine passes through."""
    try:
        bound = converted(task, bound)
    except BadArguments as fault:
        return Failed(describe(fault), "final", dead="bad-arguments")
    leave = enter(context)
    try:
        value = await call(task, judge.options, context, bound, threads, output.registry.middleware)
        added = tuple([await output.plan(GroupSig(members=(sig,))) for sig in context.added])
        return Ok(None if value is None else output.write(value, f"result of {task.name}"), added)
    except asyncio.CancelledError as cancelled:
        if told_to_end():
            raise
        return judge(cancelled)
    except BaseException as error:
        return await _outcome(error, context, output, judge)
    finally:
        leave()


def told_to_end() -> bool:
    """Whether the task that runs here was cancelled from outside, and the error is not the handler's own."""
    try:
        current = asyncio.current_task()
    except RuntimeError:  # a plain function that has a process of its own
        return False
    return current is not None and current.cancelling() > 0


async def _outcome(error: BaseException, context: TaskContext, output: Writes, judge: Judge) -> Outcome:
    match error:
        case Ignore():
            return Ignored()
        case HandBack():
            return HandedBack(error.delay_ms)
        case Reject():
            return Failed(describe(error), "final")
        case RetryRequested():
            return _again(error, judge)
        case ReplaceRequested():
            try:
                return Replaced(await _replacement(error.signature, context, output))
            except StemflowError as refused:
                return Failed(describe(refused), "final")
        case NotSerializable():
            return Failed(describe(error), "final")
        case StoreUnavailable() | BackpressureError() | StateLost():
            # What it asked of the engine could not be had: that is no failure of the task.
            return HandedBack(STORE_PAUSE_MS)
    return judge(error)


def _again(asked: RetryRequested, judge: Judge) -> Failed:
    cause, policy = asked.cause or asked, asked.policy
    most = policy.max_retries if asked.max_retries is None and policy is not None else asked.max_retries
    failed = Failed(describe(cause), "again", asked.after_ms, most, eta_at_ms=asked.eta_at_ms, retry=policy)
    said_when = asked.after_ms is not None or asked.eta_at_ms is not None or policy is not None
    return failed if said_when else judge.paced(failed, cause)


async def _replacement(signature: Signature[Any, Any], context: TaskContext, output: Writes) -> Plan:
    if isinstance(signature, (TaskSig, WaitSig)):
        signature = ChainSig(steps=(signature,))
    if isinstance(signature, ChainSig) and not signature.steps:
        raise StemflowError(f"task {context.id}: replace: expected something to run, got an empty chain")
    return await output.plan(signature)
