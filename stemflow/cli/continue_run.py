"""What `resume` and `rerun` share: the tasks of a run are found as they were when it began."""

from __future__ import annotations

from pathlib import Path

from stemflow.cli.arguments import Arguments
from stemflow.cli.exits import Refused
from stemflow.cli.find_run import find_run
from stemflow.model.records import Header
from stemflow.runtime.engine import Stemflow
from stemflow.runtime.tasks.discovery import find_tasks
from stemflow.runtime.tasks.registry import TaskRegistry


async def header_of(arguments: Arguments) -> Header:
    """The header of the run that the user named. Raises Refused when it cannot be found."""
    async with Stemflow(arguments.store, TaskRegistry(), worker=False) as app:
        handle = await find_run(app, arguments.run)
        return await app.library.header(handle.id)


def tasks_of(header: Header, named: list[str]) -> TaskRegistry:
    """The registry for a run: from `--tasks` of this call, else of its `stemflow run`, else found by its file."""
    if header.file is None and not named and not header.tasks:
        raise Refused(f"run {header.run}: expected to know where its tasks are, but it was not started from a file; "
                      "pass --tasks MODULE")  # fmt: skip
    file = None if header.file is None else Path(header.file)
    if file is not None and not file.exists() and not named and not header.tasks:
        raise Refused(f"run {header.run}: expected its tasks next to {file}, which is gone; pass --tasks MODULE")
    return find_tasks(named or list(header.tasks), file)
