"""Values of steps that wait for an event or for a person, and of steps that send an event."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from stemflow.errors import OptionError, StemflowError
from stemflow.expr.dates import instant_of, iso
from stemflow.expr.values import describe
from stemflow.model.effects import Arrival, Emission
from stemflow.model.plan import ApprovalPlan, EmitPlan, EventPlan
from stemflow.model.records import Node, task_id
from stemflow.runtime.payloads.encoders import TaskPayloadEncoderRegistry, is_json
from stemflow.runtime.payloads.json_data import decode, plain
from stemflow.runtime.values.resolver import Values
from stemflow.runtime.values.value_codec import value_location

Condition = Callable[[str, Mapping[str, Any]], Awaitable[Any]]
"""Evaluates a bare expression at a node, with names in addition to those around it."""
Template = Callable[[Any], Awaitable[Any]]
"""Evaluates a tree at a node."""

PAGE = 200
"""How many events are read at once."""
MOST_ID = 200
"""The longest id of an event, in characters."""


def truth(value: Any) -> bool:
    """The answer of a condition; null counts as false. Raises StemflowError for anything but a boolean."""
    if value is None or isinstance(value, bool):
        return bool(value)
    raise StemflowError(f"expected true or false, got {describe(value)}")


def check_event_id(id: Any, where: str) -> str:
    """`id` if it is a text of 1 to MOST_ID printable characters. Raises OptionError."""
    if not isinstance(id, str) or not 1 <= len(id) <= MOST_ID or not id.isprintable():
        raise OptionError(f"{where}: expected a text of 1 to {MOST_ID} printable characters, got {id!r:.80}")
    return id


def event_of(type: str, id: str, data: Any, now_ms: int) -> dict[str, Any]:
    """An event as expressions see it."""
    return {"id": id, "type": type, "data": plain(data, f"data of event {type}"), "time": iso(instant_of(now_ms))}


def write_event(encoders: TaskPayloadEncoderRegistry, event: Mapping[str, Any]) -> bytes:
    """The stored form of an event. Raises NotSerializable."""
    where = value_location("", f"event:{event['type']}", "data")
    return encoders.writer(encoders.results, where)(event, f"data of event {event['type']}")


def read_event(encoders: TaskPayloadEncoderRegistry, type: str, body: bytes) -> Any:
    """The inverse of `write_event`. Raises UnknownEncoder, BadPayload."""
    return decode(body) if is_json(body) else encoders.read(body, value_location("", f"event:{type}", "data"))


async def arrival(values: Values, condition: Condition, node: Node, plan: EventPlan, gate: str) -> Arrival | None:
    """The first event that fits, for the gate `event AFTER LAST TAKEN...`."""
    after, last, *taken = map(int, gate.split()[1:])
    numbers = [number for number in range(after + 1, last + 1) if number not in taken]
    until_ms = None if node.awaits is None else node.awaits.until_ms
    for start in range(0, len(numbers), PAGE):
        for stored in await values.events(plan.event_type, numbers[start : start + PAGE]):
            if until_ms is not None and stored.at_ms > until_ms:
                return None
            event = read_event(values.library.encoders, plan.event_type, stored.body)
            if plan.match is None or truth(await condition(plan.match, {"event": {**event, "number": stored.number}})):
                return Arrival(stored.number, await _result(values, node, event))
    return None


async def emission(values: Values, template: Template, node: Node, plan: EmitPlan) -> Emission:
    """The event that an `emit` step sends; by default its id is that of the step."""
    given = task_id(node.key) if plan.id is None else await template(plan.id)
    id = check_event_id(given, "id")
    event = event_of(plan.event_type, id, await template(plan.data), values.store.now_ms())
    body = write_event(values.library.encoders, event)
    return Emission(id, body, await _result(values, node, event))


def answer_of(approved: bool, by: str | None, note: str, inputs: Mapping[str, Any], now_ms: int) -> dict[str, Any]:
    """The value of an approval."""
    return {"approved": approved, "by": by, "note": note, "at": iso(instant_of(now_ms)), "inputs": dict(inputs)}


async def answer_in_time(values: Values, node: Node, plan: ApprovalPlan) -> bytes:
    """The encoded value of an approval that nobody answered in time."""
    note = "nobody answered in time"
    return await _result(values, node, answer_of(plan.on_timeout == "approve", None, note, {}, values.store.now_ms()))


async def _result(values: Values, node: Node, value: Any) -> bytes:
    write = await values.library.codec.writer(values.library.encoders.results, *node.key, "result")
    return write(value, f"value of {node.path or 'the run'}")
