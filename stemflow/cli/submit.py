"""`stemflow submit`: check a file and store a run of it for workers; nothing is run here."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

from stemflow.cli.arguments import Arguments
from stemflow.cli.exits import FINE, INVALID_FILE, Refused
from stemflow.cli.follow import command
from stemflow.cli.inputs import read_inputs
from stemflow.cli.text import json_text
from stemflow.cli.workflow_file import read_file, require_valid
from stemflow.compile.edges import CycleError
from stemflow.errors import OptionError
from stemflow.runtime.engine import Stemflow
from stemflow.runtime.runs.handle import DuplicateRun, RunHandle
from stemflow.runtime.tasks.discovery import found_tasks
from stemflow.runtime.tasks.registry import TaskRegistry, UnknownTask


def main(arguments: Arguments) -> int:
    """Submit one file; its tasks are those found here, else those that workers have declared."""
    registry = found_tasks(arguments.tasks, Path(arguments.file))
    return asyncio.run(_submit(arguments, registry, os.path.abspath(arguments.file)))


async def _submit(arguments: Arguments, registry: TaskRegistry, path: str) -> int:
    source = read_file(arguments.file)
    if source.parsed.workflow is None:
        require_valid(source.checked(None))
    async with Stemflow(arguments.store, registry, worker=False) as app:
        remote = {} if arguments.allow_unknown else await app.preparer.remote_tasks.read()
        known = None if arguments.allow_unknown else frozenset(registry) | remote.keys()
        workflow = require_valid(source.checked(known))
        inputs = read_inputs(workflow, arguments.input, arguments.inputs)
        try:
            handle = await app.submit(
                workflow, inputs=inputs, file=path, tasks=tuple(arguments.tasks),
                again=arguments.again, no_cache=arguments.no_cache, allow_unknown=arguments.allow_unknown,
            )  # fmt: skip
        except DuplicateRun as duplicate:
            raise Refused(
                f"{arguments.file}: run {duplicate.run_id} holds the same unique key; "
                f"{command(arguments, 'show', duplicate.run_id)} shows it, `--again` runs once more"
            ) from None
        except (OptionError, UnknownTask, CycleError) as error:
            raise Refused(f"{arguments.file}: {error}", INVALID_FILE) from None
    return _print_submitted(handle, arguments)


def _print_submitted(handle: RunHandle[Any], arguments: Arguments) -> int:
    if handle.existing:
        print(f"run {handle.id} holds the same unique key; nothing was submitted", file=sys.stderr)
    print(json_text({"run_id": handle.id}) if arguments.json else handle.id)
    return FINE
