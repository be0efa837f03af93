"""Invariants of all records at one instant. A violation is described by a sentence."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from stemflow.core.kinds import rules_of
from stemflow.core.kinds.map import window_of
from stemflow.core.shape import Shape
from stemflow.model.plan import LeafPlan, ScopePlan
from stemflow.model.records import FINAL, HELD, NO_RUN, STOPPING, Claim, Key, Node, Record, Tally, Topic, parent_path


def check_standing(records: Mapping[Key, Record], shapes: Mapping[str, Shape]) -> list[str]:
    """Violations among all records: an open node below a stopped or ended scope, a node that opened too early, a claim
    that disagrees with its nodes."""
    broken: list[str] = []
    for key, record in records.items():
        if isinstance(record, Claim):
            broken += [f"claim {record.key}: {text}" for text in _claim(record, records)]
        elif isinstance(record, Topic):
            broken += [f"{record.key}: {text}" for text in _topic(record, records)]
        elif isinstance(record, Node) and record.state not in FINAL:
            broken += [f"{key}: {text}" for text in _going_on(record, records, shapes)]
    return broken


def check_claims(keys: Iterable[Key], records: Mapping[Key, Record], shapes: Mapping[str, Shape]) -> list[str]:
    """Violations that concern only the claims and nodes under `keys`, which a commit has changed."""
    broken: list[str] = []
    for key in keys:
        record = records.get(key)
        if isinstance(record, Claim):
            broken += [f"claim {record.key}: {text}" for text in _claim(record, records)]
        elif isinstance(record, Topic):
            broken += [f"{record.key}: {text}" for text in _topic(record, records)]
        elif isinstance(record, Node) and record.state not in FINAL:
            shape = shapes[record.plan]
            plan = shape.nodes[record.node]
            limited = isinstance(plan, LeafPlan) and shape.plan.options[plan.options].concurrency is not None
            if not isinstance(plan, (LeafPlan, ScopePlan)):
                broken += [f"{key}: {text}" for text in _woken(record, records)]
                continue
            broken += [f"{key}: {text}" for text in _kept_by_claims(record, limited, records)]
    return broken


def _topic(topic: Topic, records: Mapping[Key, Record]) -> list[str]:
    """Its waiters are HELD and wait for it; none of them is in it twice."""
    broken = [] if len(set(topic.waiters)) == len(topic.waiters) else ["somebody waits for it twice"]
    for key in topic.waiters:
        node = records.get(key)
        if not isinstance(node, Node) or node.state != HELD or node.awaits is None or node.awaits.topic != topic.key:
            broken.append(f"{key} does not wait for it")
    if not topic.waiters and not topic.until_ms:
        broken.append("nobody waits for it and it has no events")
    return broken


def _woken(node: Node, records: Mapping[Key, Record]) -> list[str]:
    """What waits for an event is among the waiters of its topic, and is looked at if it has not seen all of them."""
    if node.awaits is None:
        return []
    topic = records.get((NO_RUN, node.awaits.topic))
    if not isinstance(topic, Topic) or node.key not in topic.waiters:
        return [f"it waits for {node.awaits.topic}, which does not know of it"]
    return [] if node.awaits.seen >= topic.last or node.due_at_ms is not None else ["nobody will look at an event"]


def _claim(claim: Claim, records: Mapping[Key, Record]) -> list[str]:
    """Holders are active, waiters are HELD, and each sharer shares with a holder or a waiter (I6)."""
    broken = []
    for key in claim.holders:
        holder = records.get(key)
        if not isinstance(holder, Node) or claim.key not in (holder.claim, holder.slot):
            broken.append(f"{key} does not hold it")
        elif claim.finished != (holder.state in FINAL):
            broken.append(f"{key} is {holder.state}, the claim is {'finished' if claim.finished else 'not finished'}")
        elif claim.key == holder.slot and holder.state == HELD:
            broken.append(f"{key} takes a place and does not run")
    if claim.finished and claim.until_ms is None:
        broken.append("its holder has ended and there is no window")
    for key in (*claim.waiters, *(one.node for one in claim.sharers)):
        waiter = records.get(key)
        if not isinstance(waiter, Node) or waiter.state != HELD:
            broken.append(f"{key} does not wait for it")
    for one in claim.sharers:
        if one.of not in claim.waiters and (claim.finished or one.of not in claim.holders):
            broken.append(f"{one.node} shares the outcome of {one.of}, which has no part in it")
    return broken


def _kept_by_claims(node: Node, limited: bool, records: Mapping[Key, Record]) -> list[str]:
    """A HELD node is listed in a claim or has a timer; an active one holds its keys."""
    slot, claim = (records.get((NO_RUN, key or "")) for key in (node.slot, node.claim))
    if node.state != HELD:
        placed = not limited or (isinstance(slot, Claim) and node.key in slot.holders)
        broken = [] if placed else ["it goes on without a place under its concurrency key"]
        if node.tally is None and node.claim is not None and not _is_held_by(node.key, claim):
            broken.append("it goes on and does not hold its unique key")
        return broken
    waits = isinstance(slot, Claim) and node.key in slot.waiters
    if isinstance(claim, Claim):
        waits = waits or node.key in claim.waiters or any(one.node == node.key for one in claim.sharers)
    known = waits or (node.at_ms and node.due_at_ms is not None)
    return [] if known else [f"it waits for {node.slot or node.claim!r}, which does not know of it"]


def _is_held_by(key: Key, claim: Record | None) -> bool:
    return isinstance(claim, Claim) and key in claim.holders and not claim.finished


def _going_on(node: Node, records: Mapping[Key, Record], shapes: Mapping[str, Shape]) -> list[str]:
    broken = _below_stopped(node, records, shapes)
    shape = shapes[node.plan]
    plan = shape.nodes[node.node]
    if isinstance(plan, LeafPlan):
        limit = shape.plan.options[plan.options].max_retries
        if node.attempt > limit:
            broken.append(f"attempt {node.attempt} (I5: the first is 0) with {limit} retries allowed")
        if node.losses >= shape.plan.options[plan.options].max_deliveries:
            broken.append(f"it goes on after {node.losses} losses")
        limited = shape.plan.options[plan.options].concurrency is not None
        broken += _kept_by_claims(node, limited, records)
    elif not isinstance(plan, ScopePlan):
        broken += _woken(node, records)
    elif node.tally is None or node.state == HELD:
        broken += _kept_by_claims(node, False, records)
    else:
        early = _early(node, plan, node.tally, shape)
        if early:
            broken.append(f"its members {early} were opened before those that they wait for had ended")
        elif node.tally.complete and not node.handling:
            broken.append("it stays open although every member has ended")
        window = window_of(plan, node.bound)
        if rules_of(plan).repeats and not node.extra and node.tally.open.bit_count() > window:
            broken.append(f"{node.tally.open.bit_count()} members are open at once, its window is {window}")
    return broken


def _below_stopped(node: Node, records: Mapping[Key, Record], shapes: Mapping[str, Shape]) -> list[str]:
    """I12. A hook is below its scope by path only: it begins after the members have ended. A stop does not reach steps
    with `run_on: always`."""
    broken: list[str] = []
    below = node
    while below.path and isinstance(scope := records.get((below.run, parent_path(below.path))), Node):
        name = scope.path or "its run"
        if scope.state in FINAL:
            broken.append(f"it is {node.state} although {name} has ended")
        if below.index < 0 or node.handling or is_spared(below, scope, shapes):
            break
        if scope.state == STOPPING and node.state != STOPPING:
            broken.append(f"it is {node.state} although {name} is stopping")
        if scope.state == STOPPING and scope.kill and not node.kill:
            broken.append(f"it was not notified that {name} was cancelled")
        below = scope
    return broken


def is_spared(node: Node, scope: Node, shapes: Mapping[str, Shape]) -> bool:
    """Whether a stop of `scope` does not reach its member `node`."""
    shape = shapes[scope.plan]
    plan = shape.nodes[scope.node]
    if node.index < 0 or not isinstance(plan, ScopePlan):
        return False
    return bool(rules_of(plan).spared(shape, scope.node) >> node.index & 1)


def _early(scope: Node, plan: ScopePlan, tally: Tally, shape: Shape) -> list[int]:
    """Members that were opened before their predecessors had ended (I11)."""
    waits = rules_of(plan).waits(shape, scope.node, tally.size)
    return sorted({later for earlier, later in waits if tally.opened >> later & 1 and not tally.ended >> earlier & 1})


__all__ = ["check_claims", "check_standing", "is_spared"]
