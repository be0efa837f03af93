"""Why an open node makes no progress: reasons as values, and the facts that they are computed from."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, NamedTuple

from msgspec import Struct

from stemflow.core.shape import Shape
from stemflow.model.leaf_status import LeafStatus
from stemflow.model.pause import Pause
from stemflow.model.plan import AnyPlan, LeafPlan
from stemflow.model.policy import Options
from stemflow.model.records import RUNNING, STOPPING, Claim, Key, Node, task_id

Code = Literal[
    "running", "worker-gone", "lease-ended", "stopping", "paused", "retry", "delayed", "expired", "rate-limit",
    "no-worker", "queue-unserved", "task-unregistered", "workers-busy", "queued", "concurrency-key", "unique-key",
    "unique-window", "shares-outcome", "timer", "event", "approval", "members", "hook", "steps", "window", "applying",
]  # fmt: skip
"""Names of reasons, for programs; the same in every release."""


class Reason(Struct, frozen=True, kw_only=True):
    """One reason why a node waits, or what it does. Instants are epoch milliseconds.

    `holder`: the task or run that it waits for, as an id. `worker`: the name of the worker that runs it, or its holder.
    `place`: how many are before it, from 0. `until_ms`: the instant at which this reason ends, if it is known.
    `advice`: the command that helps.
    """

    code: Code
    text: str
    since_ms: int | None = None
    until_ms: int | None = None
    holder: str | None = None
    worker: str | None = None
    place: int | None = None
    advice: str | None = None


class Explanation(Struct, frozen=True, kw_only=True):
    """Why one node is not final: at least one reason, the one that decides first.

    `members`: how many members of a scope this explains, whose paths begin with `path`. `task` is that of a leaf.
    """

    path: str
    state: str
    reasons: tuple[Reason, ...]
    task: str | None = None
    members: int = 1


class WorkerFacts(NamedTuple):
    """What a worker last reported about itself. `queues` None: all of them; `tasks`: those that it has registered."""

    name: str
    queues: tuple[str, ...] | None
    only_run: str | None
    tasks: frozenset[str]
    concurrency: int
    free: int
    is_alive: bool
    leases: bool
    """It takes new leases."""
    holds: Mapping[tuple[Key, int], int]
    """Since when (epoch ms) it has run what it holds, by key and fencing token."""
    is_gone: bool = False
    """Its process was one of this host, and has ended."""

    def serves(self, queue: str, run: str) -> bool:
        return self.leases and (self.queues is None or queue in self.queues) and self.only_run in (None, run)


@dataclass(frozen=True, kw_only=True)
class Facts:
    """Everything that reasons are computed from, read at `now_ms`. `nodes` are those of one run, by path."""

    now_ms: int
    nodes: Mapping[str, Node]
    shapes: Mapping[str, Shape]
    claims: Mapping[str, Claim] = field(default_factory=dict)
    holders: Mapping[Key, Node] = field(default_factory=dict)
    """Nodes of other runs that hold a claim."""
    statuses: Mapping[str, LeafStatus] = field(default_factory=dict)
    """Of leaves, by path; of a run with very many open leaves, of the first ones."""
    workers: Sequence[WorkerFacts] = ()
    pauses: Sequence[Pause] = ()
    workflow: str = ""
    """The name of the workflow of this run."""

    def plan_of(self, node: Node) -> AnyPlan:
        return self.shapes[node.plan].nodes[node.node]

    def options_of(self, node: Node) -> Options:
        plan = self.plan_of(node)
        assert isinstance(plan, LeafPlan)
        return self.shapes[node.plan].plan.options[plan.options]

    def node(self, key: Key) -> Node | None:
        found = self.holders.get(key)
        if found is not None:
            return found
        run = next(iter(self.nodes.values())).run if self.nodes else None
        return self.nodes.get(key[1]) if key[0] == run else None

    def worker_of(self, node: Node | None) -> tuple[WorkerFacts, int] | None:
        """The worker that runs a leaf, and since when."""
        if node is None or node.state not in (RUNNING, STOPPING):
            return None
        for worker in self.workers:
            since_ms = worker.holds.get((node.key, node.delivery))
            if since_ms is not None:
                return worker, since_ms
        return None


NAMED: Final = 4
"""The most names in one text."""


def listed(names: Iterable[str]) -> str:
    """`a, b and c`; of many the first ones, and the number of the others."""
    found = list(names)
    if len(found) > NAMED:
        return f"{', '.join(found[:NAMED])} and {len(found) - NAMED:,} more"
    return " and ".join(filter(None, (", ".join(found[:-1]), found[-1]))) if found else "nothing"


def command(*words: str) -> str:
    """A command of this program as a shell reads it."""
    return shlex.join(("stemflow", *words))


def holder_text(facts: Facts, key: Key) -> str:
    """A holder of a key: its id, and the worker that runs it."""
    running = facts.worker_of(facts.node(key))
    return task_id(key) + (f" on worker {running[0].name}" if running is not None else "")


def many(count: int, what: str) -> str:
    return f"{count:,} {what}" if count == 1 else f"{count:,} {what}s"
