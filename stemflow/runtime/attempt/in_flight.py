"""One lease at work: its handler, its time limits, and its one report."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Literal

from stemflow.model.facts import Failed, HandedBack, Outcome
from stemflow.model.policy import Options
from stemflow.model.records import Key, Node, task_id
from stemflow.runtime.attempt.process_pool import Child, Crashed
from stemflow.runtime.attempt.soft_limit import soften
from stemflow.runtime.commit.events import context_event
from stemflow.runtime.tasks.context import TaskContext, TaskTimeout
from stemflow.runtime.tasks.retry_decision import Judge

if TYPE_CHECKING:
    from stemflow.runtime.worker.worker import Worker

log = logging.getLogger("stemflow.worker")

DISOWN_AFTER_MS = 1_000
"""How long a handler that was told to end may take before it is disowned."""
RENEW_GRACE_MS = 2_000
"""How long after its hard limit a lease is still renewed: time to be disowned and reported."""
LEASES_HELD = 10
"""For how many leases a handler without a hard limit may hold the loop before they are given up."""


class Running:
    """Its outcome is reported once, whoever is first: the handler, a time limit, a stop."""

    __slots__ = (
        "worker", "node", "options", "judge", "task", "thread", "child", "context", "reported", "reason", "timed_out",
        "started_at_ms", "until_ms", "timers", "void",
    )  # fmt: skip

    def __init__(self, worker: Worker, node: Node) -> None:
        self.worker = worker
        self.node = node
        self.options: Options | None = None
        self.judge = Judge()
        self.task: asyncio.Task[None] | None = None
        self.thread: asyncio.Future[Any] | None = None
        """The call in a thread, which nothing can end; it holds a slot until it returns."""
        self.child: Child | None = None
        """The process that the handler runs in."""
        self.context: TaskContext | None = None
        self.reported = False
        self.reason: Outcome | None = None
        self.timed_out = False
        self.started_at_ms = worker.store.now_ms()
        self.until_ms = 0
        self.timers: list[asyncio.TimerHandle] = []
        self.void = False
        """The store has lost what this rests on: its outcome is not reported."""

    def begin(self, context: TaskContext, options: Options) -> None:
        """The handler starts now; so does its time."""
        self.context, self.options = context, options
        self.started_at_ms = self.worker.store.now_ms()
        call_later = asyncio.get_running_loop().call_later
        if options.soft_ms is not None:
            self.timers.append(call_later(options.soft_ms / 1_000, self._soft, context))
        if options.hard_ms is not None:
            context.deadline_ms = self.started_at_ms + options.hard_ms
            self.timers.append(call_later(options.hard_ms / 1_000, self._hard, options))

    @property
    def title(self) -> str:
        """The task as the log names it."""
        name = "" if self.context is None else f"{self.context.name} "
        return f"task {name}({task_id(self.node.key)})"

    def keep_for(self, ms: int) -> None:
        """From now on no renewal makes the lease end before `ms` have passed."""
        self.until_ms = max(self.until_ms, self.worker.store.now_ms() + ms)

    def held(self) -> tuple[Key, int, int]:
        """What a renewal asks for: (key, token, lease_ms)."""
        left_ms = self.until_ms - self.worker.store.now_ms() if self.until_ms else 0
        return self.node.key, self.node.delivery, max(self.node.lease_ms, left_ms)

    def renewable(self, now_ms: int, loop_held_ms: int) -> bool:
        """Whether its lease is worth keeping: not long after its hard limit, and, without one, not while a handler
        holds the loop for ever."""
        if self.options is None or self.options.hard_ms is None:
            return loop_held_ms <= LEASES_HELD * self.node.lease_ms
        return now_ms <= self.started_at_ms + self.options.hard_ms + RENEW_GRACE_MS

    def report(self, outcome: Outcome | Crashed) -> None:
        if self.reported:
            return
        self.reported = True
        for timer in self.timers:
            timer.cancel()
        self.worker.report(self, outcome)

    def cancel(self, outcome: Outcome) -> None:
        """Tell the handler to end; `outcome` is reported when it does, or when it has not after a grace period."""
        if self.reported or self.reason is not None:
            return
        self.reason = outcome
        if self.context is not None:
            self.context.cancelled.set()
        if self.child is not None:
            # Only one whose run was cancelled is given time to end by itself.
            self.child.cancel() if isinstance(outcome, Failed) and not self.timed_out else self.child.kill()
        elif self.task is not None and self.thread is None:
            self.task.cancel()
        self.timers.append(asyncio.get_running_loop().call_later(DISOWN_AFTER_MS / 1_000, self.disown))

    def ended(self, task: asyncio.Task[None]) -> None:
        """Whoever cancelled it before its first step has left the report to us."""
        if not self.reported:
            self.report(self.reason or HandedBack())

    def disown(self) -> None:
        """Its lease is given up, and what it reports from now on does not count; its slot is taken until it ends."""
        assert self.reason is not None
        if self.child is not None:
            return self.child.kill()
        self.report(self.reason)
        work = self.thread or self.task
        assert work is not None
        self.worker.leak(self, work)
        if self.task is not None:
            self.task.cancel()

    def _soft(self, context: TaskContext) -> None:
        self._tell("soft")
        context.logger.warning("task %s passed its soft time limit; it goes on", context.id)
        soften(context)

    def _tell(self, limit: Literal["soft", "hard"]) -> None:
        signal = self.worker.signals.timeout
        if signal and self.context is not None:
            signal.send(context_event("timeout", self.context, self.worker.store.now_ms(), limit=limit))

    def _hard(self, options: Options) -> None:
        self.timed_out = True
        self._tell("hard")
        text = f"it did not end within its hard time limit of {options.hard_ms} ms"
        self.cancel(self.judge(TaskTimeout(text)))
