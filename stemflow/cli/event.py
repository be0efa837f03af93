"""`stemflow event send`: send an event to every step that waits for it."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from stemflow.cli.arguments import Arguments
from stemflow.cli.exits import FINE, Refused
from stemflow.cli.inputs import read_json
from stemflow.cli.text import json_text, shown
from stemflow.runtime.engine import Stemflow
from stemflow.runtime.tasks.discovery import find_tasks
from stemflow.runtime.tasks.registry import TaskRegistry


def main(arguments: Arguments) -> int:
    """Send one event and print its id."""
    return asyncio.run(_send(arguments, _data(arguments.data)))


async def _send(arguments: Arguments, data: Any) -> int:
    registry = find_tasks(arguments.tasks, None) if arguments.tasks else TaskRegistry()
    keep = None if arguments.keep is None else arguments.keep / 1_000
    async with Stemflow(arguments.store, registry, worker=False) as app:
        sent = await app.send_event(arguments.type, data, id=arguments.id, keep=keep)
    if arguments.json:
        print(json_text({"id": sent.id, "type": sent.type, "existing": sent.existing}))
        return FINE
    print(sent.id)
    if sent.existing:
        print(f"an event of type {shown(sent.type)} with this id is kept already; nothing was sent", file=sys.stderr)
    return FINE


def _data(text: str | None) -> Any:
    if text is None:
        return None
    given = sys.stdin.read() if text == "-" else text
    try:
        return read_json(given)
    except ValueError as error:
        raise Refused(f"--data: expected JSON, got {given[:80]!r} ({error}); quote it for the shell: "
                      """--data '{"order": 7}'""") from None  # fmt: skip
