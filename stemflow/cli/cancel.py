"""`stemflow cancel`: stop everything of a run that has not ended."""

from __future__ import annotations

import asyncio
import sys
from argparse import Namespace

from stemflow.cli.exits import FINE
from stemflow.cli.find_run import find_run
from stemflow.cli.text import json_text
from stemflow.cli.tree import public_state
from stemflow.model.records import FINAL
from stemflow.runtime.engine import Stemflow
from stemflow.runtime.registry import TaskRegistry


def main(arguments: Namespace) -> int:
    """Cancel; one that has ended already stays as it is, which is FINE too."""
    return asyncio.run(_cancel(arguments))


async def _cancel(arguments: Namespace) -> int:
    async with Stemflow(arguments.store, TaskRegistry(), worker=False) as app:
        handle = await find_run(app, arguments.run)
        before = await handle.cancel()
        state = public_state((await handle.root()).state)
    if arguments.json:
        print(json_text({"id": handle.id, "state": state}))
    elif before in FINAL:
        print(f"run {handle.id} had ended already ({state}); nothing was changed", file=sys.stderr)
    elif state == "stopping":
        print(f"run {handle.id} is stopping: what runs is told to end", file=sys.stderr)
    else:
        print(f"run {handle.id} is {state}", file=sys.stderr)
    return FINE
