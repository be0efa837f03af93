"""The states of a run by the steps of its workflow file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection

from stemflow.cli.find_run import find_run
from stemflow.cli.live import tree_rows
from stemflow.dsl.cases import static_path
from stemflow.runtime.engine import Stemflow
from stemflow.runtime.tasks.registry import TaskRegistry


async def run_states(store: str, run: str, paths: Collection[str]) -> dict[str, dict[str, int]]:
    """Path of a step in the file -> state -> number of nodes of the run; raises Refused for a run that is not there."""
    async with Stemflow(store, TaskRegistry(), worker=False) as app:
        handle = await find_run(app, run)
        rows = await tree_rows(app, handle, await handle.records(), collapse=False)
    found: dict[str, Counter[str]] = {}
    for row in rows:
        path = static_path(row.path, paths)
        if path in paths:
            found.setdefault(path, Counter())[row.state] += 1
    return {path: dict(counts) for path, counts in found.items()}
