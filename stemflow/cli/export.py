"""`stemflow export MODULE:NAME`: a canvas or workflow of a program as a workflow file."""

from __future__ import annotations

import sys
from pathlib import Path

from stemflow.cli.arguments import Arguments
from stemflow.cli.exits import FINE, INVALID_FILE, Refused
from stemflow.dsl.export import bound, to_yaml
from stemflow.dsl.export_options import CannotExport
from stemflow.model.signature import Signature
from stemflow.model.workflow import Workflow
from stemflow.runtime.tasks.discovery import load_named, load_object
from stemflow.runtime.tasks.registry import TaskRegistry


def main(arguments: Arguments) -> int:
    """Print the file, or write it with `--output`."""
    found, own = load_object(arguments.object, Path.cwd(), "export")
    registry = load_named(arguments.tasks, Path.cwd(), "--tasks") if arguments.tasks else own
    try:
        text = to_yaml(_workflow(found, registry, arguments))
    except CannotExport as error:
        raise Refused(f"{arguments.object}: {error}", INVALID_FILE) from None
    if arguments.output is None:
        print(text, end="")
    else:
        Path(arguments.output).write_text(text, "utf-8")
        print(f"{arguments.output}: written", file=sys.stderr)
    return FINE


def _workflow(found: object, registry: TaskRegistry | None, arguments: Arguments) -> Workflow:
    if isinstance(found, Workflow):
        return found
    if not isinstance(found, Signature):
        raise Refused(f"{arguments.object}: expected a signature or a workflow, got {type(found).__name__}")

    def names(task: str) -> tuple[str, ...] | None:
        known = None if registry is None else registry.get(task)
        return None if known is None else known.params

    return Workflow(name=arguments.name or arguments.object.rpartition(":")[2], body=bound(found, names))
