"""`stemflow runs`: the runs of a store, newest first."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import Any

from stemflow.cli.arguments import Arguments
from stemflow.cli.exits import FINE
from stemflow.cli.text import json_text, short_duration, shown
from stemflow.cli.tree import public_state
from stemflow.runtime.clock import SystemClock
from stemflow.store.base import RunInfo
from stemflow.store.open import open_store


def main(arguments: Arguments) -> int:
    """Print the list; an empty one prints nothing (or `[]`)."""
    return asyncio.run(_runs(arguments))


async def _runs(arguments: Arguments) -> int:
    # The store alone: the engine would take twice as long to import as the list takes to print.
    store = open_store(arguments.store, SystemClock())
    await store.open()
    try:
        found = await store.runs(arguments.limit)
        now_ms = store.now_ms()
    finally:
        await store.close()
    if arguments.json:
        print(json_text([_data(one) for one in found]))
        return FINE
    for one in found:
        print(_line(one, now_ms))
    return FINE


def _data(info: RunInfo) -> dict[str, Any]:
    header, root = info.header, info.root
    return {
        "id": header.run,
        "name": header.name,
        "state": public_state(root.state),
        "created_at_ms": header.created_at_ms,
        "ended_at_ms": root.ended_at_ms or None,
        "file": header.file,
        "rerun_of": header.rerun_of,
    }


def _line(info: RunInfo, now_ms: int) -> str:
    header, root = info.header, info.root
    created = datetime.fromtimestamp(header.created_at_ms / 1_000).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    lasted = short_duration((root.ended_at_ms or now_ms) - header.created_at_ms)
    again = f"  rerun of {shown(header.rerun_of)}" if header.rerun_of else ""
    return f"{shown(header.run)}  {public_state(root.state):<9}  {created}  {lasted:>6}  {shown(header.name)}{again}"
