"""`stemflow resume`: continue a run from its stored state, whose finished tasks do not run again; or end a pause."""

from __future__ import annotations

import asyncio
import sys
from difflib import get_close_matches

from stemflow.cli.arguments import Arguments
from stemflow.cli.continue_run import header_of, tasks_of
from stemflow.cli.control import end_pause
from stemflow.cli.exits import Refused
from stemflow.cli.follow import follow
from stemflow.cli.text import shown
from stemflow.model.pause import PAUSE_KINDS
from stemflow.model.records import FINAL, Header
from stemflow.runtime.engine import Stemflow
from stemflow.runtime.tasks.registry import TaskRegistry


def main(arguments: Arguments) -> int:
    """Work on the run until it ends; one that has ended is only shown. `KIND:NAME` is what was paused."""
    kind, colon, name = arguments.run.partition(":")
    if kind in PAUSE_KINDS:
        return end_pause(arguments)
    near = get_close_matches(kind, PAUSE_KINDS, 1) if colon else []
    if near:
        raise Refused(
            f"resume: expected a run, or queue:NAME, workflow:NAME or task:NAME, got {shown(arguments.run)!r}; "
            f"did you mean {near[0]}:{shown(name)}?"
        )
    header = asyncio.run(header_of(arguments))
    return asyncio.run(_resume(arguments, header, tasks_of(header, arguments.tasks)))


async def _resume(arguments: Arguments, header: Header, registry: TaskRegistry) -> int:
    async with Stemflow(arguments.store, registry, concurrency=arguments.concurrency, only_run=header.run) as app:
        handle = await app.handle(header.run)
        if (await handle.root()).state in FINAL:
            print(f"run {header.run} has ended already; nothing was started", file=sys.stderr)
        return await follow(app, handle, arguments)
