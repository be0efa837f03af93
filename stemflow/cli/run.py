"""`stemflow run`: check a file, submit it, work on it here, and show it."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import Any, NamedTuple

from stemflow.cli.arguments import Arguments
from stemflow.cli.exits import FINE, INVALID_FILE, WRONG_USAGE, Refused
from stemflow.cli.follow import command, follow, print_result
from stemflow.cli.inputs import read_inputs
from stemflow.cli.workflow_file import read_file, require_valid
from stemflow.compile.edges import CycleError
from stemflow.errors import OptionError
from stemflow.model.records import FINAL, NO_RUN
from stemflow.model.workflow import Workflow
from stemflow.runtime.client.run_ids import colocated_run_id
from stemflow.runtime.client.run_list import public_state
from stemflow.runtime.clock import SystemClock, SystemIds
from stemflow.runtime.engine import Stemflow
from stemflow.runtime.runs.handle import DuplicateRun, RunHandle
from stemflow.runtime.tasks.discovery import find_tasks, tasks_elsewhere
from stemflow.runtime.tasks.registry import TaskRegistry, UnknownTask
from stemflow.store.open import open_store


class Asked(NamedTuple):
    """A run whose file, tasks and inputs have all been checked."""

    workflow: Workflow
    registry: TaskRegistry
    inputs: dict[str, Any]
    path: str


def main(arguments: Arguments) -> int:
    """Run one file. Nothing is stored before the file, its tasks and its inputs have been checked."""
    source = read_file(arguments.file)
    if source.parsed.workflow is None:
        require_valid(source.checked(None))
    registry = find_tasks(arguments.tasks, Path(arguments.file))
    arguments.tasks = arguments.tasks or tasks_elsewhere(Path(arguments.file))
    workflow = require_valid(source.checked(registry))
    inputs = read_inputs(workflow, arguments.input, arguments.inputs)
    return asyncio.run(_run(arguments, Asked(workflow, registry, inputs, os.path.abspath(arguments.file))))


async def _run(arguments: Arguments, asked: Asked) -> int:
    store = open_store(arguments.store, SystemClock())
    run = colocated_run_id(SystemIds(), store, NO_RUN)
    settings: dict[str, Any] = {"concurrency": arguments.concurrency, "only_run": run, "store": store}
    async with Stemflow(arguments.store, asked.registry, **settings) as app:
        handle = await _submit(app, arguments, asked, run)
        if handle.existing:
            return await _existing(handle, arguments)
        return await follow(app, handle, arguments)


async def _submit(app: Stemflow, arguments: Arguments, asked: Asked, run: str) -> RunHandle[Any]:
    found = {"run_id": run, "file": asked.path, "tasks": tuple(arguments.tasks), "again": arguments.again,
             "no_cache": arguments.no_cache}  # fmt: skip
    try:
        return await app.submit(asked.workflow, inputs=asked.inputs, **found)
    except DuplicateRun as duplicate:
        if arguments.again:
            raise _held(duplicate.run_id, arguments) from None
        raise Refused(
            f"{arguments.file}: run {duplicate.run_id} holds the same unique key; "
            f"{command(arguments, 'show', duplicate.run_id)} shows it, `--again` runs once more"
        ) from None
    except (OptionError, UnknownTask, CycleError) as error:
        raise Refused(f"{arguments.file}: {error}", INVALID_FILE) from None


async def _existing(handle: RunHandle[Any], arguments: Arguments) -> int:
    """Another run holds the unique key: show its outputs, or print the command that continues it."""
    root = await handle.root()
    if root.state not in FINAL:
        raise _held(handle.id, arguments)
    result = await handle.result_of(root)
    print_result(result, arguments.json)
    again = command(arguments, "run", arguments.file, "--again")
    print(f"already ran as {handle.id} ({public_state(root.state)}): nothing was started; {again} runs it once more",
          file=sys.stderr)  # fmt: skip
    return FINE


def _held(run: str, arguments: Arguments) -> Refused:
    return Refused(f"run {run} is unfinished and holds the same unique key; "
                   f"{command(arguments, 'resume', run)} continues it", WRONG_USAGE)  # fmt: skip
