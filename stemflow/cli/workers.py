"""`stemflow workers`: the workers of a store."""

from __future__ import annotations

import asyncio
from typing import Any

from stemflow.cli.arguments import Arguments
from stemflow.cli.exits import FINE
from stemflow.cli.text import json_text, short_duration, shown
from stemflow.model.records import task_id
from stemflow.runtime.catalog.heartbeats import Heartbeat, HeldTask, heartbeats
from stemflow.runtime.catalog.published import published
from stemflow.runtime.engine import Stemflow
from stemflow.runtime.tasks.registry import TaskRegistry

NAMED = 8
"""Of the tasks that a worker runs so many are printed."""


def main(arguments: Arguments) -> int:
    """Print the list; an empty one prints nothing (or `[]`)."""
    return asyncio.run(_workers(arguments))


async def _workers(arguments: Arguments) -> int:
    async with Stemflow(arguments.store, TaskRegistry(), worker=False) as app:
        beats = await heartbeats(app.store)
        tasks = {digest: sorted(one.tasks) for digest, one in (await published(app.store)).items()}
        now_ms = app.store.now_ms()
    found = sorted((beat for beat in beats.values() if beat.state != "stopped"), key=lambda beat: beat.started_at_ms)
    if arguments.json:
        print(json_text([_data(beat, tasks.get(beat.declares, []), now_ms) for beat in found]))
        return FINE
    for beat in found:
        print(_line(beat, len(tasks.get(beat.declares, [])), now_ms))
        for line in _held(beat, now_ms):
            print(f"    {line}")
    return FINE


def _held(beat: Heartbeat, now_ms: int) -> list[str]:
    """What it runs, the longest first, and the handlers that it cannot end."""
    held = [("", one) for one in beat.holds] + [("disowned  ", one) for one in beat.disowned]
    lines = [
        f"{mark}{short_duration(now_ms - one.since_ms):>6}  {shown(one.task)}  {shown(task_id(one.key))}"
        for mark, one in held[:NAMED]
    ]
    return lines + ([f"and {len(held) - NAMED:,} more"] if len(held) > NAMED else [])


def state_of(beat: Heartbeat, now_ms: int) -> str:
    """What the worker does, as people read it."""
    if beat.gone:
        return "gone"
    if not beat.alive(now_ms):
        return "silent"
    return "on hold" if beat.on_hold and beat.state == "running" else beat.state


def _data(beat: Heartbeat, tasks: list[str], now_ms: int) -> dict[str, Any]:
    return {
        "name": beat.name,
        "host": beat.host,
        "pid": beat.pid,
        "state": state_of(beat, now_ms),
        "queues": None if beat.queues is None else list(beat.queues),
        "running": beat.running,
        "concurrency": beat.concurrency,
        "started_at_ms": beat.started_at_ms,
        "heartbeat_at_ms": beat.at_ms,
        "release": beat.declares,
        "tasks": tasks,
        "only_run": beat.only_run,
        "holds": [_task(one) for one in beat.holds],
        "disowned": [_task(one) for one in beat.disowned],
    }


def _task(one: HeldTask) -> dict[str, Any]:
    return {"id": task_id(one.key), "task": one.task, "queue": one.queue, "since_ms": one.since_ms}


def _line(beat: Heartbeat, tasks: int, now_ms: int) -> str:
    lived, ago = short_duration(now_ms - beat.started_at_ms), short_duration(now_ms - beat.at_ms)
    served = "every queue" if beat.queues is None else f"queues {shown(', '.join(beat.queues))}"
    if beat.only_run is not None:
        served = f"run {shown(beat.only_run)} alone"
    return (
        f"{shown(beat.name):<24}  {state_of(beat, now_ms):<8}  {beat.running:>4} of {beat.concurrency} running  "
        f"for {lived:>6}, last heartbeat {ago} ago  {tasks} tasks ({beat.declares})  {served}"
    )
