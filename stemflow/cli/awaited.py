"""What steps wait for that need no worker, in words."""

from __future__ import annotations

from stemflow.cli.text import shown
from stemflow.model.plan import AnyPlan, ApprovalPlan, EmitPlan, EventPlan
from stemflow.model.signature import AnySig, ApprovalSig, EmitSig, EventSig


def awaited(step: AnySig | AnyPlan) -> str | None:
    """What a step waits for or sends; None for other kinds."""
    if isinstance(step, (EventSig, EventPlan)):
        match = "" if step.match is None else f" with {step.match}"
        return shown(f"waits for an event {step.event_type}{match}")
    if isinstance(step, (ApprovalSig, ApprovalPlan)):
        return shown(f"waits for an answer of {' or '.join(step.by) or 'anybody'}")
    if isinstance(step, (EmitSig, EmitPlan)):
        return shown(f"sends an event {step.event_type}")
    return None
