"""From a lease to an outcome: what the handler needs is found, its arguments are bound, it is called where it runs."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from stemflow.core.kinds import rules_of
from stemflow.core.shape import shares_keys
from stemflow.errors import OptionError, StemflowError
from stemflow.expr import ExpressionError
from stemflow.model.facts import Failed, HandedBack, Ok, Outcome, Replaced
from stemflow.model.plan import LeafPlan, ScopePlan
from stemflow.model.policy import Options
from stemflow.model.records import NO_RUN, ErrorInfo, Node, parent_path, task_id
from stemflow.runtime.attempt.execute import Output, attempt, refused
from stemflow.runtime.attempt.in_flight import Running
from stemflow.runtime.attempt.process_pool import Crashed
from stemflow.runtime.attempt.task_import import locate
from stemflow.runtime.attempt.verify_lease import vouch
from stemflow.runtime.commit.events import context_event, task_event
from stemflow.runtime.payloads.encoders import BadPayload, UnknownEncoder, Write, encoders_told
from stemflow.runtime.payloads.headers import merged
from stemflow.runtime.tasks.context import TaskContext
from stemflow.runtime.tasks.placement import execution_mode
from stemflow.runtime.tasks.rate_limiter import refused_ms
from stemflow.runtime.tasks.registry import Task
from stemflow.runtime.tasks.retry_decision import Judge, describe
from stemflow.runtime.tasks.sync_context import SyncTaskContext, ask_loop
from stemflow.runtime.values.binding import Bound
from stemflow.runtime.values.resolver import Values

if TYPE_CHECKING:
    from stemflow.runtime.worker.worker import Worker

T = TypeVar("T")

log = logging.getLogger("stemflow.worker")

UNKNOWN_TASK_DELAY_MS = 5_000
"""A worker that lacks a task gives it back for this long."""


async def hand_back_unknown(task: str, node: Node) -> HandedBack:
    log.warning("task %s is not registered here; it is handed back", task)
    return HandedBack(UNKNOWN_TASK_DELAY_MS)


class Attempts:
    """Those of one worker."""

    def __init__(self, worker: Worker) -> None:
        self._worker, self._store, self._registry = worker, worker.store, worker.registry
        self._advance, self._library, self._signals = worker.advance, worker.advance.library, worker.signals

    async def of(self, running: Running) -> Outcome | Crashed:
        outcome = await self._attempted(running)
        brought = (outcome.plan,) if isinstance(outcome, Replaced) else outcome.added if isinstance(outcome, Ok) else ()
        run = running.node.run
        if (
            brought
            and self._store.partition_of(run) != self._store.partition_of(NO_RUN)
            and any(map(shares_keys, brought))
        ):
            error = OptionError(
                f"run {run}: expected that what joins it shares no keys, since it lies in another partition than they "
                "do, got tasks with unique keys, concurrency keys or rate limits; start them as a run of their own "
                "(`context.enqueue`), or submit this run under a run_id of your own"
            )
            return Failed(describe(error), "final")
        return outcome

    async def _attempted(self, running: Running) -> Outcome | Crashed:
        node = running.node
        early_ms = await vouch(self._library, node, self._worker.queues)
        if early_ms is not None:
            return HandedBack(early_ms)
        shape = self._library.shapes.get(node.plan) or await self._library.shape(node.plan)
        leaf = shape.nodes[node.node]
        assert isinstance(leaf, LeafPlan)
        task = self._registry.get(leaf.task)
        if task is None:
            return await self._worker.without(leaf.task, node)
        options = shape.plan.options[leaf.options]
        values = Values(self._library, known=self._advance.records)
        binder = await self._advance.binder(node.plan)
        limited_ms = await refused_ms(self._registry.rate_limiter, values, binder, node, leaf, options)
        if limited_ms is not None:
            return HandedBack(limited_ms)
        if self._signals.received:
            self._signals.received.send(task_event("received", node, leaf.task, self._store.now_ms()))
        running.judge = Judge(leaf.task, options, node.attempt, self._registry.strategy_of(task, options))
        context = running.context = await self._context(node, leaf, options, running, task)
        chain = self._registry.middleware
        if chain.on_consume and (refusal := await refused(chain, context, running.judge)) is not None:
            return refusal
        try:
            bound = await binder.calls(values, node, leaf)
            write = await self._library.codec.writer(
                options.result_encoder or self._library.encoders.results, *node.key, "result"
            )
        except ExpressionError as error:
            return Failed(
                ErrorInfo("ExpressionError", f"args of {node.path}: {error}", "stemflow.ExpressionError"), "final"
            )
        except UnknownEncoder as error:
            return Failed(describe(error), "final", dead="unknown-encoder")
        except BadPayload as error:
            return Failed(describe(error), "final", dead="bad-arguments")
        output = await self._output(node, write)
        if execution_mode(task.is_async, options) == "process":
            return await self._in_process(running, task, options, context, bound, output)
        if isinstance(context, SyncTaskContext):
            context.ask = partial(ask_loop, asyncio.get_running_loop(), context)
        running.begin(context, options)
        attempted = attempt(task, context, bound, self._in_thread(running), output, running.judge)
        return await self._called(context, attempted)

    async def _called(self, context: TaskContext, attempted: Coroutine[Any, Any, T]) -> T:
        """The attempt, with the signals before and after it."""
        outcome: T | None = None
        if self._signals.prerun:
            self._signals.prerun.send(context_event("prerun", context, self._store.now_ms()))
        try:
            outcome = await attempted
            return outcome
        finally:
            if self._signals.postrun:
                error = outcome.error if isinstance(outcome, Failed) else None
                self._signals.postrun.send(context_event("postrun", context, self._store.now_ms(), error=error))

    async def _in_process(
        self,
        running: Running,
        task: Task[..., Any],
        options: Options,
        context: TaskContext,
        bound: Bound,
        output: Output,
    ) -> Outcome | Crashed:
        try:
            place = locate(task, self._registry)
        except OptionError as error:
            return Failed(describe(error), "final")
        try:
            running.child = await self._worker.processes.take()
        except StemflowError as error:
            return Crashed(str(error))
        running.begin(context, options)
        try:
            return await self._called(context, running.child.attempt(place, options, context, bound, output))
        finally:
            self._worker.processes.give(running.child)

    async def _output(self, node: Node, write: Write) -> Output:
        header = await self._library.header(node.run)
        return Output(self._worker.elsewhere, self._library.encoders, write, header.origin or node.run, node.path)

    def _in_thread(self, running: Running) -> Callable[[Callable[[], Any]], Awaitable[Any]]:
        def call(work: Callable[[], Any]) -> Awaitable[Any]:
            running.thread = asyncio.get_running_loop().run_in_executor(self._worker.pool, work)
            return asyncio.shield(running.thread)

        return call

    async def _context(
        self, node: Node, leaf: LeafPlan, options: Options, running: Running, task: Task[..., Any]
    ) -> TaskContext:
        kind = TaskContext if execution_mode(task.is_async, options) == "loop" else SyncTaskContext
        header = await self._library.header(node.run)
        before = await Values(self._library, known=self._advance.records).parent_path(node)
        told = encoders_told(node, leaf, options, header, self._library.encoders)
        parent = header.parent if before is None else (node.run, before)
        return kind(
            run_id=node.run,
            node=node.path,
            name=leaf.task,
            backstage=self._worker.backstage,
            attempt=node.attempt,
            max_retries=options.max_retries,
            headers=merged(merged(header.headers, leaf.headers), told.headers),
            meta=merged(merged(header.meta, leaf.meta), told.meta),
            queue=node.queue,
            enqueued_at_ms=node.opened_at_ms,
            parent_id=None if parent is None else task_id(parent),
            root_id=header.root,
            delivery=node.delivery,
            in_fan_in=bool(node.path) and await self._in_fan_in(node),
        )

    async def _in_fan_in(self, node: Node) -> bool:
        """Whether `add_to_group` has a group, chord header or map to join."""
        while node.path:
            scope = self._advance.records.get((node.run, parent_path(node.path)))
            if scope is None:
                (scope,) = await self._store.read([(node.run, parent_path(node.path))])
            assert isinstance(scope, Node)
            plan = (await self._library.shape(scope.plan)).nodes[scope.node]
            assert isinstance(plan, ScopePlan)
            if rules_of(plan).may_join(plan, node.index):
                return node.index >= 0
            node = scope
        return False
