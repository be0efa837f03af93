"""The timer of a node that is HELD."""

from __future__ import annotations

from stemflow.core.work import Work
from stemflow.model.plan import LeafPlan
from stemflow.model.records import Node


def arm(w: Work, node: Node) -> None:
    """Set its timer to its start time or, if it has never started, to its expiry, whichever is earlier."""
    instants = [at_ms for at_ms in (node.at_ms or None, expiry_ms(w, node)) if at_ms is not None]
    node.due_at_ms = min(instants, default=None)


def expiry_ms(w: Work, node: Node) -> int | None:
    """The instant (epoch ms) at which a task that has never started expires, or None."""
    shape = w.shape(node.plan)
    plan = shape.nodes[node.node]
    if not isinstance(plan, LeafPlan) or node.delivery > node.base:
        return None
    expires_ms = shape.plan.options[plan.options].expires_ms
    return None if expires_ms is None else node.opened_at_ms + expires_ms
