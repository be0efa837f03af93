"""The task that runs at each tick: it starts the runs that are due and submits the next tick.

A head is the stored version of a schedule: a run whose inputs are its specification. Each step is idempotent: the ids
of the runs and of the next tick are derived from the schedule and the nominal instant, so a tick that is made again
after a crash starts nothing twice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from stemflow.expr import parse_template
from stemflow.expr.dates import instant_of, iso
from stemflow.model.records import NO_RUN, Claim, ClaimSpec
from stemflow.model.signature import TaskSig
from stemflow.runtime.client.parts import Parts
from stemflow.runtime.client.run_ids import TICK
from stemflow.runtime.client.submitter import Submitter
from stemflow.runtime.runs.handle import RunHandle
from stemflow.runtime.schedules.head import (
    BACKFILL,
    Head,
    newest_head,
    read_head,
    run_key,
    tick_options,
    tick_prefix,
)
from stemflow.runtime.schedules.starting import Row, stamp, started, work_in_thread
from stemflow.runtime.schedules.triggers import Triggers
from stemflow.runtime.tasks.context import TaskContext
from stemflow.runtime.tasks.submission import Submission
from stemflow.runtime.tasks.task import Task
from stemflow.schedule import ScheduleSpec, due_ms, next_tick, ticks_between
from stemflow.schedule.spec import MOST_CAUGHT_UP
from stemflow.schedule.ticks import count_ticks, previous_tick

ON_TIME_MS: Final = 60_000
"""A tick that is seen within this time is on time; `keep: none` starts only such ticks."""


class Ticker:
    """Makes the ticks of all schedules of a store, as tasks of the worker of this process."""

    def __init__(self, parts: Parts, submitter: Submitter) -> None:
        self._parts, self._submitter, self._store = parts, submitter, parts.store
        self.triggers = Triggers(parts, submitter)

    def tasks(self) -> Mapping[str, Task[..., Any]]:
        """The tasks by name."""
        return {TICK: Task(TICK, self._tick, {}), BACKFILL: Task(BACKFILL, self._backfill, {})}

    async def _tick(
        self, context: TaskContext, schedule: str, head: str, at_ms: int | None = None, after: int | None = None
    ) -> dict[str, Any] | None:
        found = await read_head(self._parts, head)
        if found is None:
            return None
        if await newest_head(self._parts, schedule) != head:
            # There is a newer head, and the process that applied it died before it ended this one.
            await self._parts.cancel(head)
            return None
        if found.spec.event is not None:
            return await self.triggers.tick(found, head, after)
        if at_ms is None:  # the first run of a new head: there is no tick to make yet
            await self._arrange(found, head, first_after_ms(found))
            return None
        now_ms = self._store.now_ms()
        rows = await self.make(found, at_ms, now_ms)
        await self._arrange(found, head, max(at_ms, now_ms))
        return {"ticks": rows}

    async def _backfill(self, context: TaskContext, item: Mapping[str, Any]) -> Row:
        """One tick of the past: start its run, and wait for its end."""
        head = await read_head(self._parts, str(item["head"]))
        if head is None:
            return {"at": item["at_ms"], "fate": "superseded"}
        row, handle = await self.start(head, int(item["at_ms"]), "backfill", suffix=str(item["suffix"]))
        if handle is None:
            return row
        result = await handle.wait()
        return {**row, "state": str(result.status)}

    async def _arrange(self, head: Head, run_id: str, after_ms: int | None) -> None:
        """Submit the run that makes the next tick after this instant; None: there is nothing to be made."""
        following = None if after_ms is None else next_tick(head.spec, after_ms)
        if following is None:
            return
        not_before_ms = due_ms(head.schedule, head.spec, following.at_ms)
        if head.paused is not None and head.paused.until_ms is not None:
            not_before_ms = max(not_before_ms, head.paused.until_ms)
        call: TaskSig[Any, Any] = TaskSig(
            task=TICK,
            kwargs={"schedule": head.schedule, "head": run_id, "at_ms": following.at_ms},
            options=tick_options(head.spec.queue),
            declared=True,
        )
        name = f"{tick_prefix(head.schedule)}{stamp(following.at_ms)}/{run_id.rpartition('/')[2]}"
        await self._submitter.submit(Submission(what=call, run_id=name, not_before_ms=not_before_ms))

    # -- what is due

    async def make(self, head: Head, at_ms: int, now_ms: int) -> list[Row]:
        """Start the run of the tick at `at_ms`, and of later ticks that are due, as `catch_up` says."""
        spec = head.spec
        oldest_ms = max(at_ms, now_ms - spec.window_ms)
        rows: list[Row] = []
        lost = count_ticks(spec, at_ms - 1, oldest_ms - 1)
        if lost:
            rows.append({"at": iso(instant_of(at_ms)), "fate": "missed", "count": lost, "late_ms": now_ms - at_ms})
        recent = list(ticks_between(spec, oldest_ms - 1, max(now_ms, at_ms)))
        kept = set(_kept(spec, [one.at_ms for one in recent if not one.excluded], now_ms))
        for one in recent:
            if one.excluded:
                rows.append(_row(one.at_ms, "excluded", now_ms))
            elif one.at_ms not in kept:
                rows.append(_row(one.at_ms, "missed", now_ms))
            else:
                kind = "scheduled" if now_ms - one.at_ms <= ON_TIME_MS else "catch_up"
                rows.append((await self.start(head, one.at_ms, kind))[0])
        return rows

    async def start(
        self, head: Head, at_ms: int, kind: str, *, suffix: str = "", inputs: Mapping[str, Any] | None = None
    ) -> tuple[Row, RunHandle[Any] | None]:
        """Start the run of one tick; its row, and its handle if there is a run. Raises StoreError."""
        now_ms = self._store.now_ms()
        row = _row(at_ms, "started", now_ms)
        run_id = f"{head.schedule}@{stamp(at_ms)}{suffix}"

        async def asked() -> Submission:
            # Backfills ignore `overlap`: they limit concurrency themselves.
            claim = None if kind == "backfill" else await self._claim(head)
            return Submission(
                what=await work_in_thread(head),
                inputs={**_inputs(head, at_ms, now_ms, kind), **(inputs or {})},
                meta={"schedule": head.schedule, "tick": iso(instant_of(at_ms)), "kind": kind},
                run_id=run_id,
                file=head.file,
                tasks=head.tasks,
                claim=claim,
            )

        row, handle = await started(self._submitter, head.schedule, row, run_id, asked)
        if handle is None:
            return row, None
        if handle.existing and kind == "backfill":
            return {**row, "fate": "done before", "run": handle.id}, None
        return {**row, "fate": "started" if handle.id == run_id else "joined", "run": handle.id}, handle

    async def _claim(self, head: Head) -> ClaimSpec | None:
        key, overlap = run_key(head.schedule), head.spec.overlap
        if overlap == "allow":
            return None
        if overlap == "cancel_running":
            (claim,) = await self._store.read([(NO_RUN, key)])
            if isinstance(claim, Claim) and not claim.finished:
                await self._parts.cancel(claim.holders[0][0])
        return ClaimSpec(key, "reject" if overlap == "skip" else "keep_last")


def first_after_ms(head: Head) -> int | None:
    """The first tick of a head is the first one after this instant; None: it is paused until somebody resumes it."""
    if head.paused is None:
        return head.from_ms
    if head.paused.until_ms is None:
        return None
    return head.from_ms if head.paused.ticks == "hold" else max(head.from_ms, head.paused.until_ms)


def _kept(spec: ScheduleSpec, due: Sequence[int], now_ms: int) -> Sequence[int]:
    """Which of the ticks that are due within the window start, by `catch_up.keep`."""
    if spec.keep == "all":
        return due[:MOST_CAUGHT_UP]
    last = due[-1:]
    return [at_ms for at_ms in last if spec.keep == "last" or now_ms - at_ms <= ON_TIME_MS]


def _row(at_ms: int, fate: str, now_ms: int) -> Row:
    return {"at": iso(instant_of(at_ms)), "fate": fate, "late_ms": max(0, now_ms - at_ms)}


def tick_values(spec: ScheduleSpec, at_ms: int, now_ms: int, kind: str) -> dict[str, Any]:
    """What `tick` is in the inputs of a schedule. Instants are text of ISO 8601."""
    before = previous_tick(spec, at_ms)
    start = None if before is None else iso(instant_of(before))
    at = iso(instant_of(at_ms))
    return {"at": at, "start": start, "end": at, "previous": start, "late_ms": max(0, now_ms - at_ms), "kind": kind}


def _inputs(head: Head, at_ms: int, now_ms: int, kind: str) -> dict[str, Any]:
    if not head.spec.inputs:
        return {}
    template = parse_template(dict(head.spec.inputs), {"tick"})
    return dict(template({"tick": tick_values(head.spec, at_ms, now_ms, kind)}))
