"""Sending events from outside of runs."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from stemflow.model.facts import Sent
from stemflow.model.signature import EVENT_KEPT_MS
from stemflow.model.step_names import expect_event_type
from stemflow.runtime.client.parts import Parts
from stemflow.runtime.values.events import check_event_id, event_of, write_event
from stemflow.units import Duration, duration_of


class SentEvent(Struct, frozen=True):
    """An event that is stored, with its `type` and `id`.

    `existing`: one of the same type and id was kept already, and nothing was sent.
    """

    type: str
    id: str
    existing: bool = False


async def send_event(
    parts: Parts, type: str, data: Any, id: str | None, keep: Duration | None
) -> SentEvent:
    """See `Stemflow.send_event`."""
    type = expect_event_type(type, "send_event: type")
    id = parts.ids.run_id() if id is None else check_event_id(id, "send_event: id")
    keep_ms = EVENT_KEPT_MS if keep is None else duration_of("send_event: keep", keep)
    event = event_of(type, id, data, parts.store.now_ms())
    body = write_event(parts.library.encoders, event)
    decision = await parts.committer.commit([Sent(type, id, body, keep_ms)])
    return SentEvent(type, id, decision.replies[0].status == "existing")
