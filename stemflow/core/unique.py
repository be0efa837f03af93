"""Unique keys: what happens to a call whose key is taken, by mode."""

from __future__ import annotations

from typing import NamedTuple

from stemflow.core import claims
from stemflow.core.ending import finish
from stemflow.core.fire import fire
from stemflow.core.members import bits
from stemflow.core.work import Work
from stemflow.model.effects import GateError, Reply
from stemflow.model.plan import AnyPlan, LeafPlan, ScopePlan
from stemflow.model.records import (
    CANCELLED,
    HELD,
    READY,
    RUNNING,
    SKIPPED,
    STOPPING,
    SUCCEEDED,
    Claim,
    ClaimSpec,
    ErrorInfo,
    Header,
    Key,
    Node,
    is_below,
)


class Newer(NamedTuple):
    """What a debounced call passes on to a waiting call: its arguments, and a later start."""

    inputs: tuple[str, bytes] | None
    stand_in: Key | None
    at_ms: int


def terms_of(w: Work, node: Node) -> ClaimSpec | None:
    """How `node` claims a unique key, or None if it has none. For a member, the key itself is empty."""
    if not node.path:
        return w.header(node.run).claim
    shape = w.shape(node.plan)
    plan = shape.nodes[node.node]
    if not isinstance(plan, LeafPlan):
        return None
    options = shape.plan.options[plan.options]
    return ClaimSpec("", options.unique_mode, options.unique_for_ms) if options.unique else None


def window_ms(terms: ClaimSpec) -> int | None:
    """How long the key stays taken, in milliseconds; None: until the end of the call. For `debounce`, `for_ms` is the
    quiet period instead."""
    return None if terms.mode == "debounce" else terms.for_ms


def start_at_ms(now_ms: int, plan: AnyPlan, terms: ClaimSpec | None) -> int:
    """The earliest start of a call that arrives now, in epoch milliseconds; 0: at once."""
    delay_ms, eta_at_ms = (plan.delay_ms, plan.eta_at_ms or 0) if isinstance(plan, LeafPlan) else (0, 0)
    if terms is not None and terms.mode == "debounce":
        delay_ms = max(delay_ms, terms.for_ms or 0)
    return max(now_ms + delay_ms if delay_ms else 0, eta_at_ms)


# -- submissions


def answer_submission(w: Work, header: Header, asked: ClaimSpec) -> Reply | None:
    """The reply to a submission that creates no run, because another run holds its key; None if a run is created."""
    claim = claims.find(w, asked.key)
    if claim is None or (asked.mode == "take" and claim.finished and not claim.waiters):
        return None
    if asked.mode == "take":
        holder = claim.waiters[0] if claim.finished else claim.holders[0]
    elif (answering := _answering(w, claim)) is None:
        return None
    else:
        holder = answering
    if asked.mode in ("take", "reject"):
        _count(w, asked.key)
        return Reply("refused", holder[0])
    if asked.mode == "return_existing" and not holder[1]:
        _count(w, asked.key)
        return Reply("existing", holder[0])
    target = _not_started(w, claim) if asked.mode == "debounce" else None
    plan = w.shape(header.plan).nodes[0]
    if target is None or target.path or target.tally is not None:
        return None
    if not isinstance(plan, LeafPlan) and not _same_terms(w, target, header):
        return None
    _count(w, asked.key)
    fire(w, target, "debounced", Newer((header.run, header.inputs), None, start_at_ms(w.now_ms, plan, asked)))
    return Reply("existing", target.run)


def _answering(w: Work, claim: Claim) -> Key | None:
    """The call that answers for the key: its holder or, where that is stopping, the one whose turn is next, if any.

    A holder that is stopping will have no result, so a new call waits for its end and runs.
    """
    holder = claim.holders[0]
    node = None if claim.finished else w.node(holder)
    if node is None or node.state != STOPPING:
        return holder
    return claim.waiters[0] if claim.waiters else None


def _same_terms(w: Work, target: Node, header: Header) -> bool:
    """Whether the inputs of a later run fit the plan of an earlier one, which may take them over."""
    claim = w.header(target.run).claim
    return target.plan == header.plan and claim is not None and claim.mode == "debounce"


def holder_of(w: Work, key: str) -> str | None:
    """The id of the run or task that holds the key."""
    claim = claims.find(w, key)
    return None if claim is None else "/".join(claim.holders[0]).rstrip("/")


def _count(w: Work, key: str) -> None:
    claims.edit(w, key).duplicates += 1


# -- opened nodes


def contend(w: Work, node: Node, terms: ClaimSpec) -> bool | GateError:
    """Claim the key for `node`. True: `node` holds it. False: `node` waits, or has ended. An error: it is refused."""
    key = terms.key or w.gate(node.key, "unique")
    if isinstance(key, GateError):
        return key
    node.claim = key
    claim = claims.find(w, key)
    if claim is None or (claim.finished and not claim.waiters and terms.mode in ("take", "debounce")):
        claims.take(w, key, node.key, window_ms(terms))
        return True
    _count(w, key)
    mode, holder = terms.mode, claim.holders[0]
    below = is_below(node.key, holder)
    answering = holder if below else _answering(w, claim)
    if answering is None:
        return _wait_in_line(w, node, key)
    if mode == "reject" or below:
        node.claim = None
        text = f"the unique key of this task is held by {'/'.join(answering).rstrip('/')}"
        return GateError(ErrorInfo("Duplicate", text, "stemflow.Duplicate"))
    if mode == "skip":
        node.claim = None
        finish(w, node, SKIPPED, cause="condition")
        return False
    if mode == "return_existing":
        return _share(w, node, claim, answering)
    return _last_wins(w, node, claim, terms)


def _share(w: Work, node: Node, claim: Claim, holder: Key) -> bool:
    if not claim.finished:
        node.state = HELD
        claims.share(w, claim.key, node.key, holder)
        return False
    share_outcome(w, node, w.known(holder, claim.key))
    return False


def share_outcome(w: Work, node: Node, other: Node) -> None:
    """End with the outcome of another node. The value of a composite is not copied, but referred to by `alias`."""
    node.alias, node.claim = other.alias or other.key, None
    if other.tally is None and other.state == SUCCEEDED:
        node.result = other.result or b"null"
    elif other.tally is None:
        node.error = other.error
    finish(w, node, other.state, cause=other.cause)


def _last_wins(w: Work, node: Node, claim: Claim, terms: ClaimSpec) -> bool:
    """Let the newest call run: instead of a call that has not started, else after the running one."""
    key = claim.key
    target = _not_started(w, claim) if terms.mode == "debounce" else None
    if target is not None and target.tally is None and isinstance(w.plan_of(target), LeafPlan):
        at_ms = start_at_ms(w.now_ms, w.plan_of(node), terms)
        fire(w, target, "debounced", Newer(None, node.key, at_ms))
        node.state = HELD
        claims.share(w, key, node.key, target.key)
        return False
    holder = None if terms.mode == "keep_last" else _unstarted_holder(w, claim)
    if holder is not None:
        for displaced in claims.supplant(w, key, node.key, window_ms(terms), runs=holder.tally is None):
            fire(w, w.known(displaced, key), "displaced", None)
        return True
    return _wait_in_line(w, node, key)


def _wait_in_line(w: Work, node: Node, key: str) -> bool:
    """Let the call be the next to run, in place of one that waited for that."""
    before = claims.line_up(w, key, node.key)
    if before is not None:
        fire(w, w.known(before, key), "displaced", None)
    node.state = HELD
    claim = w.claim(key)
    assert claim is not None
    claims.await_turn(w, claim, node)
    return False


def _not_started(w: Work, claim: Claim) -> Node | None:
    """The call that will run next: the waiter, else a holder that has not started."""
    return w.node(claim.waiters[0]) if claim.waiters else _unstarted_holder(w, claim)


def _unstarted_holder(w: Work, claim: Claim) -> Node | None:
    holder = None if claim.finished else w.node(claim.holders[0])
    return None if holder is None or _has_started(w, holder) else holder


def _has_started(w: Work, node: Node) -> bool:
    """Whether a task of it was ever leased, or it did something that cannot be undone unnoticed: a timer, a hook."""
    if node.tally is None:
        return node.delivery > node.base or node.state not in (HELD, READY) or not isinstance(
            w.plan_of(node), (LeafPlan, ScopePlan)
        )
    if node.delivery > node.base or node.state != RUNNING or node.handling or node.tally.ended:
        return True
    keys = [w.member(node, index)[0] for index in bits(node.tally.open)]
    w.want(keys)
    below = [found for key in keys if (found := w.node(key)) is not None]
    return any(_hooked(w, one) or _has_started(w, one) for one in below)


def _hooked(w: Work, node: Node) -> bool:
    plan = w.plan_of(node)
    return isinstance(plan, ScopePlan) and (
        plan.cleanup is not None or any(hook.state == CANCELLED for hook in plan.hooks)
    )
