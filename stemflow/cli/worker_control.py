"""`stemflow worker drain|concurrency|dump|health`: one worker from outside."""

from __future__ import annotations

import asyncio
import platform
from typing import Any

from stemflow.cli.arguments import Arguments
from stemflow.cli.exits import FINE, RUN_FAILED
from stemflow.cli.operator import operator_engine
from stemflow.cli.pauses import user
from stemflow.cli.text import json_text, short_duration, shown
from stemflow.runtime.catalog.heartbeats import Heartbeat, heartbeats
from stemflow.runtime.engine import Stemflow
from stemflow.store.base import StoreError


def main(arguments: Arguments) -> int:
    """Carry out the action; RUN_FAILED if the worker has not answered, or is not well."""
    actions = {"drain": _drain, "concurrency": _concurrency, "dump": _dump}
    if arguments.action == "health":
        return asyncio.run(_health(arguments))
    return asyncio.run(_with_engine(actions[arguments.action], arguments))


async def _with_engine(action: Any, arguments: Arguments) -> int:
    async with operator_engine(arguments) as app:
        code: int = await action(app, arguments)
        return code


async def _drain(app: Stemflow, arguments: Arguments) -> int:
    return await _order(app, arguments, drain=not arguments.undo)


async def _concurrency(app: Stemflow, arguments: Arguments) -> int:
    return await _order(app, arguments, concurrency=arguments.slots)


async def _order(app: Stemflow, arguments: Arguments, **wanted: Any) -> int:
    by = arguments.by or user()
    order = await app.control.order_worker(arguments.worker, by=by, reason=arguments.reason, **wanted)
    silent = [] if arguments.no_wait else await app.control.silent_workers(arguments.timeout / 1_000)
    is_silent = arguments.worker in silent
    if arguments.json:
        print(json_text({
            "worker": arguments.worker, "drain": order.drain, "concurrency": order.concurrency,
            "applied": not is_silent,
        }))  # fmt: skip
        return RUN_FAILED if is_silent else FINE
    slots = "the slots that it was started with" if order.concurrency is None else f"{order.concurrency:,} slots"
    leases = "leases nothing new; what it runs goes on" if order.drain else "leases tasks"
    print(f"worker {shown(arguments.worker)} {leases}; it has {slots}")
    if is_silent:
        print("it has not applied that yet")
    return RUN_FAILED if is_silent else FINE


async def _dump(app: Stemflow, arguments: Arguments) -> int:
    found = await app.control.dump(arguments.worker, arguments.timeout / 1_000)
    if arguments.json:
        print(json_text(found))
        return FINE if found else RUN_FAILED
    for process, text in found.items():
        print(f"-- {shown(process)}")
        for line in text.splitlines():
            print(shown(line))
    if not found:
        print(f"worker {shown(arguments.worker)} has not answered; if a handler blocks its loop, its log names it")
    return FINE if found else RUN_FAILED


async def _health(arguments: Arguments) -> int:
    """FINE if a worker of this name, or every worker on this host, is alive."""
    try:
        async with operator_engine(arguments) as app:
            now_ms = app.store.now_ms()
            beats = [one for one in (await heartbeats(app.store)).values() if one.state != "stopped"]
    except StoreError as error:
        print(f"the store cannot be read: {shown(str(error))}")
        return RUN_FAILED
    host = platform.node()
    mine = [one for one in beats if (one.name == arguments.worker if arguments.worker else one.host == host)]
    if not mine:
        where = f"of name {shown(arguments.worker)}" if arguments.worker else f"on host {shown(host)}"
        print(f"no worker {where} is known to the store")
        return RUN_FAILED
    well = [_is_well(one, now_ms, arguments.ready) for one in mine]
    for one, is_well in zip(mine, well, strict=True):
        ago = short_duration(now_ms - one.at_ms)
        print(f"worker {shown(one.name)}: {'well' if is_well else 'not well'}; {one.state}, last heartbeat {ago} ago")
    return FINE if all(well) else RUN_FAILED


def _is_well(beat: Heartbeat, now_ms: int, ready: bool) -> bool:
    return beat.alive(now_ms) and (not ready or (beat.state == "running" and not beat.on_hold))
