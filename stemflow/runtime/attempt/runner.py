"""One attempt of a task as a record that named steps fill in, until one of them has the outcome.

The order of the steps is `Attempts.steps`; each returns the outcome if the attempt ends there, else None.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import Executor
from functools import partial
from typing import Any

from msgspec import structs

from stemflow.core.shape import Shape, shares_keys
from stemflow.errors import OptionError, StemflowError
from stemflow.expr import ExpressionError
from stemflow.model.facts import Failed, HandedBack, Ok, Outcome, Replaced
from stemflow.model.plan import LeafPlan
from stemflow.model.policy import Options
from stemflow.model.records import NO_RUN, ErrorInfo, Node, task_id
from stemflow.runtime.attempt.context_of import context_of
from stemflow.runtime.attempt.declared_results import checked, missing_result
from stemflow.runtime.attempt.execute import Output, execute, refused
from stemflow.runtime.attempt.in_flight import Running
from stemflow.runtime.attempt.process_pool import Crashed, ProcessPool
from stemflow.runtime.attempt.rate_check import asks_limiter, rate_delay_ms
from stemflow.runtime.attempt.soft_limit import SoftLimit
from stemflow.runtime.attempt.task_import import locate
from stemflow.runtime.attempt.verify_lease import verify_lease
from stemflow.runtime.catalog.remote_tasks import RemoteTasks
from stemflow.runtime.commit.decider import Decider
from stemflow.runtime.commit.events import context_event, task_event
from stemflow.runtime.payloads.encoders import BadPayload, UnknownEncoder
from stemflow.runtime.tasks.context import HandlerServices, TaskContext
from stemflow.runtime.tasks.placement import ExecutionMode, execution_mode
from stemflow.runtime.tasks.registry import TaskRegistry
from stemflow.runtime.tasks.retry_decision import NO_ARGUMENTS, RetryDecider, describe, names_read
from stemflow.runtime.tasks.secrets import Redaction, SecretFailure, redacted
from stemflow.runtime.tasks.sync_context import SyncTaskContext, ask_loop
from stemflow.runtime.tasks.task import Task
from stemflow.runtime.values.binding import Binder, Bound
from stemflow.runtime.values.call_keys import named
from stemflow.runtime.values.resolver import Values
from stemflow.runtime.values.secret_values import sources_of
from stemflow.runtime.values.time_limits import with_hard_limit
from stemflow.store.base import Store

log = logging.getLogger("stemflow.worker")

UNKNOWN_TASK_DELAY_MS = 5_000
"""How long a task that is not registered in this worker is handed back for."""

Unregistered = Callable[[str, Node], Awaitable[Failed | HandedBack]]
"""Gives the outcome of an attempt at a task that is not registered: its name, its record."""


async def hand_back_unknown(task: str, node: Node) -> HandedBack:
    """Hand a task back, so that a worker which has registered it can take it."""
    log.warning("task %s is not registered in this worker; it is handed back", task)
    return HandedBack(UNKNOWN_TASK_DELAY_MS)


OwnTasks = Callable[[str], Task[..., Any] | None]
"""Gives a task of the engine itself by name, which no registry has; None: there is none of this name."""


def no_own_tasks(name: str) -> None:
    """The engine has no tasks of its own."""


PausedMs = Callable[[Node, str], Awaitable[int | None]]
"""For how long a leased task of this name is given back, since it is paused; None: it may start."""


async def never_paused(node: Node, task: str) -> None:
    """Nothing is paused."""


def no_state() -> None:
    """No lifespan was entered."""


def _age_ms(store: Store, node: Node) -> int:
    """For how long a task has been known."""
    return store.now_ms() - node.opened_at_ms


class Attempt:
    """What is known of one attempt. Each step may rely on what the steps before it have set."""

    __slots__ = ("running", "node", "leaf", "shape", "options", "task", "mode", "values", "binder", "context", "bound",
                 "output")  # fmt: skip

    shape: Shape
    """The plan of the run. Set by `find_task`, as `leaf`, `options`, `task` and `mode`."""
    leaf: LeafPlan
    options: Options
    task: Task[..., Any]
    mode: ExecutionMode
    values: Values
    """Reads the values that arguments and keys are made of. Set by `check_start`, as `binder`."""
    binder: Binder
    context: TaskContext
    """What the handler is given. Set by `make_context`."""
    bound: Bound
    """The calls to make. Set by `bind_arguments`, as `output`."""
    output: Output

    def __init__(self, running: Running) -> None:
        self.running = running
        self.node = running.node


class Attempts:
    """Runs the attempts of one worker.

    `services`: what running handlers ask the worker for. `queues`: those that the worker serves; None: all.
    `threads`: runs handlers that are plain functions. `unregistered`: gives the outcome for a task that this worker
    does not know. `own_tasks`: gives the tasks of the engine itself. `paused_ms`: whether a task is paused. `state`:
    gives what the lifespan of the registry has yielded.
    """

    def __init__(
        self,
        decider: Decider,
        registry: TaskRegistry,
        services: HandlerServices,
        *,
        remote_tasks: RemoteTasks,
        queues: tuple[str, ...] | None,
        threads: Executor,
        processes: ProcessPool,
        unregistered: Unregistered = hand_back_unknown,
        own_tasks: OwnTasks = no_own_tasks,
        paused_ms: PausedMs = never_paused,
        state: Callable[[], Any] = no_state,
    ) -> None:
        self._decider, self._library, self._store = decider, decider.library, decider.store
        self._registry, self._signals, self._services = registry, registry.signals, services
        self._remote_tasks, self._queues = remote_tasks, queues
        self._threads, self._processes = threads, processes
        self._unregistered, self._own_tasks, self._paused_ms = unregistered, own_tasks, paused_ms
        self._state = state
        self.steps: tuple[Callable[[Attempt], Awaitable[Outcome | Crashed | None]], ...] = (
            self.find_task,
            self.check_start,
            self.make_context,
            self.bind_arguments,
            self.run_handler,
        )

    async def of(self, running: Running) -> Outcome | Crashed:
        """Attempt the task of a lease. Raises StoreError, SigningError, CancelledError."""
        attempt = Attempt(running)
        for step in self.steps:
            outcome = await step(attempt)
            if outcome is not None:
                return self.check_added(attempt, outcome)
        raise AssertionError("expected an outcome of the last step")

    # -- steps

    async def find_task(self, attempt: Attempt) -> Outcome | None:
        """Find the registered task, its options and where it runs; hand a lease back that is too early.

        Raises SignatureInvalid, UnknownKey.
        """
        node = attempt.node
        if node.seal is not None or self._library.trust.keys is not None:
            early_ms = await verify_lease(self._library, node, self._queues)
            if early_ms is not None:
                return HandedBack(early_ms)
        shape = self._library.shapes.get(node.plan) or await self._library.shape(node.plan)
        leaf = shape.nodes[node.node]
        assert isinstance(leaf, LeafPlan)
        task = self._registry.get(leaf.task) or self._own_tasks(leaf.task)
        if task is None:
            return await self._unregistered(leaf.task, node)
        attempt.shape, attempt.leaf, attempt.task = shape, leaf, task
        options = attempt.options = shape.plan.options[leaf.options]
        attempt.mode = execution_mode(task.is_async, options)
        strategy = self._registry.strategy_of(task, options)
        age_ms = partial(_age_ms, self._store, node)
        attempt.running.retry_by(RetryDecider(leaf.task, options, node.attempt, strategy, age_ms=age_ms))
        return None

    async def check_start(self, attempt: Attempt) -> Outcome | None:
        """Hand back a task that an operator has paused, or for as long as its rate limiter says; fail a late retry."""
        node, options = attempt.node, attempt.options
        paused_ms = await self._paused_ms(node, attempt.leaf.task)
        if paused_ms is not None:
            return HandedBack(paused_ms)
        if options.retry.budget_ms is not None and node.attempt:
            late = self._past_budget(node, options.retry.budget_ms)
            if late is not None:
                return late
        attempt.values = Values(self._library, known=self._decider.records)
        attempt.binder = self._decider.binders.get(node.plan) or await self._decider.binder(node.plan)
        if not asks_limiter(options):
            return None
        limiter = self._registry.rate_limiter
        delay_ms = await rate_delay_ms(limiter, attempt.values, attempt.binder, node, attempt.leaf, options)
        return None if delay_ms is None else HandedBack(delay_ms)

    def _past_budget(self, node: Node, budget_ms: int) -> Failed | None:
        """The failure of a retry whose budget has passed while it waited, with the error of the attempt before it."""
        if self._store.now_ms() <= node.opened_at_ms + budget_ms:
            return None
        error = node.error or ErrorInfo("RetryBudgetExceeded", "it was retried", "stemflow.RetryBudgetExceeded")
        text = f"{error.message}; not tried again, its retry budget of {budget_ms} ms has passed"
        return Failed(structs.replace(error, message=text), "final")

    async def make_context(self, attempt: Attempt) -> Outcome | None:
        """Send the signal `received`, and make the context of the handler; middlewares may refuse the delivery."""
        node, leaf = attempt.node, attempt.leaf
        if self._signals.received.listeners:
            self._signals.received.send(task_event("received", node, leaf.task, self._store.now_ms()))
        kind: Callable[..., TaskContext] = TaskContext
        if attempt.mode != "loop":
            ask = partial(ask_loop, asyncio.get_running_loop(), task_id(node.key))
            kind = partial(SyncTaskContext, ask=ask)
        attempt.context = await context_of(
            kind, self._services, attempt.values, node, leaf, attempt.options, self._state()
        )
        attempt.running.know(attempt.context)
        chain = self._registry.middleware
        return await refused(chain, attempt.context, attempt.running.decide_retry) if chain.on_consume else None

    async def bind_arguments(self, attempt: Attempt) -> Outcome | None:
        """Evaluate the arguments, and prepare how the result is encoded. No error shows the value of a secret."""
        outcome, hidden = await self._bind(attempt), attempt.context.hidden
        return Redaction(hidden).failed(outcome) if hidden and isinstance(outcome, Failed) else outcome

    async def _bind(self, attempt: Attempt) -> Outcome | None:
        node, codec, encoders = attempt.node, self._library.codec, self._library.encoders
        try:
            secrets = await self._secrets(attempt) if attempt.leaf.secrets else {}
            attempt.bound = await attempt.binder.calls(attempt.values, node, attempt.leaf, secrets)
            if attempt.leaf.env:
                env = await attempt.binder.environment(attempt.values, node, attempt.leaf, secrets)
                attempt.context._set_env(env)
            retry = attempt.options.retry
            if (retry.when is not None or retry.rules) and (names := names_read(retry)):
                await self._know_call(attempt, names)
            if attempt.leaf.timeout is not None:
                place = await attempt.values.origin(node)
                limit = attempt.binder.template(attempt.values, place, attempt.leaf.timeout)
                attempt.options = await with_hard_limit(attempt.options, limit, node.path)
            encoder = attempt.options.result_encoder or encoders.results
            write = await codec.writer(encoder, node.run, node.path, "result")
        except OptionError as error:
            return Failed(describe(error), "final")
        except ExpressionError as error:
            text = error.said_of(f"{node.path}: args" if node.path else "args")
            return Failed(ErrorInfo("ExpressionError", text, "stemflow.ExpressionError"), "final")
        except UnknownEncoder as error:
            return Failed(describe(error), "final", dead="unknown-encoder")
        except BadPayload as error:
            return Failed(describe(error), "final", dead="bad-arguments")
        except SecretFailure as failure:
            return attempt.running.decide_retry(failure.cause)
        if attempt.leaf.returns is not None:
            write = checked(write, attempt.leaf.returns)
        redaction = Redaction(attempt.context.hidden) if attempt.context.hidden else None
        if redaction is not None:
            write = redacted(write, redaction)
        known = self._library.headers.get(node.run)
        origin = (known.origin or node.run) if known is not None else await self._library.origin_of(node.run)
        attempt.output = Output(self._remote_tasks, encoders, write, origin, node.path, redaction)
        return None

    async def _know_call(self, attempt: Attempt, names: frozenset[str]) -> None:
        """Let the conditions of retries know what they read of the call."""
        running, node, known = attempt.running, attempt.node, dict[str, Any](NO_ARGUMENTS)
        if "args" in names and attempt.bound:
            task = attempt.task
            known["args"] = named(Options(params=task.params, defaults=task.parameters.defaults), attempt.bound[0])
        if "inputs" in names:
            known |= await attempt.values.env(await attempt.values.origin(node), [("inputs",)])
        running.retry_by(running.decide_retry._replace(known=known))

    async def _secrets(self, attempt: Attempt) -> dict[str, str]:
        """The values of the secrets that the call reads, which are hidden from now on. Raises SecretFailure."""
        names = attempt.binder.secrets_of(attempt.leaf)
        if not names:
            return {}
        origin = await attempt.values.origin(attempt.node)
        sources = await sources_of(attempt.values, origin, names, attempt.leaf.secrets)
        try:
            found = await self._registry.secrets.values(sources)
        except Exception as error:
            raise SecretFailure(error) from None
        attempt.context._hide(tuple(found.values()))
        return found

    async def run_handler(self, attempt: Attempt) -> Outcome | Crashed:
        """Call the handler where it runs: on the event loop, in a thread or in a process of the pool."""
        if attempt.mode == "process":
            return await self._in_process(attempt)
        running, context = attempt.running, attempt.context
        await running.wait_for_reports()
        soft_limit = None if attempt.options.soft_ms is None else SoftLimit(context, attempt.options.soft_raises)
        running.begin(context, attempt.options, None if soft_limit is None else soft_limit.expire)
        threads = partial(self._in_thread, running)
        called = execute(
            attempt.task, context, attempt.bound, threads, attempt.output, running.decide_retry, soft_limit
        )
        return await self._signalled(context, called)

    def check_added(self, attempt: Attempt, outcome: Outcome | Crashed) -> Outcome | Crashed:
        """Fail a task that gives nothing where it must give something, or that adds what shares keys with other runs to
        a run in another partition than the keys."""
        if isinstance(outcome, Ok):
            missing = None if attempt.leaf.returns is None else missing_result(attempt.leaf.returns, outcome)
            if missing is not None:
                return missing
            added = outcome.added
        elif isinstance(outcome, Replaced):
            added = (outcome.plan,)
        else:
            return outcome
        run, partition_of = attempt.node.run, self._store.partition_of
        if not added or partition_of(run) == partition_of(NO_RUN) or not any(map(shares_keys, added)):
            return outcome
        error = OptionError(
            f"run {run}: expected that what joins it shares no keys, since it is in another partition than they are, "
            "got tasks with unique keys, concurrency keys or rate limits; start them as a run of their own "
            "(`context.enqueue`), or submit this run under a run_id of your own"
        )
        return Failed(describe(error), "final")

    # -- where a handler runs

    async def _signalled(
        self, context: TaskContext, called: Coroutine[Any, Any, Outcome | Crashed]
    ) -> Outcome | Crashed:
        """Await the call, with the signals `prerun` and `postrun` around it."""
        outcome: Outcome | Crashed | None = None
        if self._signals.prerun.listeners:
            self._signals.prerun.send(context_event("prerun", context, self._store.now_ms()))
        try:
            outcome = await called
            if context.hidden and isinstance(outcome, Failed):
                outcome = Redaction(context.hidden).failed(outcome)
            return outcome
        finally:
            if self._signals.postrun.listeners:
                error = outcome.error if isinstance(outcome, Failed) else None
                self._signals.postrun.send(context_event("postrun", context, self._store.now_ms(), error=error))

    async def _in_process(self, attempt: Attempt) -> Outcome | Crashed:
        running, context = attempt.running, attempt.context
        try:
            place = locate(attempt.task, self._registry)
        except OptionError as error:
            return Failed(describe(error), "final")
        try:
            process = await self._processes.take()
        except StemflowError as error:
            return Crashed(str(error))
        running.in_process(process)
        try:
            failed = await process.load(place)
            if failed is not None or running.reason is not None:  # cancelled while its module was imported
                return failed or HandedBack()
            running.begin(context, attempt.options, process.signal_soft_limit)
            called = process.attempt(attempt.options, context, attempt.bound, attempt.output, running.decide_retry)
            return await self._signalled(context, called)
        finally:
            if running.reason is not None:
                process.kill()  # a handler that ended by itself may have left programs running
            self._processes.give(process)

    def _in_thread(self, running: Running, work: Callable[[], Any]) -> Awaitable[Any]:
        thread = asyncio.get_running_loop().run_in_executor(self._threads, work)
        running.in_thread(thread)
        return asyncio.shield(thread)
