"""A lease in flight: its handler, its time limits, and its one report."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Literal, NamedTuple

from stemflow.model.facts import Failed, HandedBack, Outcome
from stemflow.model.policy import Options
from stemflow.model.records import Key, Node, task_id
from stemflow.runtime.attempt.process_pool import Crashed, PoolProcess
from stemflow.runtime.commit.events import context_event
from stemflow.runtime.tasks.context import TaskContext, TaskTimeout, outside
from stemflow.runtime.tasks.retry_decision import RetryDecider
from stemflow.runtime.tasks.signals import Signal, TaskEvent
from stemflow.store.base import Store

DISOWN_AFTER_MS = 1_000
"""How long a handler that was cancelled may take to end before its lease is given up."""
RENEW_GRACE_MS = 2_000
"""How long after its hard limit a lease is still renewed, so that the handler can be disowned and reported."""
NO_OPTIONS = RetryDecider()
"""Decides on the failure of a task that is not known yet."""
LEASES_HELD = 10
"""A handler without a hard limit may block the event loop for this many lease periods; then leases are given up."""


class LeaseCallbacks(NamedTuple):
    """What a lease in flight needs of its worker.

    `timeout`: the signal of soft and hard limits. `report`: queues the outcome and frees the slot. `leak`: keeps the
    slot taken for a handler that was given up, until its future is done. `wait_for_reports`: awaited before a handler
    is called on the event loop.
    """

    store: Store
    timeout: Signal[TaskEvent]
    report: Callable[[Running, Outcome | Crashed], None]
    leak: Callable[[Running, asyncio.Future[Any]], None]
    wait_for_reports: Callable[[], Awaitable[None]]


class Running:
    """A lease with its handler. Its outcome is reported once: by the handler, by a time limit, or by a stop.

    `now_ms`: the instant at which the lease began here, in epoch milliseconds.
    """

    __slots__ = (
        "node", "options", "decide_retry", "task", "thread", "pool_process", "context", "reported", "reason",
        "timed_out", "started_at_ms", "until_ms", "timers", "void", "wait_for_reports", "_callbacks",
    )  # fmt: skip

    def __init__(self, node: Node, callbacks: LeaseCallbacks, now_ms: int) -> None:
        self.node = node
        self._callbacks = callbacks
        self.wait_for_reports = callbacks.wait_for_reports
        """Lets the reports of handlers that have blocked the event loop leave before this one is called."""
        self.options: Options | None = None
        self.decide_retry = NO_OPTIONS
        self.task: asyncio.Task[None] | None = None
        self.thread: asyncio.Future[Any] | None = None
        """The call in a thread, which cannot be cancelled; it takes a slot until it returns."""
        self.pool_process: PoolProcess | None = None
        """The process that the handler runs in."""
        self.context: TaskContext | None = None
        self.reported = False
        self.reason: Outcome | None = None
        """The outcome to report if the handler does not succeed: set when it is cancelled."""
        self.timed_out = False
        self.started_at_ms = now_ms
        self.until_ms = 0
        self.timers: list[asyncio.TimerHandle] = []
        self.void = False
        """The store has lost the records that this lease belongs to: its outcome is not reported."""

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        """Run the attempt as an asyncio task, without the context variables of what leased it."""
        self.task = asyncio.get_running_loop().create_task(work, context=outside())
        self.task.add_done_callback(self.ended)

    def know(self, context: TaskContext) -> None:
        """The context of the handler was made; a cancel is signalled in it."""
        self.context = context

    def retry_by(self, decide_retry: RetryDecider) -> None:
        """The task is known: its options and strategy decide what a failure leads to."""
        self.decide_retry = decide_retry

    def in_process(self, process: PoolProcess) -> None:
        """The handler runs in this process of the pool."""
        self.pool_process = process

    def in_thread(self, thread: asyncio.Future[Any]) -> None:
        """The handler runs in a thread, which cannot be cancelled."""
        self.thread = thread

    def begin(self, context: TaskContext, options: Options, on_soft_limit: Callable[[], None] | None) -> None:
        """Start the time limits of the attempt: the handler is called now.

        `on_soft_limit` is called on the event loop when the soft limit has passed; None for a task without one.
        """
        self.context, self.options = context, options
        self.started_at_ms = self._callbacks.store.now_ms()
        if options.soft_ms is None and options.hard_ms is None:
            return
        call_later = asyncio.get_running_loop().call_later
        if options.soft_ms is not None and on_soft_limit is not None:
            self.timers.append(call_later(options.soft_ms / 1_000, self._soft_limit, context, on_soft_limit))
        if options.hard_ms is not None:
            context._end_at(self.started_at_ms + options.hard_ms)
            self.timers.append(call_later(options.hard_ms / 1_000, self._hard_limit, options))

    @property
    def title(self) -> str:
        """The task as the log names it: its name and id."""
        name = "" if self.context is None else f"{self.context.name} "
        return f"task {name}({task_id(self.node.key)})"

    def keep_for(self, ms: int) -> None:
        """Renew the lease for at least `ms` milliseconds from now, also by later renewals."""
        self.until_ms = max(self.until_ms, self._callbacks.store.now_ms() + ms)

    def held(self) -> tuple[Key, int, int]:
        """What a renewal asks the store for: (key, fencing token, lease in ms)."""
        left_ms = self.until_ms - self._callbacks.store.now_ms() if self.until_ms else 0
        return self.node.key, self.node.delivery, max(self.node.lease_ms, left_ms)

    def renewable(self, now_ms: int, loop_held_ms: int) -> bool:
        """Whether the lease is still to be renewed: not long after its hard limit, and without one not while a handler
        blocks the event loop for many leases. `loop_held_ms`: for how long the loop has been blocked."""
        if self.options is None or self.options.hard_ms is None:
            return loop_held_ms <= LEASES_HELD * self.node.lease_ms
        return now_ms <= self.started_at_ms + self.options.hard_ms + RENEW_GRACE_MS

    def report(self, outcome: Outcome | Crashed) -> None:
        """Report the outcome, unless another was reported before."""
        if self.reported:
            return
        self.reported = True
        for timer in self.timers:
            timer.cancel()
        self._callbacks.report(self, outcome)

    def cancel(self, outcome: Outcome) -> None:
        """Cancel the handler; `outcome` is reported when it ends, or when it has not ended after a grace period."""
        if self.reported or self.reason is not None:
            return
        self.reason = outcome
        if self.context is not None:
            self.context.cancelled.set()
        if self.pool_process is not None:
            # Only a handler whose run was cancelled has time to end by itself.
            self.pool_process.cancel() if isinstance(
                outcome, Failed
            ) and not self.timed_out else self.pool_process.kill()
        elif self.task is not None and self.thread is None:
            self.task.cancel()
        self.timers.append(asyncio.get_running_loop().call_later(DISOWN_AFTER_MS / 1_000, self.disown))

    def drop_report(self) -> None:
        """Report nothing of the handler any more: something else was reported of its lease."""
        self.reported = True

    def give_up(self) -> None:
        """Cancel the handler and report nothing: the store has lost its lease, or the worker has stopped."""
        self.void = True
        self.cancel(HandedBack())

    def ended(self, task: asyncio.Task[None]) -> None:
        """Report for a task that was cancelled before its first step, which could not report itself."""
        if not self.reported:
            self.report(self.reason or HandedBack())

    def disown(self) -> None:
        """Give up a handler that does not end: its lease is free, its result does not count, its slot stays taken."""
        assert self.reason is not None
        if self.pool_process is not None:
            return self.pool_process.kill()
        self.report(self.reason)
        work = self.thread or self.task
        assert work is not None
        self._callbacks.leak(self, work)
        if self.task is not None:
            self.task.cancel()

    def _soft_limit(self, context: TaskContext, on_soft_limit: Callable[[], None]) -> None:
        self._signal_timeout("soft")
        context.logger.warning("task %s passed its soft time limit; it goes on", context.id)
        on_soft_limit()

    def _hard_limit(self, options: Options) -> None:
        self.timed_out = True
        self._signal_timeout("hard")
        text = f"it did not end within its hard time limit of {options.hard_ms} ms"
        self.cancel(self.decide_retry(TaskTimeout(text)))

    def _signal_timeout(self, limit: Literal["soft", "hard"]) -> None:
        if self._callbacks.timeout and self.context is not None:
            now_ms = self._callbacks.store.now_ms()
            self._callbacks.timeout.send(context_event("timeout", self.context, now_ms, limit=limit))
