"""`stemflow schema`: the JSON Schema of workflow files, for editors."""

from __future__ import annotations

import json
from pathlib import Path

from stemflow.cli.arguments import Arguments
from stemflow.cli.exits import FINE, Refused

_NAME = "workflow.v1.schema.json"
_PACKAGE = Path(__file__).resolve().parent.parent
_PLACES = (_PACKAGE / "schemas" / _NAME, _PACKAGE.parent / "schemas" / _NAME)
"""Inside the package when it is installed; at the top of the repository in a source checkout."""


def main(arguments: Arguments) -> int:
    """Print the schema as it is shipped, or with the tasks of the modules that are named."""
    path = next((one for one in _PLACES if one.is_file()), None)
    if path is None:
        raise Refused(f"{_PLACES[0]}: expected the schema, found none; install stemflow-engine again")
    text = path.read_text("utf-8")
    print(_with_tasks(text, arguments.tasks) if arguments.tasks else text, end="")
    return FINE


def _with_tasks(text: str, named: list[str]) -> str:
    from stemflow.dsl.task_schema import with_tasks
    from stemflow.runtime.tasks.discovery import find_tasks

    registry = find_tasks(named, None)
    found = with_tasks(json.loads(text), {name: registry.schema(name) for name in registry})
    return json.dumps(found, indent=2, ensure_ascii=False) + "\n"
