"""`stemflow rerun`: a new run of the same plan that takes over results of an earlier run; or of many of them."""

from __future__ import annotations

import asyncio
import sys

from stemflow.cli.arguments import Arguments
from stemflow.cli.bulk import on_runs, would_do
from stemflow.cli.continue_run import header_of, tasks_of
from stemflow.cli.find_run import find_run
from stemflow.cli.follow import follow
from stemflow.cli.operator import operator, operator_engine
from stemflow.model.records import Header
from stemflow.runtime.client.bulk import BulkOptions
from stemflow.runtime.client.run_list import ListedRun
from stemflow.runtime.engine import Stemflow
from stemflow.runtime.tasks.registry import TaskRegistry
from stemflow.store.base import RunInfo


def main(arguments: Arguments) -> int:
    """Make the new run and work on it until it ends. Of many, make the new runs, and leave them to workers."""
    if arguments.run is None or arguments.dry_run:
        return asyncio.run(_many(arguments))
    header = asyncio.run(header_of(arguments))
    return asyncio.run(_rerun(arguments, header, tasks_of(header, arguments.tasks)))


async def _many(arguments: Arguments) -> int:
    async with operator_engine(arguments) as app:
        if arguments.run is None:
            return await on_runs(app, arguments, "rerun", BulkOptions(from_step=arguments.from_step))
        handle = await find_run(app, arguments.run)
        info = RunInfo(await app.library.header(handle.id), await handle.root())
        return would_do([ListedRun(info=info)], "rerun", arguments)


async def _rerun(arguments: Arguments, header: Header, registry: TaskRegistry) -> int:
    async with Stemflow(arguments.store, registry, worker=False) as app:
        details = {"failed": arguments.failed, "from_step": arguments.from_step}
        await app.control.record_on_run("rerun", header.run, operator(arguments), arguments.reason, details)
        handle = await app.rerun(header.run, failed=arguments.failed, from_step=arguments.from_step)
    print(f"run {handle.id} takes over what {header.run} has finished", file=sys.stderr)
    async with Stemflow(arguments.store, registry, concurrency=arguments.concurrency, only_run=handle.id) as app:
        return await follow(app, await app.handle(handle.id), arguments)
