"""Actions of the `event`, `emit` and `approval` rows of the transition table: steps that need no worker while they
wait."""

from __future__ import annotations

from typing import Any

from msgspec import structs

from stemflow.core import topics
from stemflow.core.ending import finish
from stemflow.core.leaf import kept_result, refuse
from stemflow.core.work import Work
from stemflow.model.effects import Arrival, Emission, GateError
from stemflow.model.facts import Answered
from stemflow.model.plan import ApprovalPlan, EmitPlan, EventPlan, ScopePlan
from stemflow.model.records import (
    FAILED,
    HELD,
    SKIPPED,
    SUCCEEDED,
    Awaits,
    ErrorInfo,
    Node,
    Topic,
    parent_path,
    topic_key,
)

# -- event


def open_event(w: Work, node: Node, refusal: GateError | None) -> None:
    """SUCCEEDED at once if an event that is kept fits, else HELD until one comes or the time is over."""
    plan = w.plan_of(node)
    assert isinstance(plan, EventPlan)
    if _has_ended(w, node, refusal):
        return None
    until_ms = _deadline(w, node, plan)
    if isinstance(until_ms, GateError):
        return refuse(w, node, until_ms)
    topic = topics.find(w, plan.event_type)
    if topic is not None and _take(w, node, topic, topic.first - 1):
        return None
    seen = topics.join(w, plan.event_type, node.key)
    node.state, node.awaits, node.due_at_ms = HELD, Awaits(topic_key(plan.event_type), seen, until_ms), until_ms
    return None


def look(w: Work, node: Node, _: object) -> None:
    """Its timer is due: an event has come, or its time is over."""
    plan, awaits = w.plan_of(node), node.awaits
    assert isinstance(plan, EventPlan) and awaits is not None
    topic = topics.find(w, plan.event_type)
    if topic is not None and topic.last > awaits.seen:
        if _take(w, node, topic, max(awaits.seen, topic.first - 1)):
            return
        node.awaits = structs.replace(awaits, seen=topic.last)
    if awaits.until_ms is None or (node.due_at_ms or 0) < awaits.until_ms:
        node.due_at_ms = awaits.until_ms  # it was due for an event
    elif plan.on_timeout == "fail":
        waited_ms = awaits.until_ms - node.opened_at_ms
        _time_out(w, node, f"no event {plan.event_type} that it waits for came within {waited_ms} ms")
    else:
        _end_without(w, node, plan.on_timeout)


def _take(w: Work, node: Node, topic: Topic, after: int) -> bool:
    """End the node with the first event after number `after` that fits; False if there is none."""
    loop, step = _loop_around(w, node)
    taken = () if loop is None else tuple(number for path, number in loop.taken if path == step and number > after)
    found = w.gate(node.key, " ".join(map(str, ("event", after, topic.last, *taken))))
    if found is None:
        return False
    if isinstance(found, GateError):
        refuse(w, node, found)
        return True
    assert isinstance(found, Arrival)
    if loop is not None:
        loop = w.edit(loop)
        still = tuple(one for one in loop.taken if one[0] != step or one[1] >= topic.first)
        loop.taken = (*still, (step, found.number))
    node.result = found.result
    finish(w, node, SUCCEEDED)
    return True


def _loop_around(w: Work, node: Node) -> tuple[Node | None, str]:
    """The outermost loop around a node, and the node's path without the iterations of loops."""
    step, found = node.path, None
    if not _may_be_in_loop(w, node):
        return None, step
    path = node.path
    while path:
        path = parent_path(path)
        scope = w.known((node.run, path), node.path)
        plan = w.plan_of(scope)
        if isinstance(plan, ScopePlan) and plan.kind == "loop":
            rest = step[len(path) :]
            found, step = scope, f"{path}[]{rest[rest.index(']') + 1 :]}"
    return found, step


def _may_be_in_loop(w: Work, node: Node) -> bool:
    """Whether the plan has a loop around the node. Around a plan that joined the run there may be one, too."""
    shape, place = w.shape(node.plan), node.node
    while (place := shape.nodes[place].parent) >= 0:
        scope = shape.nodes[place]
        if isinstance(scope, ScopePlan) and scope.kind == "loop":
            return True
    return node.plan != w.header(node.run).plan


# -- emit


def emit(w: Work, node: Node, refusal: GateError | None) -> None:
    """Send the event and succeed, in one commit. One of the same id that is kept is not sent again."""
    plan = w.plan_of(node)
    assert isinstance(plan, EmitPlan)
    if _has_ended(w, node, refusal):
        return None
    found = w.gate(node.key, "emit")
    if isinstance(found, GateError):
        return refuse(w, node, found)
    assert isinstance(found, Emission)
    topics.send(w, plan.event_type, found.id, found.body, plan.keep_ms)
    node.result = found.result
    return finish(w, node, SUCCEEDED)


# -- approval


def open_approval(w: Work, node: Node, refusal: GateError | None) -> None:
    """HELD until somebody answers or the time is over."""
    plan = w.plan_of(node)
    assert isinstance(plan, ApprovalPlan)
    if _has_ended(w, node, refusal):
        return None
    until_ms = _deadline(w, node, plan)
    if isinstance(until_ms, GateError):
        return refuse(w, node, until_ms)
    node.state, node.due_at_ms = HELD, until_ms
    return None


def answer(w: Work, node: Node, fact: Answered) -> None:
    """It was approved or rejected."""
    plan = w.plan_of(node)
    assert isinstance(plan, ApprovalPlan)
    _answered(w, node, plan, fact.result, fact.error)


def lapse(w: Work, node: Node, _: object) -> None:
    """Nobody has answered in time."""
    plan = w.plan_of(node)
    assert isinstance(plan, ApprovalPlan)
    if plan.on_timeout == "fail":
        return _time_out(w, node, f"nobody answered within {w.now_ms - node.opened_at_ms} ms")
    if plan.on_timeout == "skip":
        return _end_without(w, node, "skip")
    result = w.gate(node.key, "answer")
    if isinstance(result, GateError):
        return refuse(w, node, result)
    error = None if plan.on_timeout == "approve" else rejection("nobody", "nobody answered in time")
    return _answered(w, node, plan, result, error)


def rejection(by: str, note: str) -> ErrorInfo:
    """The error of a step that `by` has rejected."""
    text = f"rejected by {by}: {note}" if note else f"rejected by {by}"
    return ErrorInfo("Rejected", text, "stemflow.Rejected", data={"by": by, "note": note})


def _answered(w: Work, node: Node, plan: ApprovalPlan, result: bytes, error: ErrorInfo | None) -> None:
    if error is not None and plan.on_reject == "fail":
        node.error = error
        return finish(w, node, FAILED)
    node.result = result
    return finish(w, node, SUCCEEDED)


# -- in common


def _has_ended(w: Work, node: Node, refusal: GateError | None) -> bool:
    """Whether it ends where it begins: it is refused, or a rerun keeps its result."""
    if refusal is not None:
        refuse(w, node, refusal)
        return True
    kept = kept_result(w, node)
    if kept is None:
        return False
    node.result = kept.result
    finish(w, node, SUCCEEDED)
    return True


def _deadline(w: Work, node: Node, plan: EventPlan | ApprovalPlan) -> Any:
    """The instant (epoch ms) at which it stops waiting, None for never, or an error."""
    limit_ms: Any = plan.limit_ms
    if plan.limit is not None:
        limit_ms = w.gate(node.key, "limit")
    return limit_ms if limit_ms is None or isinstance(limit_ms, GateError) else w.now_ms + limit_ms


def _time_out(w: Work, node: Node, text: str) -> None:
    node.error = ErrorInfo("TaskTimeout", text, "stemflow.TaskTimeout")
    finish(w, node, FAILED)


def _end_without(w: Work, node: Node, how: str) -> None:
    """It ends without a value: skipped by its own condition, or SUCCEEDED with null."""
    if how == "skip":
        finish(w, node, SKIPPED, cause="condition")
    else:
        finish(w, node, SUCCEEDED)
