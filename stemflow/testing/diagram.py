"""Draws the table of the machine as a page: `python -m stemflow.testing.diagram docs/state-machine.md`."""

from __future__ import annotations

import sys
from collections import defaultdict
from pathlib import Path

from stemflow.core.table import EVENTS, KINDS, STATES, TABLE, Kind
from stemflow.model.records import FINAL

WHAT: dict[Kind, str] = {
    "leaf": "A task.",
    "wait": "A timer; it holds no worker.",
    "scope": "A run, chain, group, chord, map, DAG of steps, handler, or what a task put in its own place.",
}

HEAD = """\
# The state machine

Drawn from the one table of the machine, `stemflow/core/table.py`; do not edit this page, write it anew with
`python -m stemflow.testing.diagram docs/state-machine.md`.

A pair of state and event that is not here changes nothing: late and double reports are ordinary, and they are
answered, not raised. WAITING is never stored: a member that was not opened yet has no record, and one that is skipped
or cancelled before it was opened (`upstream`, `stop`) has only a bit in the tally of its scope.
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
