"""Runs that events start: a tick of such a schedule is a run that waits for an event and then starts what is due.

The number of the last event that was looked at, the cursor, is in the id of each tick. A tick looks at every later
event: one that came while the tick was made, or made again, is due in this tick or in the next one. The id of a run is
derived from the schedule and the id of the event, so that an event that is looked at twice starts one run.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, Final

from stemflow.errors import StemflowError
from stemflow.expr import parse_condition, parse_template
from stemflow.model.records import NO_RUN, StoredEvent, Topic, topic_key
from stemflow.model.signature import ChainSig, EventSig, TaskSig
from stemflow.model.workflow import Workflow
from stemflow.runtime.client.parts import Parts
from stemflow.runtime.client.run_ids import TICK
from stemflow.runtime.client.submitter import Submitter
from stemflow.runtime.schedules.head import Head, tick_options, tick_prefix
from stemflow.runtime.schedules.starting import Row, stamp, started, work_in_thread
from stemflow.runtime.tasks.submission import MAX_ID, Submission
from stemflow.runtime.values.events import PAGE, read_event, truth
from stemflow.runtime.values.resolver import Values

MOST_EVENTS: Final = 100
"""How many events one tick looks at; the next tick looks at the others."""


class Triggers:
    """Makes the ticks of schedules whose runs are started by events."""

    def __init__(self, parts: Parts, submitter: Submitter) -> None:
        self._parts, self._submitter, self._store = parts, submitter, parts.store

    async def tick(self, head: Head, run_id: str, after: int | None) -> dict[str, Any] | None:
        """Start the runs of events after the cursor `after`, and submit the next tick; None: there is no tick yet."""
        if after is None:
            if head.paused is None or head.paused.until_ms is not None:
                await self._arrange(head, run_id, head.after)
            return None
        rows = []
        found = await self._after(str(head.spec.event), after)
        for stored in found[:MOST_EVENTS]:
            row = await self._start(head, stored)
            rows += [] if row is None else [row]
            after = stored.number
        await self._arrange(head, run_id, after)
        return {"ticks": rows}

    async def last(self, type: str) -> int:
        """The number of the last event of a type; without one, a number below that of the next one."""
        topic = await self._topic(type)
        return self._store.now_ms() if topic is None else topic.last

    async def cursor(self, head: Head, run_id: str) -> int:
        """The number of the last event that this head has looked at."""
        for info in await self._store.runs(3, tick_prefix(head.schedule)):
            after, _, own = info.header.run.removeprefix(tick_prefix(head.schedule)).partition("/")
            if own == run_id.rpartition("/")[2]:
                return int(after)
        return head.after

    async def _arrange(self, head: Head, run_id: str, after: int) -> None:
        """Submit the run that waits for the first event after number `after`."""
        wait: EventSig[Any, Any] = EventSig(
            event_type=str(head.spec.event), match="event.number > inputs.after"
        )
        call: TaskSig[Any, Any] = TaskSig(
            task=TICK,
            bind={"schedule": head.schedule, "head": run_id, "after": "${{ inputs.after }}"},
            options=tick_options(head.spec.queue),
            declared=True,
        )
        flow = Workflow(name=TICK, body=ChainSig(steps=(wait, call)), inputs={"after": {"type": "integer"}})
        name = f"{tick_prefix(head.schedule)}{after}/{run_id.rpartition('/')[2]}"
        until_ms = None if head.paused is None else head.paused.until_ms
        asked = Submission(what=flow, inputs={"after": after}, run_id=name, not_before_ms=until_ms or 0)
        await self._submitter.submit(asked)

    async def _start(self, head: Head, stored: StoredEvent) -> Row | None:
        """Start the run of one event; its row. None: it does not match, or was sent in a pause that skips events."""
        pause = head.paused
        if pause is not None and pause.ticks == "skip" and pause.at_ms <= stored.at_ms < (pause.until_ms or 0):
            return None
        event = read_event(self._parts.library.encoders, str(head.spec.event), stored.body)
        late_ms = max(0, self._store.now_ms() - stored.at_ms)
        row: Row = {"at": stamp(stored.at_ms), "event": event["id"], "fate": "started", "late_ms": late_ms}
        try:
            if head.spec.match is not None and not truth(
                parse_condition(head.spec.match, {"event"})({"event": event})
            ):
                return None
        except StemflowError as error:
            return {**row, "fate": "failed", "reason": f"match: {error}"[:1_000]}
        run_id = run_id_of(head.schedule, event["id"])

        async def asked() -> Submission:
            return Submission(
                what=await work_in_thread(head),
                inputs=_inputs(head, event),
                meta={"schedule": head.schedule, "event": event["id"], "kind": "event"},
                run_id=run_id,
                file=head.file,
                tasks=head.tasks,
            )

        row, handle = await started(self._submitter, head.schedule, row, run_id, asked)
        return row if handle is None else {**row, "run": handle.id}

    async def _after(self, type: str, after: int) -> Sequence[StoredEvent]:
        """The events with a number above `after`, at least MOST_EVENTS of them if there are so many, in order."""
        topic = await self._topic(type)
        if topic is None or topic.last <= after:
            return ()
        values = Values(self._parts.library)
        first = max(after + 1, topic.first)
        older: list[StoredEvent] = []
        # Numbers before the newest 1,000 are read backwards, as a topic that was made again begins with another one.
        while first > after + 1:
            start = max(after + 1, first - PAGE)
            page = await values.events(type, range(start, first))
            if not page:
                break
            older, first = [*page, *older], start
        if len(older) >= MOST_EVENTS:
            return older
        start = max(after + 1, topic.first)
        newer = await values.events(type, range(start, min(topic.last, start + MOST_EVENTS - 1) + 1))
        return [*older, *newer]

    async def _topic(self, type: str) -> Topic | None:
        (found,) = await self._store.read([(NO_RUN, topic_key(type))])
        return found if isinstance(found, Topic) else None


def run_id_of(schedule: str, event: str) -> str:
    """The id of the run that an event starts."""
    found = f"{schedule}@{event}"
    return found if len(found) <= MAX_ID else f"{schedule}@{hashlib.sha256(event.encode()).hexdigest()}"


def _inputs(head: Head, event: Mapping[str, Any]) -> dict[str, Any]:
    if not head.spec.inputs:
        return {}
    return dict(parse_template(dict(head.spec.inputs), {"event"})({"event": event}))
