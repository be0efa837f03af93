"""`stemflow diff A B`: what two versions of a workflow do differently."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from stemflow.cli.arguments import Arguments
from stemflow.cli.exits import FINE, RUN_FAILED, WRONG_USAGE, Refused
from stemflow.cli.text import clip, json_text, shown
from stemflow.cli.workflow_file import read_file, require_valid
from stemflow.compile.difference import Change, difference
from stemflow.model.workflow import Workflow
from stemflow.runtime.client.workflow_files import WorkflowFile
from stemflow.units import format_duration

_MARKS = {"added": "+", "removed": "-", "changed": "~", "renamed": "~"}
_WIDEST = 120


def main(arguments: Arguments) -> int:
    """Print the differences; exit code 1 if there are some, as diff has it."""
    changes = difference(_workflow(arguments.old), _workflow(arguments.new))
    if arguments.json:
        print(json_text([_data(one) for one in changes], indent=2))
    else:
        for one in changes:
            print("\n".join(_lines(one)))
        if not changes:
            print("both do the same")
    return RUN_FAILED if changes else FINE


def _workflow(place: str) -> Workflow:
    """The workflow of a file, or of a file in a git revision (REV:FILE)."""
    revision, colon, file = place.partition(":")
    if Path(place).exists() or not colon or not revision or not file:
        return require_valid(read_file(place).checked(None))
    try:
        done = subprocess.run(["git", "show", f"{revision}:./{file}"], capture_output=True, check=False)
    except OSError as error:
        raise Refused(f"{place}: expected git, got {error.strerror}; install it", WRONG_USAGE) from None
    if done.returncode:
        said = (done.stderr.decode(errors="replace").strip().splitlines() or ["no message"])[0]
        raise Refused(f"{place}: git show: {said}; name a file of a revision as REV:FILE", WRONG_USAGE)
    try:
        text = done.stdout.decode()
    except UnicodeDecodeError as error:
        raise Refused(f"{place}: expected UTF-8 text, got something else at byte {error.start}") from None
    return require_valid(WorkflowFile.of(text, place, Path(file)).checked(None))


def _lines(change: Change) -> Iterator[str]:
    name = f" {shown(change.name)}" if change.name else " of the workflow" if change.what == "step" else ""
    mark = _MARKS[change.kind]
    if change.kind == "renamed":
        (_, old, new), *_ = change.details
        yield f"{mark} {change.what} {shown(old)} is now {shown(new)}"
        return
    if change.kind == "changed":
        yield f"{mark} {'body' if change.what == 'step' and not change.name else change.what}{name or 's'}"
        for key, before, after in change.details:
            yield f"    {shown(key)}: {_shown(key, before)} -> {_shown(key, after)}"
        return
    yield clip(f"{mark} {change.what}{name}{_summary(change)}", 2 * _WIDEST)


def _summary(change: Change) -> str:
    """What was added or removed, in a few words."""
    values = {key: before if after is None else after for key, before, after in change.details}
    if change.what != "step":
        return ": " + ", ".join(f"{shown(key)} {_shown(key, value)}" for key, value in values.items()) if values else ""
    after = [shown(key.removeprefix("after.")) for key in values if key.startswith("after.")]
    said = [f"task {shown(values['task'])}" if "task" in values else str(values["kind"])]
    said += [f"after {', '.join(after)}"] if after else []
    said += [f"when {shown(values['when'])}"] if "when" in values else []
    return f": {', '.join(said)}"


def _shown(key: str, value: Any) -> str:
    if value is None:
        return "none"
    if key.endswith("_ms") and isinstance(value, int):
        return format_duration(value)
    return clip(shown(value) if isinstance(value, str) else json_text(value), _WIDEST)


def _data(change: Change) -> dict[str, Any]:
    details = [{"key": key, "before": before, "after": after} for key, before, after in change.details]
    return {"change": change.kind, "what": change.what, "name": change.name, "details": details}
