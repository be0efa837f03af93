"""How a node becomes final: the one place that notifies its scope, the waiters of its claim and those of the run."""

from __future__ import annotations

from stemflow.core import claims, topics
from stemflow.core.shape import Shape
from stemflow.core.work import MemberEnd, Work
from stemflow.model.effects import DeadLetter, GateError, RunEnd
from stemflow.model.plan import LeafPlan
from stemflow.model.records import CANCELLED, FAILED, FINAL, SUCCEEDED, Cause, ErrorInfo, Node, State

LEAST_KEPT_MS = 10_000
"""How long a run with `result_ttl` 0 is kept nevertheless, in milliseconds, so that waiting programs can read its
result."""

HOW = {SUCCEEDED: "ok", FAILED: "failed", CANCELLED: "cancelled"}


def finish(w: Work, node: Node, state: State, *, cause: Cause | None = None, kept_ms: int | None = None) -> None:
    """Make `node` final and queue its end for its scope.

    `kept_ms`: how long the run is kept, in milliseconds, if that should not be computed from its plan."""
    node.state, node.cause = state, cause
    node.due_at_ms, node.at_ms, node.ended_at_ms = None, 0, w.now_ms
    node.limits = ()
    if state == FAILED and node.failed_at is None:
        node.failed_at = node.path
    if node.awaits is not None or node.slot is not None or node.claim is not None:
        leave(w, node)
    if not node.path:
        w.ended.append(RunEnd(node.run, max(keep_ms(w, node) if kept_ms is None else kept_ms, LEAST_KEPT_MS)))
        return
    w.pending.append(MemberEnd(w.parent_key(node), node.index, how_ended(node), node.failed_at))


def how_ended(node: Node) -> str:
    """The outcome for its scope: `ok`, `failed`, `cancelled`, `skipped` (by its own condition), or `upstream`."""
    return HOW.get(node.state) or ("skipped" if node.cause == "condition" else "upstream")


def leave_dead_letter(w: Work, node: Node, gate: GateError) -> None:
    """Leave a dead letter if the gate failed for a reason that the operator has to fix."""
    if gate.dead is not None:
        w.dead.append(letter_of(w.shape(node.plan), node, gate.dead, w.now_ms, gate.error))


def letter_of(shape: Shape | None, node: Node, reason: str, now_ms: int, error: ErrorInfo) -> DeadLetter:
    """The dead letter of a node that was refused before it ran.

    Task and queue are read from its plan, if the plan is known; the queue of a composite is that of its first task."""
    plan, queue = None, node.queue
    if shape is not None and 0 <= node.node < len(shape.nodes):
        plan = shape.nodes[node.node]
        queue = shape.queue_of(node.node)
    task = plan.task if isinstance(plan, LeafPlan) else ""
    return DeadLetter(node.run, node.path, task, reason, now_ms, error, queue, node.attempt)


def leave(w: Work, node: Node) -> None:
    """Release its unique key and its concurrency key, or stop waiting for them, and for events."""
    if node.awaits is not None:
        topics.leave(w, node)
    if node.slot is not None:
        claims.leave(w, node.slot, node)
    if node.claim is not None:
        claim = w.claim(node.claim)
        if claim is not None and node.key in claim.holders:
            node.duplicates = claim.duplicates
        claims.leave(w, node.claim, node)


def keep_ms(w: Work, root: Node) -> int:
    """How long a run is kept after its end, in milliseconds: the longest `result_ttl` of its tasks, and at least as
    long as its unique key makes it the result of other runs."""
    window = w.claim(root.claim) if root.claim is not None else None
    until_ms = window.until_ms if window is not None and root.key in window.holders else None
    return max(w.shape(root.plan).keep_ms, (until_ms or 0) - root.ended_at_ms)


def has_expired(w: Work, root: Node) -> bool:
    """Whether the run has expired, so that its id may be used again even before it is pruned."""
    return root.state in FINAL and root.ended_at_ms + keep_ms(w, root) <= w.now_ms
