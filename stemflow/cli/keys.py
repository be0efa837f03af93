"""`stemflow keys`: the holders and waiters of unique and concurrency keys, and rate limits for which tasks wait."""

from __future__ import annotations

import asyncio
from typing import Any

from stemflow.cli.arguments import Arguments
from stemflow.cli.exits import FINE, RUN_FAILED, Refused
from stemflow.cli.operator import operator_engine
from stemflow.cli.pauses import user
from stemflow.cli.reasons import instant
from stemflow.cli.text import json_text, short_duration, shown
from stemflow.model.records import task_id
from stemflow.runtime.client.overview import KeyHolder, KeyOverview, claim_keys, key_overview, rate_keys
from stemflow.runtime.engine import Stemflow
from stemflow.runtime.tasks.registry import TaskRegistry
from stemflow.store.base import Store
from stemflow.units import format_duration

NAMED = 5
"""Of holders and waiters so many are printed."""


def main(arguments: Arguments) -> int:
    """Print each key with its holders and waiters; where no key is in use, nothing (or `[]`)."""
    return asyncio.run(_keys(arguments) if arguments.release is None else _release(arguments))


async def _release(arguments: Arguments) -> int:
    key = arguments.release
    async with operator_engine(arguments) as app:
        by = arguments.by or user()
        done = await app.control.release_key(key, force=arguments.force, by=by, reason=arguments.reason)
    if arguments.json:
        print(json_text({"key": key, "released": done}))
    else:
        print(f"key {shown(key)} is {'released' if done else 'no longer held by what held it; look again'}")
    return FINE if done else RUN_FAILED


async def _keys(arguments: Arguments) -> int:
    async with Stemflow(arguments.store, TaskRegistry(), worker=False) as app:
        found = await _found(app.store, arguments)
        now_ms = app.store.now_ms()
    if arguments.json:
        print(json_text([_data(one) for one in found]))
        return FINE
    for one in found:
        for line in _lines(one, now_ms):
            print(line)
    return FINE


async def _found(store: Store, arguments: Arguments) -> list[KeyOverview]:
    if arguments.key is not None:
        one = await key_overview(store, arguments.key)
        rates = [rate for rate in await rate_keys(store) if rate.key == arguments.key]
        if one is None and not rates:
            raise Refused(f"key {shown(arguments.key)}: expected a key in use, found none; `stemflow keys` lists those")
        return [*([one] if one is not None else []), *rates]
    kinds = (arguments.kind,) if arguments.kind is not None else ("unique", "concurrency", "rate")
    found = await claim_keys(store, arguments.limit, arguments.after) if kinds != ("rate",) else []
    rates = (await rate_keys(store))[: arguments.limit] if "rate" in kinds and not arguments.after else []
    return [one for one in (*found, *rates) if one.kind in kinds]


def _data(one: KeyOverview) -> dict[str, Any]:
    return {
        "kind": one.kind, "key": one.key, "limit": one.limit, "per_ms": one.per_ms, "queue": one.queue,
        "holders": [
            {"id": task_id(held.key), "state": held.state, "worker": held.worker, "since_ms": held.since_ms}
            for held in one.holders
        ],
        "waiting": [task_id(key) for key in one.waiting], "waiting_count": one.waiting_count, "sharing": one.sharing,
        "until_ms": one.until_ms,
    }  # fmt: skip


def _lines(one: KeyOverview, now_ms: int) -> list[str]:
    if one.kind == "rate":
        per = format_duration(one.per_ms or 0)
        opens = "" if one.until_ms is None else f", opens {instant(one.until_ms, now_ms)} ({_in(one.until_ms, now_ms)})"
        return [f"rate         {shown(one.key)}  {one.limit:,} per {per}, {one.waiting_count:,} ready in queue "
                f"{shown(one.queue or '')}{opens}"]  # fmt: skip
    taken = f"  {len(one.holders):,} of {one.limit:,} taken" if one.kind == "concurrency" else ""
    window = "" if one.until_ms is None else f"  window until {instant(one.until_ms, now_ms)}"
    sharing = f"  {one.sharing:,} share the outcome" if one.sharing else ""
    lines = [f"{one.kind:<11}  {shown(one.key)}{taken}  {one.waiting_count:,} waiting{sharing}{window}"]
    lines += [f"    held by {_holder(held, now_ms)}" for held in one.holders[:NAMED]]
    lines += _more(len(one.holders))
    lines += [f"    {_place(at)} {shown(task_id(key))}" for at, key in enumerate(one.waiting[:NAMED])]
    return lines + _more(len(one.waiting))


def _more(count: int) -> list[str]:
    return [f"    and {count - NAMED:,} more"] if count > NAMED else []


def _place(at: int) -> str:
    return "next is" if at == 0 else "then"


def _holder(held: KeyHolder, now_ms: int) -> str:
    text = f"{shown(task_id(held.key))}  {held.state or 'which is gone'}"
    if held.worker is not None and held.since_ms is not None:
        text += f" on worker {shown(held.worker)} for {short_duration(now_ms - held.since_ms)}"
    return text


def _in(at_ms: int, now_ms: int) -> str:
    return f"in {short_duration(at_ms - now_ms)}"
