"""`stemflow approvals`: the steps that wait for a person."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from typing import Any

from stemflow.cli.arguments import Arguments
from stemflow.cli.exits import FINE
from stemflow.cli.find_run import find_run
from stemflow.cli.follow import command
from stemflow.cli.text import json_text, short_duration, shown
from stemflow.runtime.client.approvals import Approval
from stemflow.runtime.engine import Stemflow
from stemflow.runtime.tasks.discovery import find_tasks
from stemflow.runtime.tasks.registry import TaskRegistry


def main(arguments: Arguments) -> int:
    """Print the list; an empty one prints `[]`, or a line on standard error."""
    return asyncio.run(_approvals(arguments))


async def _approvals(arguments: Arguments) -> int:
    registry = find_tasks(arguments.tasks, None) if arguments.tasks else TaskRegistry()
    async with Stemflow(arguments.store, registry, worker=False) as app:
        run = None if arguments.run is None else (await find_run(app, arguments.run)).id
        found = await app.approvals(run, limit=arguments.limit)
        now_ms = app.store.now_ms()
    if arguments.json:
        print(json_text([_data(one) for one in found]))
        return FINE
    for one in found:
        for line in _lines(one, now_ms):
            print(line)
    if not found:
        print("nothing waits for an approval", file=sys.stderr)
        return FINE
    first = found[0]
    answer = command(arguments, "approve", first.run_id, first.step, "--by", first.by[0] if first.by else "NAME")
    print(f"next: {answer} approves the first", file=sys.stderr)
    return FINE


def _lines(one: Approval, now_ms: int) -> Iterator[str]:
    by = f"  by {' or '.join(map(shown, one.by))}" if one.by else ""
    left = "" if one.until_ms is None else f"  {short_duration(max(one.until_ms - now_ms, 0))} left"
    since = short_duration(now_ms - one.since_ms)
    yield f"{shown(one.run_id)}  {shown(one.step)}  {shown(one.name)}  for {since}{left}{by}"
    if one.message is not None:
        yield f"    {shown(one.message)}"
    for name, schema in one.inputs.items():
        default = f", default {json_text(schema['default'])}" if "default" in schema else ""
        yield f"    -i {shown(name)}={schema.get('type', 'value')}{default}"


def _data(one: Approval) -> dict[str, Any]:
    return {
        "run_id": one.run_id, "name": one.name, "step": one.step, "by": list(one.by), "message": one.message,
        "inputs": dict(one.inputs), "since_ms": one.since_ms, "until_ms": one.until_ms,
    }  # fmt: skip
