"""SF5: events that start runs."""

from __future__ import annotations

from collections.abc import Iterator

from stemflow.dsl.rules.registry import Found, rule
from stemflow.dsl.rules.view import View


@rule("SF525", "warning")
def a_workflow_that_starts_itself(view: View) -> Iterator[Found]:
    """A step that sends an event of the type that starts runs of this file."""
    on = view.root.get("on")
    trigger = None if on is None else on.get("event")
    started_by = None if trigger is None else trigger.text("type")
    if trigger is None or started_by is None or "match" in trigger.members:
        return
    for step in view.steps.values():
        sent = step.body.get("type") if step.kind == "emit" and step.body is not None else None
        if sent is not None and sent.value == started_by:
            yield Found(
                f"emit: each event of the type {started_by} starts a run of this workflow, so it never stops",
                sent.place,
                "send another type, or tell the events apart in on.event.match",
            )
