"""What `resume`, `rerun` and `dlq replay` share: finding a run, and the tasks that the operator names for it."""

from __future__ import annotations

import shlex
from pathlib import Path

from stemflow.cli.arguments import Arguments
from stemflow.cli.find_run import find_run
from stemflow.cli.operator import operator_engine
from stemflow.cli.text import shown
from stemflow.model.records import Header
from stemflow.runtime.tasks.discovery import TASKS_FILE, TasksNotFound, find_tasks
from stemflow.runtime.tasks.registry import TaskRegistry


async def header_of(arguments: Arguments) -> Header:
    """The header of the run that the user named. Raises Refused when it cannot be found."""
    async with operator_engine(arguments) as app:
        handle = await find_run(app, arguments.run)
        return await app.library.header(handle.id)


def tasks_of(header: Header, named: list[str]) -> TaskRegistry:
    """The registry for a run, from what the operator names: `--tasks`, the pyproject.toml at or above the working
    directory, or the tasks.py in it.

    What the run has recorded is data of the store, which others may write: it is shown, and never imported. Raises
    TasksNotFound, with the options that the run says it was started with.
    """
    try:
        return find_tasks(named, Path.cwd() / "workflow")
    except TasksNotFound as error:
        if named or not (header.tasks or header.file):
            raise
        raise TasksNotFound(f"run {shown(header.run)}: {error}{_recorded(header)}") from error


def _recorded(header: Header) -> str:
    """What the store says of how the run was started, as words for `--tasks`."""
    if header.tasks:
        words = " ".join(f"--tasks {shlex.quote(shown(one))}" for one in header.tasks)
    else:
        words = f"--tasks {shlex.quote(shown(str(Path(header.file or '').parent / TASKS_FILE)))}"
    return f"; the store says that it was started with {words}: repeat that if it is code you trust"
