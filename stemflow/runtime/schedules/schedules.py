"""Schedules of a store: `app.schedules` and the command `stemflow schedule`."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from msgspec import Struct, structs

from stemflow.canvas import Canvas
from stemflow.errors import OptionError
from stemflow.model.records import FINAL, NO_RUN, Claim, Node
from stemflow.model.signature import Signature, TaskSig, WorkflowSig, expect_signature
from stemflow.model.subworkflow import text_of
from stemflow.model.tree import everything
from stemflow.runtime.client.parts import Parts
from stemflow.runtime.client.submitter import Submitter
from stemflow.runtime.runs.handle import RunHandle
from stemflow.runtime.schedules.head import (
    BACKFILL,
    Head,
    Paused,
    check_name,
    head_prefix,
    head_submission,
    newest_head,
    read_head,
    run_key,
    source_of,
    tick_options,
    tick_prefix,
)
from stemflow.runtime.schedules.starting import Row, file_of, stamp, work_of
from stemflow.runtime.schedules.tick_task import Ticker
from stemflow.runtime.tasks.submission import Submission
from stemflow.runtime.values.resolver import Values
from stemflow.schedule import ScheduleError, ScheduleSpec, Tick, due_ms, next_tick, ticks_between
from stemflow.units import Duration, duration_of

MOST_SCHEDULES = 10_000
MOST_BACKFILLED = 100_000
"""The most ticks of one backfill."""
OVERDUE_MS = 60_000
MOST_MEASURED = 200
"""Of so many schedules the metrics are computed."""
"""A tick that is this late is overdue."""


class UnknownSchedule(OptionError):
    """There is no schedule of this name in the store."""

    def __init__(self, name: str, url: str) -> None:
        super().__init__(f"there is no schedule {name!r} in {url}; `stemflow schedule list` shows those that are there")


class Applied(Struct, frozen=True):
    """What `apply` did with a schedule: `created`, `changed`, `unchanged` or `removed`."""

    schedule: str
    how: Literal["created", "changed", "unchanged", "removed"]


class ScheduleInfo(Struct, frozen=True, kw_only=True):
    """A schedule as it is listed. `next_ms`: its next tick, when it is due with its jitter; None: there is none.

    `overdue_ms`: for how long that tick has been due, when no worker has made it; 0 while it is not late.
    """

    head: Head
    run_id: str
    """The id of its head."""
    state: Literal["active", "paused", "ended"]
    next_ms: int | None
    overdue_ms: int = 0
    running: str | None = None
    """The run that holds the key of the schedule: it has not ended."""


class Schedules:
    """Applies, lists, pauses and resumes the schedules of one store. No worker is needed for that."""

    def __init__(self, parts: Parts, submitter: Submitter) -> None:
        self._parts, self._submitter, self._store = parts, submitter, parts.store
        self.ticker = Ticker(parts, submitter)

    # -- changing

    async def apply(self, head: Head, *, dry_run: bool = False) -> Applied:
        """Store a schedule; its ticks come after now. One that is there and runs the same work stays as it is.

        A schedule that is paused stays paused. Raises OptionError when the name belongs to another workflow.
        """
        self._parts.require_open()
        check_name(head.schedule)
        found = await self._find(head.schedule)
        if found is not None:
            _, old = found
            if old.workflow != head.workflow:
                raise OptionError(
                    f"schedule {head.schedule}: expected a name of its own, but workflow {old.workflow} has a schedule "
                    "of this name; choose another name, or remove that one first"
                )
            if old.same_work(head):
                return Applied(head.schedule, "unchanged")
            head = structs.replace(head, paused=old.paused)
        if not dry_run:
            now_ms = self._store.now_ms()
            if head.spec.event is not None:
                same = found is not None and found[1].spec.event == head.spec.event
                head = structs.replace(head, after=await self._after(head, found if same else None))
            await self._put(structs.replace(head, from_ms=now_ms, applied_at_ms=now_ms))
        return Applied(head.schedule, "created" if found is None else "changed")

    async def _after(self, head: Head, found: tuple[str, Head] | None) -> int:
        """Where a new head goes on: after the last event that the head before has looked at; without one, from now."""
        if found is None:
            return await self.ticker.triggers.last(str(head.spec.event))
        return await self.ticker.triggers.cursor(found[1], found[0])

    async def remove(self, name: str, *, dry_run: bool = False) -> Applied:
        """End a schedule; runs that it has started go on. Raises UnknownSchedule."""
        run_id, _ = await self._get(name)
        if not dry_run:
            await self._parts.cancel(run_id, force=True)
        return Applied(name, "removed")

    async def pause(
        self,
        name: str,
        *,
        ticks: Literal["skip", "hold"] = "skip",
        for_: Duration | None = None,
        by: str = "",
        reason: str = "",
    ) -> ScheduleInfo:
        """Make no ticks until `resume`, or for the time `for_` (in seconds, or `"2h"`).

        `ticks`: `skip` those of the meantime, or `hold` them, so that `catch_up` applies to them on resume.
        Raises UnknownSchedule, UnitError.
        """
        run_id, head = await self._get(name)
        if ticks not in ("skip", "hold"):
            raise OptionError(f"pause: ticks: expected skip or hold, got {ticks!r:.80}")
        now_ms = self._store.now_ms()
        until_ms = None if for_ is None else now_ms + duration_of("pause: for", for_)
        paused = Paused(at_ms=now_ms, ticks=ticks, until_ms=until_ms, by=by, reason=reason)
        after = 0 if head.spec.event is None else await self._after(head, (run_id, head))
        await self._put(structs.replace(head, paused=paused, from_ms=max(head.from_ms, now_ms), after=after))
        return await self.info(name)

    async def resume(self, name: str) -> ScheduleInfo:
        """End a pause. Ticks that were held start as `catch_up` says. Raises UnknownSchedule."""
        _, head = await self._get(name)
        if head.paused is not None:
            held = head.paused.ticks == "hold"
            from_ms = head.from_ms if held else self._store.now_ms()
            after = head.after if held or head.spec.event is None else await self._after(head, None)
            await self._put(structs.replace(head, paused=None, from_ms=from_ms, after=after))
        return await self.info(name)

    async def run_now(self, name: str, *, tick_ms: int | None = None, inputs: Mapping[str, Any] | None = None) -> Row:
        """Start a run by hand: for the instant of a tick, or for now. It respects `overlap`. Returns its row.

        Raises UnknownSchedule.
        """
        _, head = await self._get(name)
        if head.spec.event is not None:
            raise OptionError(
                f"schedule {name}: expected one that has ticks, but events start its runs; send one with `stemflow "
                f"event send {head.spec.event}`"
            )
        at_ms = self._store.now_ms() if tick_ms is None else tick_ms
        row, _ = await self.ticker.start(head, at_ms, "manual", suffix="~manual", inputs=inputs)
        return row

    async def backfill(
        self, name: str, after_ms: int, until_ms: int, *, concurrency: int = 1, reverse: bool = False, again: str = ""
    ) -> RunHandle[Any] | None:
        """Start the runs of all ticks after `after_ms` up to `until_ms`, `concurrency` at a time; None: there are none.

        A tick that has run is not run again, unless `again` names this repetition. The backfill is a run of its own:
        it can be shown, waited for and cancelled. Raises UnknownSchedule, OptionError.
        """
        run_id, head = await self._get(name)
        found = [tick.at_ms for tick in self.between(head, after_ms, until_ms) if not tick.excluded]
        if not found:
            return None
        suffix = f"~{again}" if again else ""
        items = [{"head": run_id, "at_ms": at_ms, "suffix": suffix} for at_ms in (found[::-1] if reverse else found)]
        do: TaskSig[Any, Any] = TaskSig(task=BACKFILL, options=tick_options(head.spec.queue), declared=True)
        what = Canvas.map(do, items, concurrency=concurrency, on_member_error="collect")
        what = what.named(f"backfill-{name}".replace(".", "_")[:128])
        own = f"backfill/{name}/{stamp(found[0])}..{stamp(found[-1])}{suffix}"
        return await self._submitter.submit(Submission(what=what, run_id=own))

    # -- reading

    async def names(self) -> list[str]:
        """The names of all schedules, sorted."""
        infos = await self._store.runs(MOST_SCHEDULES, head_prefix())
        return sorted({info.header.run.split("/")[1] for info in infos if info.root.state not in FINAL})

    async def list(self) -> Sequence[ScheduleInfo]:
        """All schedules by name."""
        return [await self.info(name) for name in await self.names()]

    async def instants(self) -> dict[str, tuple[int | None, bool]]:
        """By schedule, the instant of its next tick (epoch ms) and whether that is overdue; of the first ones by
        name."""
        found = {}
        for name in (await self.names())[:MOST_MEASURED]:
            with suppress(UnknownSchedule):  # removed meanwhile
                info = await self.info(name)
                found[name] = (info.next_ms, info.overdue_ms > 0)
        return found

    async def info(self, name: str) -> ScheduleInfo:
        """One schedule as it is now. Raises UnknownSchedule."""
        run_id, head = await self._get(name)
        now_ms = self._store.now_ms()
        waiting = await self._waiting_tick(head, run_id)
        (claim,) = await self._store.read([(NO_RUN, run_key(name))])
        running = claim.holders[0][0] if isinstance(claim, Claim) and not claim.finished and claim.holders else None
        paused = head.paused_at(now_ms)
        ends = waiting is None and head.spec.event is None
        state: Literal["active", "paused", "ended"] = "paused" if paused else "ended" if ends else "active"
        overdue_ms = 0 if paused or waiting is None else max(0, now_ms - waiting - OVERDUE_MS)
        return ScheduleInfo(
            head=head, run_id=run_id, state=state, next_ms=waiting, overdue_ms=overdue_ms, running=running
        )

    async def history(self, name: str, limit: int = 20) -> Sequence[Row]:
        """What became of the last ticks, the newest first; kept for 30 days."""
        rows: list[Row] = []
        for info in await self._store.runs(limit + 1, tick_prefix(name)):
            if info.root.state != "succeeded":
                continue
            result = await Values(self._parts.library).value(info.root)
            rows += reversed(result["ticks"]) if isinstance(result, dict) else []
        return rows[:limit]

    def between(self, head: Head, after_ms: int, until_ms: int) -> Sequence[Tick]:
        """The ticks of a range, at most MOST_BACKFILLED. Raises OptionError for more."""
        found: list[Tick] = []
        for tick in ticks_between(head.spec, after_ms, until_ms):
            if len(found) == MOST_BACKFILLED:
                raise OptionError(f"schedule {head.schedule}: expected at most {MOST_BACKFILLED} ticks, got more")
            found.append(tick)
        return found

    # -- heads

    async def _put(self, head: Head) -> None:
        """Put this head in force. If the process dies in between, the next tick of the old head ends that one."""
        work_of(head.source, head.form, head.file)
        before = await newest_head(self._parts, head.schedule)
        run_id = f"{head_prefix(head.schedule)}{self._parts.ids.run_id()}"
        await self._submitter.submit(head_submission(head, run_id))
        if before is not None:
            await self._parts.cancel(before, force=True)

    async def _find(self, name: str) -> tuple[str, Head] | None:
        self._parts.require_open()
        run_id = await newest_head(self._parts, check_name(name))
        head = None if run_id is None else await read_head(self._parts, run_id)
        return None if run_id is None or head is None else (run_id, head)

    async def _get(self, name: str) -> tuple[str, Head]:
        found = await self._find(name)
        if found is None:
            raise UnknownSchedule(name, self._store.url)
        return found

    async def _waiting_tick(self, head: Head, run_id: str) -> int | None:
        """When the tick that waits is due; before a worker has arranged for the first one, when it will be."""
        if head.spec.event is not None:
            return None
        for info in await self._store.runs(3, tick_prefix(head.schedule)):
            root = info.root
            if root.state not in FINAL and info.header.run.endswith(run_id.rpartition("/")[2]):
                return info.header.not_before_ms
        (start,) = await self._store.read([(run_id, "start")])
        if isinstance(start, Node) and start.state in FINAL:
            return None
        following = next_tick(head.spec, head.from_ms)
        return None if following is None else due_ms(head.schedule, head.spec, following.at_ms)


def head_of(
    name: str, what: Signature[Any, Any] | str | os.PathLike[str], spec: ScheduleSpec, tasks: tuple[str, ...] = ()
) -> Head:
    """The head of a schedule that starts a signature, or the workflow of a file. Raises OptionError, OSError."""
    if isinstance(what, (str, os.PathLike)):
        file = os.fspath(what)
        return head_of_text(name, Path(file).read_text("utf-8"), file, spec, tasks)
    expect_signature(what, "schedule")
    if spec.inputs:
        raise ScheduleError("inputs", "expected a workflow that declares them, got a signature; give it arguments")
    title = what.task if isinstance(what, TaskSig) else what.name or type(what).__name__[:-3].lower()
    return Head(schedule=name, spec=spec, workflow=title, source=source_of(what), form="signature", tasks=tasks)


def head_of_text(name: str, text: str, file: str, spec: ScheduleSpec, tasks: tuple[str, ...] = ()) -> Head:
    """The head of a schedule that starts the workflow in this text. Raises InvalidWorkflow."""
    flow = file_of(text, file)
    if any(isinstance(one, WorkflowSig) for one in everything(flow.body)):
        # What it calls is stored with it: a tick reads no file.
        return Head(
            schedule=name, spec=spec, workflow=flow.name, source=text_of(flow), form="workflow", file=file, tasks=tasks
        )
    return Head(schedule=name, spec=spec, workflow=flow.name, source=text, file=file, tasks=tasks)


__all__ = ["Applied", "ScheduleInfo", "Schedules", "UnknownSchedule", "head_of", "head_of_text"]
