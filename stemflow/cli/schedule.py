"""`stemflow schedule`: schedules of workflow files and of a store."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Collection, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from stemflow.cli.arguments import Arguments
from stemflow.cli.exits import FINE, INVALID_FILE, RUN_FAILED, Refused
from stemflow.cli.pauses import user
from stemflow.cli.text import json_text, short_duration, shown
from stemflow.cli.workflow_file import read_file, require_valid
from stemflow.cli.workflow_paths import Filters, workflow_files
from stemflow.runtime.clock import SystemClock
from stemflow.runtime.engine import Stemflow
from stemflow.runtime.schedules.head import Head
from stemflow.runtime.schedules.schedules import ScheduleInfo, head_of_text
from stemflow.runtime.schedules.starting import stamp
from stemflow.runtime.tasks.discovery import found_tasks
from stemflow.runtime.tasks.registry import TaskRegistry
from stemflow.schedule import ScheduleSpec, Tick, spec_of, ticks
from stemflow.schedule.changes import ClockChange, change_at
from stemflow.units import format_duration, parse_duration_ms


def main(arguments: Arguments) -> int:
    """Carry out one of the actions."""
    if arguments.action == "preview":
        return _preview(arguments)
    return asyncio.run(_in_store(arguments))


async def _in_store(arguments: Arguments) -> int:
    action = {
        "list": _list, "show": _show, "apply": _apply, "pause": _pause, "resume": _resume, "run": _run,
        "backfill": _backfill, "remove": _remove,
    }[arguments.action]  # fmt: skip
    async with Stemflow(arguments.store, TaskRegistry(), worker=False) as app:
        return await action(app, arguments)


# -- files


KnownTasks = Callable[[str], Collection[str] | None]
"""The tasks that a workflow file may call; None: any."""


def _heads(paths: Sequence[str], tasks: tuple[str, ...] = (), known: KnownTasks = lambda _: None) -> Iterator[Head]:
    """The schedules of workflow files; raises Refused for a file with errors, and for a name that comes twice."""
    seen: dict[str, str] = {}
    for file in workflow_files(paths, Filters()):
        read = read_file(file)
        flow = require_valid(read.checked(known(file) if read.parsed.workflow is not None else None))
        file = os.path.normpath(file)
        for name, given in flow.schedules.items():
            if name in seen:
                raise Refused(f"{file}: schedule {shown(name)}: expected a name of its own, but {seen[name]} has a "
                              "schedule of this name", INVALID_FILE)  # fmt: skip
            seen[name] = file
            yield head_of_text(name, read.text, file, spec_of(given), tasks)


def _preview(arguments: Arguments) -> int:
    after_ms = SystemClock().now_ms() if arguments.after is None else _instant_ms(arguments.after)
    found = list(_heads(arguments.paths))
    if not found:
        raise Refused("expected schedules under `on: schedule:` in these files, found none", INVALID_FILE)
    data = []
    for head in found:
        ahead = [tick for tick, _ in zip(ticks(head.spec, after_ms), range(arguments.ticks), strict=False)]
        data.append({"schedule": head.schedule, "file": head.file, "ticks": [_tick_data(head, one) for one in ahead]})
        if not arguments.json:
            print(f"{shown(head.schedule)}  {_when(head.spec)}")
            for tick in ahead:
                print(f"  {_tick_line(head.spec, tick)}")
    if arguments.json:
        print(json_text(data))
    return FINE


def _tick_data(head: Head, tick: Tick) -> dict[str, Any]:
    change = change_at(head.spec, tick.at_ms)
    return {
        "at_ms": tick.at_ms,
        "local": _local(head.spec, tick.at_ms),
        "excluded": tick.excluded,
        "clock_change": None if change is None else change.kind,
    }


def _tick_line(spec: ScheduleSpec, tick: Tick) -> str:
    notes = ["excluded"] if tick.excluded else []
    change = change_at(spec, tick.at_ms)
    if change is not None:
        notes.append(_described(change))
    return "  ".join([f"{_local(spec, tick.at_ms):<26}", stamp(tick.at_ms), *notes]).rstrip()


def _described(change: ClockChange) -> str:
    if change.kind == "gap":
        return f"{change.local[11:]} does not exist that day: the first instant after the gap"
    return f"{change.local[11:]} occurs twice that day"


# -- the store


async def _known_tasks(app: Stemflow, arguments: Arguments) -> KnownTasks:
    """As `submit` knows them: those that are found here, and those that workers have declared."""
    if arguments.allow_unknown:
        return lambda _: None
    declared = (await app.preparer.remote_tasks.read()).keys()

    def known(file: str) -> Collection[str]:
        registry = found_tasks(arguments.tasks or (), Path(file))
        return registry if declared <= frozenset(registry) else frozenset(registry) | declared

    return known


async def _apply(app: Stemflow, arguments: Arguments) -> int:
    heads = list(_heads(arguments.paths, tuple(arguments.tasks or ()), await _known_tasks(app, arguments)))
    done = [await app.schedules.apply(head, dry_run=arguments.dry_run) for head in heads]
    if arguments.prune:
        named = {head.schedule for head in heads}
        for info in await app.schedules.list():
            if info.head.form != "signature" and info.head.schedule not in named:
                name = info.head.schedule
                done.append(await app.schedules.remove(name, dry_run=arguments.dry_run))
    if arguments.json:
        print(json_text([{"schedule": one.schedule, "result": one.how} for one in done]))
        return FINE
    would = "would be " if arguments.dry_run else ""
    for one in done:
        print(f"{shown(one.schedule)}: {'' if one.how == 'unchanged' else would}{one.how}")
    if not done:
        print("no schedules in these files")
    return FINE


async def _list(app: Stemflow, arguments: Arguments) -> int:
    found = await app.schedules.list()
    if arguments.json:
        print(json_text([_info_data(one) for one in found]))
        return FINE
    if found:
        print(f"{'SCHEDULE':<24}  {'STATE':<7}  {'NEXT TICK':<26}  {'WORKFLOW':<20}  WHEN")
    for one in found:
        print(f"{shown(one.head.schedule):<24}  {one.state:<7}  {_next(one, app.store.now_ms()):<26}  "
              f"{shown(one.head.workflow):<20}  {_when(one.head.spec)}")  # fmt: skip
    return FINE


async def _show(app: Stemflow, arguments: Arguments) -> int:
    info = await app.schedules.info(arguments.name)
    rows = await app.schedules.history(arguments.name, arguments.ticks)
    if arguments.json:
        print(json_text({**_info_data(info), "ticks": list(rows)}))
        return FINE
    _print_info(info, app.store.now_ms())
    for row in rows:
        late = f"{short_duration(row['late_ms'])} late"
        count = f"{row['count']} ticks" if "count" in row else ""
        event = f"event {row['event']}" if "event" in row else ""
        about = [event, row.get("run", ""), row.get("reason", ""), count]
        words = [row["at"], f"{row['fate']:<11}", f"{late:<11}", *about]
        print("  " + "  ".join(shown(str(word)) for word in words if word).rstrip())
    return FINE


async def _pause(app: Stemflow, arguments: Arguments) -> int:
    for_s = None if arguments.for_ms is None else arguments.for_ms / 1_000
    info = await app.schedules.pause(
        arguments.name, ticks=arguments.ticks, for_=for_s, by=user(), reason=arguments.reason
    )
    return _report(info, app, arguments)


async def _resume(app: Stemflow, arguments: Arguments) -> int:
    return _report(await app.schedules.resume(arguments.name), app, arguments)


async def _remove(app: Stemflow, arguments: Arguments) -> int:
    done = await app.schedules.remove(arguments.name)
    print(json_text({"schedule": done.schedule, "result": done.how}) if arguments.json else f"{shown(done.schedule)}: "
          "removed")  # fmt: skip
    return FINE


async def _run(app: Stemflow, arguments: Arguments) -> int:
    tick_ms = None if arguments.tick is None else _instant_ms(arguments.tick)
    row = await app.schedules.run_now(arguments.name, tick_ms=tick_ms)
    if arguments.json:
        print(json_text(row))
    else:
        print("  ".join(shown(str(one)) for one in (row["fate"], row.get("run", ""), row.get("reason", "")) if one))
    return FINE if row["fate"] in ("started", "joined") else RUN_FAILED


async def _backfill(app: Stemflow, arguments: Arguments) -> int:
    after_ms = _instant_ms(arguments.from_) - 1
    until_ms = app.store.now_ms() if arguments.to is None else _instant_ms(arguments.to)
    info = await app.schedules.info(arguments.name)
    found = [one for one in app.schedules.between(info.head, after_ms, until_ms) if not one.excluded]
    if arguments.dry_run or not found:
        if arguments.json:
            print(json_text({"ticks": [one.at_ms for one in found], "run": None}))
        else:
            for tick in found:
                print(_tick_line(info.head.spec, tick))
            print(f"{len(found)} ticks")
        return FINE
    handle = await app.schedules.backfill(
        arguments.name, after_ms, until_ms, concurrency=arguments.concurrency, reverse=arguments.reverse,
        again=arguments.again,
    )  # fmt: skip
    run = "" if handle is None else handle.id
    if arguments.json:
        print(json_text({"ticks": [one.at_ms for one in found], "run": run}))
    else:
        print(f"{len(found)} ticks in run {shown(run)}")
        print(f"next: `stemflow show '{shown(run)}'` shows how far it is, `stemflow cancel '{shown(run)}'` stops it")
    return FINE


# -- how things are printed


def _report(info: ScheduleInfo, app: Stemflow, arguments: Arguments) -> int:
    if arguments.json:
        print(json_text(_info_data(info)))
    else:
        _print_info(info, app.store.now_ms())
    return FINE


def _print_info(info: ScheduleInfo, now_ms: int) -> None:
    head = info.head
    print(f"{shown(head.schedule)}  {info.state}  {_when(head.spec)}  workflow {shown(head.workflow)}"
          + (f" of {shown(head.file)}" if head.file else ""))  # fmt: skip
    if head.paused is not None and info.state == "paused":
        by = f" by {shown(head.paused.by)}" if head.paused.by else ""
        why = f': "{shown(head.paused.reason)}"' if head.paused.reason else ""
        until = f", until {stamp(head.paused.until_ms)}" if head.paused.until_ms is not None else ""
        print(f"  paused since {stamp(head.paused.at_ms)}{by}{until}{why}; its ticks are {_fate_of(head.paused.ticks)}")
    print(f"  next tick: {_next(info, now_ms)}")
    if info.running is not None:
        print(f"  running: {shown(info.running)}")


def _fate_of(ticks_: str) -> str:
    return "held" if ticks_ == "hold" else "skipped"


def _next(info: ScheduleInfo, now_ms: int) -> str:
    if info.state == "paused" and (info.head.paused is None or info.head.paused.until_ms is None):
        return "none while it is paused"
    if info.next_ms is None:
        return "none" if info.head.spec.event is None else "at the next event"
    if info.overdue_ms:
        return f"overdue for {short_duration(now_ms - info.next_ms)}"
    return _local(info.head.spec, info.next_ms)


def _info_data(info: ScheduleInfo) -> dict[str, Any]:
    head = info.head
    paused = None
    if head.paused is not None and info.state == "paused":
        paused = {
            "since_ms": head.paused.at_ms, "by": head.paused.by, "reason": head.paused.reason,
            "ticks": head.paused.ticks,
            "until_ms": head.paused.until_ms,
        }  # fmt: skip
    return {
        "schedule": head.schedule,
        "state": info.state,
        "when": _when(head.spec),
        "workflow": head.workflow,
        "file": head.file,
        "next_at_ms": info.next_ms,
        "overdue_ms": info.overdue_ms,
        "running": info.running,
        "paused": paused,
    }


def _when(spec: ScheduleSpec) -> str:
    if spec.event is not None:
        return f"on event {shown(spec.event)}" + (f" when {shown(spec.match)}" if spec.match else "")
    if spec.cron is not None:
        return f'"{spec.cron}" {spec.timezone}'
    if spec.every_ms is not None:
        return f"every {format_duration(spec.every_ms)}"
    if spec.at_ms is not None:
        return f"at {stamp(spec.at_ms)}"
    sign = "-" if spec.offset_ms < 0 else "+"
    offset = f" {sign} {format_duration(abs(spec.offset_ms))}" if spec.offset_ms else ""
    return f"at {spec.solar}{offset} at {spec.place}"


def _local(spec: ScheduleSpec, at_ms: int) -> str:
    """A time in the zone of the schedule, with the day of the week and the zone."""
    at = datetime.fromtimestamp(at_ms / 1_000, ZoneInfo(spec.timezone))
    return at.strftime("%a %Y-%m-%d %H:%M:%S %Z") if at.second else at.strftime("%a %Y-%m-%d %H:%M %Z")


def _instant_ms(given: Any) -> int:
    """An instant that was given as such, or as how long ago."""
    if isinstance(given, datetime):
        return round(given.timestamp() * 1_000)
    return SystemClock().now_ms() - parse_duration_ms(given)
