"""A node of a run as programs see it: a record of its own, which stays as it is when the stored one changes."""

from __future__ import annotations

from typing import Literal

import msgspec
from msgspec import Struct

from stemflow.model.plan import LeafPlan, PlanNode, ScopePlan
from stemflow.model.records import Cause, ErrorInfo, Node, State

NodeKind = Literal[
    "task", "wait", "event", "emit", "approval",
    "chain", "group", "chord", "map", "loop", "steps", "switch", "workflow", "set", "fail",
]  # fmt: skip


class RunNode(Struct, frozen=True, kw_only=True):
    """The state of a node of a run; fields may be added in later versions, none is removed or renamed.

    `path`: the address in the run, empty for the run itself. `kind`: `task`, another kind of step, or of composite.
    `state`: `waiting`, `held`, `ready`, `running`, `stopping`, `succeeded`, `failed`, `skipped` or `cancelled`. `task`:
    of a task its name. `queue`, `priority`: of a task. `attempt`: from 0. `losses`: how often its worker was lost.
    `cause`: why it was skipped, `condition` or `upstream`. `error`: why it failed; of a composite, `failed_at` is the
    path of the task that made it fail. `opened_at_ms`, `started_at_ms`, `ended_at_ms`: epoch milliseconds, None before.
    """

    path: str
    kind: NodeKind
    state: State
    task: str | None = None
    queue: str | None = None
    priority: int | None = None
    attempt: int = 0
    losses: int = 0
    cause: Cause | None = None
    error: ErrorInfo | None = None
    failed_at: str | None = None
    opened_at_ms: int | None = None
    started_at_ms: int | None = None
    ended_at_ms: int | None = None


def run_node(node: Node, plan: PlanNode) -> RunNode:
    """The public record of `node`, whose place in its plan is `plan`."""
    leaf = plan if isinstance(plan, LeafPlan) else None
    return RunNode(
        path=node.path,
        kind=_kind(plan),
        state=node.state,
        task=leaf.task if leaf is not None else None,
        queue=node.queue if leaf is not None else None,
        priority=node.priority if leaf is not None else None,
        attempt=node.attempt,
        losses=node.losses,
        cause=node.cause,
        error=node.error,
        failed_at=node.failed_at,
        opened_at_ms=node.opened_at_ms or None,
        started_at_ms=node.started_at_ms or None,
        ended_at_ms=node.ended_at_ms or None,
    )


def _kind(plan: PlanNode) -> NodeKind:
    if isinstance(plan, LeafPlan):
        return "task"
    return plan.kind if isinstance(plan, ScopePlan) else msgspec.convert(type(plan).__struct_config__.tag, NodeKind)
