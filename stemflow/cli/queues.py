"""`stemflow queues`: what waits in each queue, and who serves it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from stemflow.cli.arguments import Arguments
from stemflow.cli.exits import FINE
from stemflow.cli.operator import operator_engine
from stemflow.cli.pauses import pause_data, pause_text
from stemflow.cli.table import table
from stemflow.cli.text import json_text, short_duration, shown
from stemflow.model.records import task_id
from stemflow.runtime.client.overview import QueueOverview, queues


def main(arguments: Arguments) -> int:
    """Print a line for each queue; of an empty store nothing (or `[]`)."""
    return asyncio.run(_queues(arguments))


async def _queues(arguments: Arguments) -> int:
    async with operator_engine(arguments) as app:
        found = await queues(app.store, app.library.trust)
        now_ms = app.store.now_ms()
    if arguments.queue:
        found = [one for one in found if one.queue in arguments.queue]
    if arguments.json:
        print(json_text([_data(one) for one in found]))
        return FINE
    for line in queue_lines(found, now_ms):
        print(line)
    return FINE


def queue_lines(found: Sequence[QueueOverview], now_ms: int) -> list[str]:
    """A line for each queue, below a header."""
    head = ("queue", "ready", "oldest", "limited", "running", "delayed", "next", "workers")
    return table(head, [_row(one, now_ms) for one in found], right=frozenset((1, 2, 3, 4, 5, 6)))


def _data(one: QueueOverview) -> dict[str, Any]:
    return {
        "queue": one.queue, "ready": one.ready, "oldest": task_id(one.oldest) if one.oldest is not None else None,
        "oldest_since_ms": one.oldest_since_ms, "limited": one.limited, "running": one.running, "delayed": one.delayed,
        "next_at_ms": one.next_at_ms, "workers": list(one.workers),
        "paused": None if one.paused is None else pause_data(one.paused),
    }  # fmt: skip


def _row(one: QueueOverview, now_ms: int) -> tuple[str, ...]:
    oldest = "" if one.oldest_since_ms is None else short_duration(now_ms - one.oldest_since_ms)
    next_in = "" if one.next_at_ms is None else short_duration(one.next_at_ms - now_ms)
    workers = ", ".join(map(shown, one.workers)) or "none"
    if one.paused is not None:
        workers += f"  paused {pause_text(one.paused, now_ms)}"
    return (
        shown(one.queue), f"{one.ready:,}", oldest, f"{one.limited:,}", f"{one.running:,}", f"{one.delayed:,}", next_in,
        workers,
    )  # fmt: skip
