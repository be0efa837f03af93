"""`stemflow rerun`: a new run of the same plan that takes over results of an earlier run."""

from __future__ import annotations

import asyncio
import sys

from stemflow.cli.arguments import Arguments
from stemflow.cli.continue_run import header_of, tasks_of
from stemflow.cli.follow import follow
from stemflow.model.records import Header
from stemflow.runtime.engine import Stemflow
from stemflow.runtime.tasks.registry import TaskRegistry


def main(arguments: Arguments) -> int:
    """Make the new run and work on it until it ends."""
    header = asyncio.run(header_of(arguments))
    return asyncio.run(_rerun(arguments, header, tasks_of(header, arguments.tasks)))


async def _rerun(arguments: Arguments, header: Header, registry: TaskRegistry) -> int:
    async with Stemflow(arguments.store, registry, worker=False) as app:
        handle = await app.rerun(header.run, failed=arguments.failed, from_step=arguments.from_step)
    print(f"run {handle.id} takes over what {header.run} has finished", file=sys.stderr)
    async with Stemflow(arguments.store, registry, concurrency=arguments.concurrency, only_run=handle.id) as app:
        return await follow(app, await app.handle(handle.id), arguments)
