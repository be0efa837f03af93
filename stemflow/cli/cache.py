"""`stemflow cache clear`: forget cached results."""

from __future__ import annotations

import asyncio

from stemflow.cli.arguments import Arguments
from stemflow.cli.exits import FINE
from stemflow.cli.text import json_text
from stemflow.runtime.engine import Stemflow
from stemflow.runtime.tasks.registry import TaskRegistry


def main(arguments: Arguments) -> int:
    """Clear the cached results of one task, or of all, and say so."""
    return asyncio.run(_clear(arguments))


async def _clear(arguments: Arguments) -> int:
    async with Stemflow(arguments.store, TaskRegistry(), worker=False) as app:
        await app.clear_cache(arguments.task)
    if arguments.json:
        print(json_text({"cleared": arguments.task}))
    else:
        print(f"cleared the cached results of {arguments.task or 'every task'}")
    return FINE
