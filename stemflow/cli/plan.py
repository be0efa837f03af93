"""`stemflow plan`: what a workflow would do, without running it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from stemflow.cli.arguments import Arguments
from stemflow.cli.awaited import awaited
from stemflow.cli.exits import FINE, Refused
from stemflow.cli.inputs import read_inputs
from stemflow.cli.planning import PlannedStep, Planner
from stemflow.cli.text import json_text, shown
from stemflow.cli.workflow_file import read_file, require_valid
from stemflow.dsl.findings import did_you_mean
from stemflow.model.workflow import Workflow
from stemflow.units import format_duration

_ENDS = {"ok": "runs", "failed": "fails", "skipped": "is skipped", "upstream": "is skipped after a failure"}


def main(arguments: Arguments) -> int:
    """Print the plan; with `--fail`, what a failure of one step would skip and undo."""
    workflow = require_valid(read_file(arguments.file).checked(None))
    planner = Planner(workflow, read_inputs(workflow, arguments.input, arguments.inputs))
    if arguments.fail is not None and arguments.fail not in planner.steps:
        hint = did_you_mean(arguments.fail, planner.steps, "steps")
        raise Refused(f"--fail {arguments.fail}: expected a step of {arguments.file}, got none of that name; {hint}")
    planner.settle(arguments.fail)
    if arguments.json:
        print(json_text(_data(planner, arguments.fail), indent=2))
        return FINE
    for line in _text(workflow, planner, arguments.fail):
        print(line)
    return FINE


def _text(workflow: Workflow, planner: Planner, failing: str | None) -> Iterator[str]:
    yield f"{shown(workflow.name)}: {len(planner.steps)} steps"
    width = max((len(path) for path in planner.steps), default=0)
    for path in planner.order:
        step = planner.steps[path]
        yield f"  {path:<{width}}  {_ENDS[step.end]}{_details(step)}"
    longest = planner.longest()
    if longest:
        yield f"longest path: {' -> '.join(longest)}"
    worst = planner.worst_case_ms()
    limit = "" if workflow.timeout_ms is None else f"; the timeout is {format_duration(workflow.timeout_ms)}"
    yield f"worst case: {'unknown, as a step has no timeout' if worst is None else format_duration(worst)}{limit}"
    if failing is not None:
        undone = planner.undone()
        yield f"undone after the failure of {failing}: {', '.join(undone) or 'nothing'}"


def _details(step: PlannedStep) -> str:
    parts = [f"after {', '.join(f'{name} ({kind})' for name, kind in step.waits)}" if step.waits else "at the start"]
    if (what := awaited(step.sig)) is not None:
        parts.append(what)
    if step.items is not None:
        parts.append(f"{step.items} items")
    if step.condition is not None:
        parts.append(f"when {shown(step.condition)}" + ("" if step.holds is None else f" = {str(step.holds).lower()}"))
    return f", {'; '.join(parts)}"


def _data(planner: Planner, failing: str | None) -> dict[str, Any]:
    steps = [
        {
            "step": path,
            "kind": step.kind,
            "after": [{"step": name, "edge": kind} for name, kind in step.waits],
            "when": step.condition,
            "holds": step.holds,
            "items": step.items,
            "end": step.end,
            "worst_case_ms": step.worst_ms,
        }
        for path in planner.order
        for step in (planner.steps[path],)
    ]
    return {
        "steps": steps,
        "longest_path": planner.longest(),
        "worst_case_ms": planner.worst_case_ms(),
        "undone": None if failing is None else planner.undone(),
    }
