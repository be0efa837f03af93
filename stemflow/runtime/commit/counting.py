"""Counts what a process commits: runs, attempts and ends of tasks, retries, losses, durations."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Sequence
from typing import Final

from stemflow.model.effects import Decision
from stemflow.model.facts import Ended, Fact, Failed, HandedBack, Ignored, Lost, Ok, Replaced
from stemflow.model.metrics import BUCKETS_MS, Counts
from stemflow.model.plan import LeafPlan
from stemflow.model.records import FINAL, READY, SUCCEEDED, Key, Node
from stemflow.runtime.values.library import Library

MOST_NAMES: Final = 500
"""So many names of tasks or workflows are distinguished, and so many queues; more are counted as `other`."""
MOST_ERRORS: Final = 50
OTHER: Final = "other"

_OUTCOMES: Final = {
    Ok: "succeeded", Failed: "failed", HandedBack: "handed_back", Ignored: "ignored", Replaced: "replaced",
}  # fmt: skip


class Counting:
    """The counts of one process since it began."""

    def __init__(self) -> None:
        self.counts = Counts({}, {})
        self.version = 0
        """Grows with each change."""
        self._known: defaultdict[str, dict[str, str]] = defaultdict(dict)

    def _name(self, kind: str, name: str, most: int = MOST_NAMES) -> str:
        """The name, or `other` if too many were met before it: the number of series is bounded."""
        known = self._known[kind]
        found = known.get(name)
        if found is None:
            if len(known) >= most:
                return OTHER
            found = known[name] = name
        return found

    def observe(self, name: str, label: str, ms: int) -> None:
        """Note a duration of `ms` milliseconds in a histogram with one label."""
        series = (name, (self._known[name].get(label) or self._name(name, label),))
        found = self.counts.histograms.get(series)
        buckets, sum_ms = found if found is not None else ([0] * (len(BUCKETS_MS) + 1), 0)
        buckets[bisect_left(BUCKETS_MS, ms)] += 1
        self.counts.histograms[series] = (buckets, sum_ms + max(ms, 0))
        self.version += 1

    def waited(self, node: Node, now_ms: int) -> None:
        """A task was leased for its first time."""
        if node.delivery == node.base + 1:
            self.observe("task_wait_seconds", node.queue, now_ms - max(node.at_ms, node.opened_at_ms))

    def count(self, library: Library, decision: Decision, facts: Sequence[Fact], now_ms: int) -> None:
        """Count what a committed decision on `facts` has changed."""
        self.version += 1
        add = self.counts.add
        for header in (*decision.headers, *decision.also):
            name = self._known["workflow"].get(header.name) or self._name("workflow", header.name)
            add("runs_started_total", (name,))
        failed = self._attempts(library, decision, facts, now_ms)
        for put in decision.puts:
            node = put.record
            # A task that is created as SUCCEEDED did not run: a rerun took its result over.
            if not isinstance(node, Node) or node.tally is not None or (node.state == SUCCEEDED and not put.guard):
                continue
            if node.state in FINAL:
                task = self._task(library, node)
                if task is not None:
                    add("tasks_ended_total", (task, node.state))
            elif failed and node.state == READY and node.key in failed and node.error is not None:
                error = self._name("error", node.error.type, MOST_ERRORS)
                add("task_retries_total", (failed[node.key], error))
        for letter in decision.dead:
            add("dead_letters_total", (self._name("task", letter.task), letter.reason))
        if decision.ended:
            self._ends_of_runs(library, decision)

    def _ends_of_runs(self, library: Library, decision: Decision) -> None:
        roots = {put.key[0]: put.record for put in decision.puts if not put.key[1]}
        for end in decision.ended:
            root, known = roots.get(end.run), library.headers.get(end.run)
            if isinstance(root, Node):
                name = OTHER if known is None else self._name("workflow", known.name)
                self.counts.add("runs_ended_total", (name, root.state))

    def _attempts(
        self, library: Library, decision: Decision, facts: Sequence[Fact], now_ms: int
    ) -> dict[Key, str]:
        """Count reports and losses; returns the tasks whose attempt has failed, by key."""
        failed: dict[Key, str] = {}
        nodes: dict[Key, Node] | None = None
        for fact in facts:
            if not isinstance(fact, Ended | Lost) or fact in decision.refused:
                continue
            if nodes is None:
                nodes = {put.key: put.record for put in decision.puts if isinstance(put.record, Node)}
            node = nodes.get(fact.key)
            task = None if node is None else self._task(library, node)
            if task is None:
                continue
            if isinstance(fact, Lost):
                self.counts.add("task_losses_total", (task,))
                continue
            self.counts.add("task_attempts_total", (task, _OUTCOMES[type(fact.outcome)]))
            if fact.started_at_ms:
                self.observe("task_duration_seconds", task, now_ms - fact.started_at_ms)
            if isinstance(fact.outcome, Failed):
                failed[fact.key] = task
        return failed

    def _task(self, library: Library, node: Node) -> str | None:
        """The name of the task of a record; None for a scope or a wait, or if its plan is not known here."""
        shape = library.shapes.get(node.plan)
        plan = shape.nodes[node.node] if shape is not None else None
        if not isinstance(plan, LeafPlan):
            return None
        return self._known["task"].get(plan.task) or self._name("task", plan.task)
