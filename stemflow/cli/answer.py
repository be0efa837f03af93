"""`stemflow approve` and `stemflow reject`: answer a step that waits for a person."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from stemflow.cli.arguments import Arguments
from stemflow.cli.exits import FINE, Refused
from stemflow.cli.find_run import find_run
from stemflow.cli.inputs import given_inputs
from stemflow.cli.text import json_text
from stemflow.errors import OptionError
from stemflow.runtime.engine import Stemflow
from stemflow.runtime.tasks.discovery import find_tasks
from stemflow.runtime.tasks.registry import TaskRegistry
from stemflow.runtime.values.forms import InvalidInputs


def main(arguments: Arguments) -> int:
    """Answer; repeating an answer is FINE."""
    return asyncio.run(_answer(arguments))


async def _answer(arguments: Arguments) -> int:
    registry = find_tasks(arguments.tasks, None) if arguments.tasks else TaskRegistry()
    async with Stemflow(arguments.store, registry, worker=False) as app:
        handle = await find_run(app, arguments.run)
        try:
            if arguments.action == "approve":
                inputs = await _inputs(app, handle.id, arguments)
                await app.approve(handle.id, arguments.step, by=arguments.by, note=arguments.note, inputs=inputs)
            else:
                await app.reject(handle.id, arguments.step, by=arguments.by, note=arguments.note)
        except InvalidInputs as wrong:
            first, *more = wrong.messages
            raise Refused(first, more=(*more, "nothing was answered; give inputs with -i NAME=VALUE")) from None
        except OptionError as error:
            raise Refused(str(error)) from None
    approved = arguments.action == "approve"
    if arguments.json:
        print(json_text({"run_id": handle.id, "step": arguments.step, "approved": approved}))
        return FINE
    print(f"run {handle.id}: {arguments.step} is {'approved' if approved else 'rejected'} by {arguments.by}",
          file=sys.stderr)  # fmt: skip
    return FINE


async def _inputs(app: Stemflow, run: str, arguments: Arguments) -> dict[str, Any]:
    """The inputs that were given, read by what the step declares."""
    waiting = [one for one in await app.approvals(run) if one.step == arguments.step]
    return given_inputs(waiting[0].inputs if waiting else {}, arguments.input, arguments.inputs)
