"""`stemflow pause`, `resume` and `audit`: what operators do, and what they did."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from typing import Any, Final

from stemflow.cli.arguments import Arguments
from stemflow.cli.existing import require_store
from stemflow.cli.exits import FINE, RUN_FAILED
from stemflow.cli.operator import operator, operator_engine
from stemflow.cli.pauses import pause_data, pause_text
from stemflow.cli.reasons import instant
from stemflow.cli.text import json_text, shown
from stemflow.model.pause import Pause
from stemflow.runtime.client.control import Action
from stemflow.runtime.engine import Stemflow

DETAILED: Final = ("worker", "bulk", "cancel", "rerun", "replay", "purge")
"""Actions whose details are shown, too."""


def main(arguments: Arguments) -> int:
    """Carry out the action; RUN_FAILED if a worker has not applied it in time."""
    if arguments.action == "pause" and not arguments.targets:
        require_store(arguments.store)
    return asyncio.run(_carry_out(arguments))


def end_pause(arguments: Arguments) -> int:
    """`stemflow resume KIND:NAME`."""
    return asyncio.run(_end_pause(arguments))


async def _end_pause(arguments: Arguments) -> int:
    async with operator_engine(arguments) as app:
        found = await app.control.resume(arguments.run, by=operator(arguments), reason=arguments.reason)
        if found is None and not arguments.json:
            print(f"{shown(arguments.run)} is not paused")
        return await _answer(app, arguments, [] if found is None else [found], "resumed")


async def _carry_out(arguments: Arguments) -> int:
    async with operator_engine(arguments) as app:
        match arguments.action:
            case "pause" if not arguments.targets:
                return await _list(app, arguments)
            case "pause":
                return await _pause(app, arguments)
            case _:
                return await _audit(app, arguments)


async def _list(app: Stemflow, arguments: Arguments) -> int:
    found, now_ms = await app.control.pauses(), app.store.now_ms()
    if arguments.json:
        print(json_text([pause_data(one) for one in found]))
        return FINE
    for one in found:
        print(f"{shown(one.target):<24}  {pause_text(one, now_ms)}")
    if not found:
        print("nothing is paused", file=sys.stderr)
    return FINE


async def _pause(app: Stemflow, arguments: Arguments) -> int:
    for_s = None if arguments.for_ms is None else arguments.for_ms / 1_000
    by = operator(arguments)
    made = [
        await app.control.pause(target, for_=for_s, by=by, reason=arguments.reason) for target in arguments.targets
    ]
    return await _answer(app, arguments, made, "paused")


async def _answer(app: Stemflow, arguments: Arguments, done: Sequence[Pause], how: str) -> int:
    silent = [] if arguments.no_wait or not done else await app.control.silent_workers(arguments.timeout / 1_000)
    if arguments.json:
        print(json_text({how: [pause_data(one) for one in done], "silent_workers": silent}))
        return RUN_FAILED if silent else FINE
    now_ms = app.store.now_ms()
    for one in done:
        until = "" if one.until_ms is None or how == "resumed" else f" until {instant(one.until_ms, now_ms)}"
        print(f"{shown(one.target)} is {how}{until}")
    for name in silent:
        print(f"worker {shown(name)} has not applied it; what it leases is not certain")
    return RUN_FAILED if silent else FINE


async def _audit(app: Stemflow, arguments: Arguments) -> int:
    found = await app.control.audit(arguments.limit)
    if arguments.json:
        print(json_text([_action_data(one) for one in found]))
        return FINE
    now_ms = app.store.now_ms()
    for one in found:
        reason = f": {shown(one.reason)}" if one.reason else ""
        order = "".join(
            f" {shown(name)}={shown(str(value).lower())}"
            for name, value in one.details.items()
            if one.action in DETAILED and value is not None and (value or one.action == "worker")
        )
        print(f"{instant(one.at_ms, now_ms)}  {shown(one.by) or 'somebody'}  {shown(one.action)} "
              f"{shown(one.target)}{order}{reason}")  # fmt: skip
    if not found:
        print("no actions of operators in the last 30 days", file=sys.stderr)
    return FINE


def _action_data(one: Action) -> dict[str, Any]:
    return {
        "at_ms": one.at_ms, "action": one.action, "target": one.target, "by": one.by, "reason": one.reason,
        "details": one.details,
    }  # fmt: skip
