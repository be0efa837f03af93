"""What a node waits for before it begins: its unique key, its start time, its concurrency key.

After each attempt of a task, start time and concurrency key are checked again.

An `Answer` is True when the node may go on now, False when it waits or has ended, an error when it is refused.
"""

from __future__ import annotations

from stemflow.core import claims, unique
from stemflow.core.timer import arm
from stemflow.core.work import StaleView, Work
from stemflow.model.effects import GateError
from stemflow.model.plan import LeafPlan, ScopePlan
from stemflow.model.policy import Concurrency
from stemflow.model.records import HELD, ClaimSpec, ErrorInfo, Node, is_below

Answer = bool | GateError


def opened(w: Work, node: Node) -> Answer:
    """It needs its unique key first."""
    terms = unique.terms_of(w, node)
    if terms is not None and (answer := unique.contend(w, node, terms)) is not True:
        return answer
    return _begin(w, node, terms)


def granted(w: Work, node: Node, key: str) -> Answer:
    """Its turn has come under one of its keys."""
    node.due_at_ms = None
    if key == node.slot:
        return True
    terms = unique.terms_of(w, node)
    if terms is None:
        raise StaleView(node.key, f"it to wait for the key {key}")
    claims.turn(w, key, node, unique.window_ms(terms))
    return _begin(w, node, terms)


def due(w: Work, node: Node) -> Answer:
    """The instant for which it waited has come: its own start, or the end of the window of another."""
    node.at_ms, node.due_at_ms = 0, None
    claim = None if node.claim is None else w.claim(node.claim)
    if claim is None or (node.key in claim.holders and not claim.finished):
        return enter(w, node)
    if claim.finished:
        return granted(w, node, claim.key)
    claims.edit(w, claim.key).until_ms = None
    arm(w, node)
    return False


def again(w: Work, node: Node, at_ms: int) -> Answer:
    """Another attempt, not before `at_ms`. Until then its place under its concurrency key is free for others."""
    node.at_ms, node.due_at_ms = at_ms, None
    leave_slot(w, node)
    return _start(w, node)


def debounce(w: Work, node: Node, newer: unique.Newer) -> None:
    """A later call gives it other arguments and a later start; one that waits for its turn keeps waiting."""
    if node.claim is None:
        raise StaleView(node.key, "it to hold a unique key")
    node.inputs, node.stand_in = newer.inputs, newer.stand_in
    claim = w.claim(node.claim)
    if claim is None or node.key not in claim.holders:
        return
    node.at_ms = newer.at_ms
    if _waits_in_its_queue(w, node):
        return
    leave_slot(w, node)
    node.state, node.slot, node.at_ms = HELD, None, max(newer.at_ms, w.now_ms)
    arm(w, node)


def displace(w: Work, node: Node, _: object) -> None:
    """A newer call runs instead, whose outcome it shares from now on."""
    leave_slot(w, node)
    node.state, node.slot, node.at_ms, node.due_at_ms = HELD, None, 0, None


def leave_slot(w: Work, node: Node) -> None:
    """Give up its place under its concurrency key, or in the queue for one."""
    if node.slot is not None:
        claims.leave(w, node.slot, node)


def enter(w: Work, node: Node) -> Answer:
    """Take a place under its concurrency key, or wait in order for one; a key that holds for a scope around it would
    never become free."""
    limited = concurrency_of(w, node)
    if limited is None:
        return True
    if node.slot is None:
        key = w.gate(node.key, "concurrency")
        if isinstance(key, GateError):
            return key
        node.slot = key
    claim = w.claim(node.slot)
    above = [one for one in claim.holders if is_below(node.key, one)] if claim is not None else []
    if above:
        text = f"its concurrency key is held by {'/'.join(above[0]).rstrip('/')}, in which it runs; give it another key"
        node.slot = None
        return GateError(ErrorInfo("SelfDeadlock", text, "stemflow.SelfDeadlock"))
    if claims.enter(w, node.slot, node.key, limited.limit):
        return True
    node.state = HELD
    arm(w, node)
    return False


def concurrency_of(w: Work, node: Node) -> Concurrency | None:
    shape = w.shape(node.plan)
    plan = shape.nodes[node.node]
    if isinstance(plan, LeafPlan):
        return shape.plan.options[plan.options].concurrency
    return plan.concurrency if isinstance(plan, ScopePlan) else None


def _begin(w: Work, node: Node, terms: ClaimSpec | None) -> Answer:
    plan = w.plan_of(node)
    earliest = w.header(node.run).not_before_ms if isinstance(plan, LeafPlan) else 0
    node.at_ms = max(earliest, unique.start_at_ms(w.now_ms, plan, terms))
    return _start(w, node)


def _start(w: Work, node: Node) -> Answer:
    """What needs a place asks for it when its start has come; a plain task waits for that in its queue."""
    if _waits_in_its_queue(w, node):
        return True
    if node.at_ms <= w.now_ms:
        node.at_ms = 0
        return enter(w, node)
    node.state = HELD
    arm(w, node)
    return False


def _waits_in_its_queue(w: Work, node: Node) -> bool:
    shape = w.shape(node.plan)
    plan = shape.nodes[node.node]
    return isinstance(plan, LeafPlan) and shape.plan.options[plan.options].concurrency is None
