"""The signals that follow from a commit, and the events that they carry."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from stemflow.model.effects import Decision
from stemflow.model.facts import Ended, Fact, Failed
from stemflow.model.plan import LeafPlan
from stemflow.model.records import READY, SUCCEEDED, Header, Node
from stemflow.runtime.tasks.context import TaskContext
from stemflow.runtime.tasks.signals import RunEvent, Signals, TaskEvent
from stemflow.runtime.values.library import Library


def send_commit_signals(
    signals: Signals, library: Library, decision: Decision, facts: Sequence[Fact], now_ms: int
) -> None:
    """Send the signals of one committed decision on `facts`. Does no work for signals without listeners."""
    if signals.run_started.listeners:
        for header in (*decision.headers, *decision.also):
            signals.run_started.send(run_event("run_started", header, now_ms))
    if signals.listens_to_task_ends:
        _send_tasks(signals, library, decision, facts, now_ms)
    if decision.ended and signals.listens_to_run_ends:
        _send_run_ends(signals, library, decision, now_ms)


def _send_tasks(signals: Signals, library: Library, decision: Decision, facts: Sequence[Fact], now_ms: int) -> None:
    failed = {
        fact.key
        for fact in facts
        if isinstance(fact, Ended) and isinstance(fact.outcome, Failed) and fact not in decision.refused
    }
    for put in decision.puts:
        node = put.record
        # A task that is created as SUCCEEDED did not run: a rerun took its result over.
        if not isinstance(node, Node) or (node.state == SUCCEEDED and put.guard == 0):
            continue
        name = _task(library, node)
        if name is None:
            continue
        if node.state == READY and node.key in failed:
            signals.retry.send(task_event("retry", node, name, now_ms, error=node.error, next_at_ms=node.at_ms))
        elif node.state in signals.of_ends:
            signals.of_ends[node.state].send(task_event(node.state, node, name, now_ms, error=node.error))


def _send_run_ends(signals: Signals, library: Library, decision: Decision, now_ms: int) -> None:
    ended = {end.run for end in decision.ended}
    for put in decision.puts:
        root = put.record
        header = library.headers.get(put.key[0])
        if isinstance(root, Node) and not root.path and root.run in ended and header is not None:
            signal = signals.of_run_ends[root.state]
            signal.send(run_event(signal.name, header, now_ms, error=root.error))


def _task(library: Library, node: Node) -> str | None:
    """The name of the task of a record; None for a scope or a wait."""
    shape = library.shapes.get(node.plan)
    plan = shape.nodes[node.node] if shape is not None else None
    return plan.task if isinstance(plan, LeafPlan) else None


def task_event(signal: str, node: Node, task: str, at_ms: int, **more: Any) -> TaskEvent:
    """An event about a task, from its record; `more` are further fields of the event."""
    return TaskEvent(
        signal=signal, task=task, run_id=node.run, node=node.path, attempt=node.attempt, queue=node.queue, at_ms=at_ms,
        **more,
    )  # fmt: skip


def run_event(signal: str, header: Header, at_ms: int, **more: Any) -> RunEvent:
    """An event about a run, from its header; `more` are further fields of the event."""
    fields = {"run_id": header.run, "name": header.name, "headers": header.headers, **more}
    return RunEvent(signal=signal, at_ms=at_ms, **fields)


def context_event(signal: str, context: TaskContext, at_ms: int, **more: Any) -> TaskEvent:
    """An event about a running task, from its context; `more` are further fields of the event."""
    return TaskEvent(
        signal=signal, task=context.name, run_id=context.run_id, node=context.node, attempt=context.attempt,
        queue=context.queue, at_ms=at_ms, context=context, **more,
    )  # fmt: skip
