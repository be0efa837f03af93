"""`stemflow export MODULE:NAME`: a canvas or workflow of a program as a workflow file."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from stemflow.cli.arguments import Arguments
from stemflow.cli.exits import FINE, INVALID_FILE, Refused
from stemflow.dsl.export import to_yaml
from stemflow.dsl.export_options import CannotExport
from stemflow.model.signature import Signature
from stemflow.model.workflow import Workflow
from stemflow.runtime.tasks.discovery import load_named, load_object


def main(arguments: Arguments) -> int:
    """Print the file, or write it with `--output`."""
    found, own = load_object(arguments.object, Path.cwd(), "export")
    registry = load_named(arguments.tasks, Path.cwd(), "--tasks") if arguments.tasks else own
    try:
        text = to_yaml(_expected(found, arguments), registry, name=_name(found, arguments))
    except CannotExport as error:
        raise Refused(f"{arguments.object}: {error}", INVALID_FILE) from None
    if arguments.output is None:
        print(text, end="")
    else:
        Path(arguments.output).write_text(text, "utf-8")
        print(f"{arguments.output}: written", file=sys.stderr)
    return FINE


def _expected(found: object, arguments: Arguments) -> Workflow | Signature[Any, Any]:
    if isinstance(found, (Workflow, Signature)):
        return found
    raise Refused(f"{arguments.object}: expected a signature or a workflow, got {type(found).__name__}")


def _name(found: object, arguments: Arguments) -> str | None:
    """What `--name` says; a canvas is called as in its module otherwise, a workflow as it calls itself."""
    usual = None if isinstance(found, Workflow) else str(arguments.object).rpartition(":")[2]
    return arguments.name or usual
