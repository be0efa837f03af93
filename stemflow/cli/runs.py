"""`stemflow runs`: the runs of a store, newest first, filtered."""

from __future__ import annotations

import asyncio
import csv
import sys
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from stemflow.cli.arguments import Arguments
from stemflow.cli.exits import FINE
from stemflow.cli.run_filters import run_query
from stemflow.cli.table import table
from stemflow.cli.text import clip, json_text, short_duration, shown
from stemflow.model.records import ErrorInfo
from stemflow.runtime.client.run_list import ListedRun, RunList, list_runs, public_state
from stemflow.runtime.clock import SystemClock
from stemflow.store.open import open_store

COLUMNS = (
    "id", "name", "state", "created_at_ms", "ended_at_ms", "file", "rerun_of", "failed_at", "error_type",
    "error_message",
)  # fmt: skip
"""Of CSV."""
_WIDEST_ERROR = 100


def main(arguments: Arguments) -> int:
    """Print the list; an empty one prints nothing (or `[]`)."""
    return asyncio.run(_runs(arguments))


async def _runs(arguments: Arguments) -> int:
    # The store alone: the engine would take twice as long to import as the list takes to print.
    store = open_store(arguments.store, SystemClock())
    await store.open()
    try:
        found = await list_runs(store, run_query(arguments, store.now_ms()), arguments.limit, arguments.after or "")
        now_ms = store.now_ms()
    finally:
        await store.close()
    _print(found.runs, now_ms, arguments)
    _tell_more(found, arguments)
    return FINE


def _print(runs: Sequence[ListedRun], now_ms: int, arguments: Arguments) -> None:
    if arguments.quiet:
        for one in runs:
            print(shown(one.info.header.run))
    elif arguments.json:
        print(json_text([_data(one) for one in runs]))
    elif arguments.csv:
        rows = csv.DictWriter(sys.stdout, COLUMNS, extrasaction="ignore", lineterminator="\n")
        rows.writeheader()
        rows.writerows(_flat(one) for one in runs)
    else:
        for line in run_lines(runs, now_ms):
            print(line)


def run_lines(runs: Sequence[ListedRun], now_ms: int) -> list[str]:
    """A line for each run, below a header."""
    head = ("run", "state", "created", "took", "name", "")
    return table(head, [_row(one, now_ms) for one in runs], right=frozenset((3,)))


def _tell_more(found: RunList, arguments: Arguments) -> None:
    """Say on standard error that the list may go on, or that it is empty, as scripts read standard output."""
    if not found.runs and not (arguments.quiet or arguments.json or arguments.csv):
        print("no runs that fit", file=sys.stderr)
    if found.after is not None and not arguments.quiet:
        print(f"there may be more: add --after {shown(found.after)}", file=sys.stderr)


def _data(one: ListedRun) -> dict[str, Any]:
    header, root = one.info.header, one.info.root
    return {
        "id": header.run,
        "name": header.name,
        "state": public_state(root.state),
        "created_at_ms": header.created_at_ms,
        "ended_at_ms": root.ended_at_ms or None,
        "file": header.file,
        "rerun_of": header.rerun_of,
        "labels": dict(header.labels),
        "failed_at": one.failed_at,
        "error": None if one.error is None else {"type": one.error.type, "message": one.error.message},
    }


def _flat(one: ListedRun) -> dict[str, Any]:
    data = _data(one)
    error = data["error"] or {"type": None, "message": None}
    texts = {name: shown(value) if isinstance(value, str) else value for name, value in data.items()}
    return {**texts, "error_type": error["type"], "error_message": shown(error["message"] or "")}


def _row(one: ListedRun, now_ms: int) -> tuple[str, ...]:
    header, root = one.info.header, one.info.root
    created = datetime.fromtimestamp(header.created_at_ms / 1_000).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    took = short_duration((root.ended_at_ms or now_ms) - header.created_at_ms)
    said = [f"rerun of {shown(header.rerun_of)}"] if header.rerun_of else []
    if one.error is not None:
        said.append(_error(one.failed_at, one.error))
    state = public_state(root.state)
    return shown(header.run), state, created, took, shown(header.name), "  ".join(said)


def _error(failed_at: str | None, error: ErrorInfo) -> str:
    step = f"{shown(failed_at)}: " if failed_at else ""
    return clip(f"{step}{shown(error.type)}: {shown(error.message)}", _WIDEST_ERROR)
