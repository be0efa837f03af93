"""A recorded execution as a workflow file: one step a task, `needs` its parents, `run_for` its runtime.

A record is `{name, tasks: [{id, parents, runtime_s}]}`, as the executions of WfInstances are kept in `data/`. Run as a
program with the path of a record, it prints the workflow file.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

MOST_CHARACTERS = 128
_PREFIX = "_--"
"""In front of what would not begin with a letter or `_`; no escaped text holds two hyphens in a row."""
_ALLOWED = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_")
_ESCAPE = re.compile(r"-([0-9a-f]{2})")


def to_name(recorded: str) -> str:
    """The name of a step or workflow for any text; `from_name` gives the text back.

    A byte (of UTF-8) that is no ASCII letter, digit or `_` becomes `-` and two hexadecimal digits. Raises ValueError
    when the name would be longer than a workflow file allows.
    """
    name = "".join(chr(byte) if chr(byte) in _ALLOWED else f"-{byte:02x}" for byte in recorded.encode())
    if not name or name[0] in "-0123456789":
        name = _PREFIX + name
    if len(name) > MOST_CHARACTERS:
        raise ValueError(
            f"task {recorded}: expected a name of at most {MOST_CHARACTERS} characters when escaped, "
            f"got {len(name)}; shorten it"
        )
    return name


def from_name(name: str) -> str:
    """The text that `to_name` made this name of."""
    plain = _ESCAPE.sub(lambda found: chr(int(found[1], 16)), name.removeprefix(_PREFIX))
    return plain.encode("latin-1").decode()


def to_workflow(record: Mapping[str, Any]) -> dict[str, Any]:
    """The workflow document of a record; runtimes are rounded to whole milliseconds."""
    return {"stemflow": "1", "name": to_name(record["name"]), "steps": dict(map(_step, record["tasks"]))}


def _step(task: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    step: dict[str, Any] = {"task": "run_for", "args": {"ms": round(task["runtime_s"] * 1_000)}}
    if task["parents"]:
        step["needs"] = [to_name(parent) for parent in task["parents"]]
    return to_name(task["id"]), step


def to_yaml(record: Mapping[str, Any]) -> str:
    """The workflow file of a record."""
    dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
    text: str = yaml.dump(to_workflow(record), Dumper=dumper, sort_keys=False, width=MOST_CHARACTERS)
    return text


if __name__ == "__main__":
    sys.stdout.write(to_yaml(json.loads(Path(sys.argv[1]).read_text("utf-8"))))
