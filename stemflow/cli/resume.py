"""`stemflow resume`: continue a run from its stored state; finished tasks do not run again."""

from __future__ import annotations

import asyncio
import sys

from stemflow.cli.arguments import Arguments
from stemflow.cli.continue_run import header_of, tasks_of
from stemflow.cli.follow import follow
from stemflow.model.records import FINAL, Header
from stemflow.runtime.engine import Stemflow
from stemflow.runtime.tasks.registry import TaskRegistry


def main(arguments: Arguments) -> int:
    """Work on the run until it ends; one that has ended is only shown."""
    header = asyncio.run(header_of(arguments))
    return asyncio.run(_resume(arguments, header, tasks_of(header, arguments.tasks)))


async def _resume(arguments: Arguments, header: Header, registry: TaskRegistry) -> int:
    async with Stemflow(arguments.store, registry, concurrency=arguments.concurrency, only_run=header.run) as app:
        handle = await app.handle(header.run)
        if (await handle.root()).state in FINAL:
            print(f"run {header.run} has ended already; nothing was started", file=sys.stderr)
        return await follow(app, handle, arguments)
