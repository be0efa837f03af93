"""Render the transition table as a page: `python -m stemflow.testing.diagram docs/state-machine.md`."""

from __future__ import annotations

import sys
from collections import defaultdict
from pathlib import Path

from stemflow.core.table import EVENTS, KINDS, STATES, TABLE, Kind
from stemflow.model.records import FINAL

WHAT: dict[Kind, str] = {
    "leaf": "A task.",
    "wait": "A timer; it occupies no worker.",
    "event": "A step that waits for an event; it occupies no worker.",
    "emit": "A step that sends an event; it ends in the commit in which it opens.",
    "approval": "A step that waits for the answer of a person; it occupies no worker.",
    "scope": "A node with members: a run, chain, group, chord, map, graph of steps, hook, or what replaced a task.",
}

HEAD = """\
# The state machine

This page is generated from the transition table in `stemflow/core/table.py`. Do not edit it; run
`python -m stemflow.testing.diagram docs/state-machine.md`.

A pair of state and event that is not in the table changes nothing: late and duplicate reports are normal, so they get
an answer, not an exception. WAITING is never stored: a member that has not opened has no record, and a member that was
skipped or cancelled before it opened (`upstream`, `stop`) is only a bit in the tally of its scope.
"""


def page() -> str:
    """The whole page as Markdown."""
    return HEAD + "".join(_section(kind) for kind in KINDS)


def _section(kind: Kind) -> str:
    lines = ["", f"## {kind.capitalize()}", WHAT[kind], "", "```mermaid", "stateDiagram-v2", "    [*] --> WAITING"]
    arrows: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
    cells = [(state, event, TABLE.get((kind, state, event))) for state in STATES for event in EVENTS]
    for state, event, cell in cells:
        for target in cell.to if cell else ():
            arrows[state, target].append(event)
    for (source, end), events in arrows.items():
        lines.append(f"    {source.upper()} --> {end.upper()}: {', '.join(events)}")
    lines += [f"    {state.upper()} --> [*]" for state in STATES if state in FINAL]
    lines += ["```", "", "| state | event | action | leads to |", "|---|---|---|---|"]
    for state, event, cell in cells:
        if cell:
            leads = ", ".join(target.upper() for target in cell.to)
            lines.append(f"| {state.upper()} | {event} | `{cell.action}` | {leads} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(page(), encoding="utf-8")
