"""`stemflow top`: queues, workers and runs of a store, drawn again and again until Ctrl-C."""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Final, NamedTuple, TextIO

from stemflow.cli.arguments import Arguments
from stemflow.cli.exits import FINE, Refused
from stemflow.cli.operator import operator_engine
from stemflow.cli.queues import queue_lines
from stemflow.cli.runs import run_lines
from stemflow.cli.text import clip, shown
from stemflow.cli.workers import state_of
from stemflow.runtime.catalog.heartbeats import Heartbeat, heartbeats
from stemflow.runtime.client.overview import QueueOverview, queues
from stemflow.runtime.client.run_list import ListedRun, RunQuery, list_runs
from stemflow.runtime.engine import Stemflow
from stemflow.units import format_duration

ENTER, LEAVE = "\x1b[?1049h\x1b[?25l\x1b[?7l", "\x1b[?7h\x1b[?25h\x1b[?1049l"
"""Another screen without a cursor, whose lines do not wrap; and back."""
MOST_RUNS: Final = 200
"""So many of the newest runs are read for one picture, however many there are."""


class Seen(NamedTuple):
    """What one picture shows."""

    url: str
    now_ms: int
    queues: list[QueueOverview]
    workers: list[Heartbeat]
    failed: tuple[ListedRun, ...]
    runs: tuple[ListedRun, ...]


def main(arguments: Arguments) -> int:
    """Draw until Ctrl-C; with `--once` one picture, also where there is no terminal."""
    if not arguments.once and not sys.stdout.isatty():
        raise Refused("top: expected a terminal, found none; --once prints one picture")
    return asyncio.run(_once(arguments) if arguments.once else _live(arguments))


async def _once(arguments: Arguments) -> int:
    async with operator_engine(arguments) as app:
        for line in picture(await look(app), width=1_000, height=1_000):
            print(line)
    return FINE


async def _live(arguments: Arguments) -> int:
    out = sys.stdout
    out.write(ENTER)
    try:
        async with operator_engine(arguments) as app:
            while True:
                size = os.get_terminal_size(out.fileno())
                draw(out, picture(await look(app), size.columns, size.lines))
                await asyncio.sleep(arguments.interval / 1_000)
    finally:
        out.write(LEAVE)
        out.flush()


def draw(out: TextIO, lines: list[str]) -> None:
    """One frame in one call: from the top, each line to its end, then clear what is below."""
    out.write("\x1b[H" + "\n".join(f"{line}\x1b[K" for line in lines) + "\x1b[J")
    out.flush()


async def look(app: Stemflow) -> Seen:
    """Read what one picture needs; the work does not grow with the number of runs that are stored."""
    beats = (await heartbeats(app.store)).values()
    alive = [one for one in beats if one.state != "stopped"]
    failed = await list_runs(app.store, RunQuery(states=frozenset(("failed",))), 5)
    newest = await list_runs(app.store, RunQuery(), MOST_RUNS)
    return Seen(
        app.store.url, app.store.now_ms(), await queues(app.store, app.library.trust),
        sorted(alive, key=lambda one: (-one.running, one.name)), failed.runs, newest.runs,
    )  # fmt: skip


def picture(seen: Seen, width: int, height: int) -> list[str]:
    """The lines of one picture, none wider or more than the terminal has; nothing of a name can control it."""
    running, slots = sum(one.running for one in seen.workers), sum(one.concurrency for one in seen.workers)
    ready = sum(one.ready for one in seen.queues)
    head = (
        f"stemflow top  {shown(seen.url)}  {ready:,} ready, {running:,} of {slots:,} slots busy, "
        f"{len(seen.workers):,} workers"
    )
    parts = [
        ("queues", queue_lines(seen.queues, seen.now_ms)),
        ("workers", [_worker(one, seen.now_ms) for one in seen.workers]),
        ("failed last", run_lines(seen.failed, seen.now_ms)),
        ("newest runs", run_lines(seen.runs, seen.now_ms)),
    ]
    room = height - 1
    drawn = [head]
    for left, (title, lines) in zip(range(len(parts), 0, -1), parts, strict=True):
        share = max(room // left, 3)
        drawn += ["", title, *_fitted(lines or ["none"], share - 2)]
        room = height - len(drawn)
    return [clip(line, width) for line in drawn[:height]]


def _fitted(lines: list[str], room: int) -> list[str]:
    """As many of the lines as there is room for; the last says how many are left out."""
    if len(lines) <= room:
        return lines
    return [*lines[: room - 1], f"and {len(lines) - room + 1:,} more"]


def _worker(beat: Heartbeat, now_ms: int) -> str:
    served = "every queue" if beat.queues is None else shown(", ".join(beat.queues))
    oldest = beat.holds[0] if beat.holds else None
    longest = ""
    if oldest is not None:
        longest = f"  {shown(oldest.task)} for {format_duration((now_ms - oldest.since_ms) // 1_000 * 1_000)}"
    return (
        f"{clip(shown(beat.name), 24):<24}  {state_of(beat, now_ms):<8}  {beat.running:>4} of {beat.concurrency}  "
        f"{served}{longest}"
    )
