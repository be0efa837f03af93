"""Actions of the `leaf` and `wait` rows of the transition table: what happens to a task and to a timer."""

from __future__ import annotations

from typing import Any

from stemflow.core import admission as entry
from stemflow.core import journal
from stemflow.core.backoff import delay_ms
from stemflow.core.ending import finish, leave_dead_letter
from stemflow.core.fan_in import join_fan_in
from stemflow.core.rates import limits_of
from stemflow.core.timer import expiry_ms
from stemflow.core.work import Work
from stemflow.model.effects import DeadLetter, GateError
from stemflow.model.facts import Ended, Failed, HandedBack, Lost, Ok
from stemflow.model.plan import LeafPlan, WaitPlan
from stemflow.model.policy import Options
from stemflow.model.records import (
    CANCELLED,
    FAILED,
    HELD,
    READY,
    RUNNING,
    SELF,
    SKIPPED,
    STOPPING,
    SUCCEEDED,
    ErrorInfo,
    Node,
    child_path,
    is_below,
)


def options_of(w: Work, node: Node, leaf: LeafPlan) -> Options:
    return w.shape(node.plan).plan.options[leaf.options]


def open_leaf(w: Work, node: Node, refusal: GateError | None) -> None:
    """READY at once, unless its `when` failed, its outcome is already known (a rerun, an undo), or its unique key is
    held."""
    if refusal is not None:
        return refuse(w, node, refusal)
    leaf = w.leaf_of(node)
    if leaf.undo:
        done = w.node((node.run, undone_path(node.path)))
        if done is None or done.state != SUCCEEDED:
            return finish(w, node, SKIPPED, cause="condition")
    elif (kept := kept_result(w, node)) is not None:
        node.result = kept.result
        return finish(w, node, SUCCEEDED)
    _proceed(w, node, entry.opened(w, node))


def _proceed(w: Work, node: Node, answer: entry.Answer) -> None:
    if answer is True:
        shape = w.shape(node.plan)
        leaf = shape.nodes[node.node]
        assert isinstance(leaf, LeafPlan)
        answer = place(w, node, leaf, shape.plan.options[leaf.options])
    if isinstance(answer, GateError):
        refuse(w, node, answer)


def refuse(w: Work, node: Node, refusal: GateError) -> None:
    """FAILED because an expression failed."""
    leave_dead_letter(w, node, refusal)
    journal.keep_error(node)
    node.error = refusal.error
    finish(w, node, FAILED)


def place(w: Work, node: Node, leaf: LeafPlan, options: Options) -> entry.Answer:
    """Make the node READY in the queue of its options, not before its `at_ms`. Its rate limits are evaluated the first
    time."""
    if not node.limits and (options.rate_limits or options.group_rates):
        limits = limits_of(w, node, leaf, options)
        if isinstance(limits, GateError):
            return limits
        node.limits = limits
    node.state, node.turn = READY, w.next_turn(node)
    node.queue, node.priority, node.lease_ms = options.queue, options.priority, options.lease_ms
    node.due_at_ms = None if options.expires_ms is None else expiry_ms(w, node)
    return True


def undone_path(path: str) -> str:
    """The path of the node that the undo node at `path` undoes."""
    prefix, _, rest = path.rpartition("!undo")
    rest = rest.removeprefix(".")
    rest = "" if rest == SELF else rest.removesuffix(f".{SELF}")
    return child_path(prefix, rest) if rest else prefix


def kept_result(w: Work, node: Node) -> Node | None:
    """The result that a rerun keeps from the run that it repeats, or None."""
    header = w.header(node.run)
    if header.rerun_of is None or "!" in node.path:
        return None
    if any(is_below(node.key, (node.run, path)) for path in header.redo):
        return None
    old, undo = (header.rerun_of, node.path), (header.rerun_of, child_path("!undo", node.path))
    w.want((old, undo))
    before, undone = w.node(old), w.node(undo)
    if before is None or before.state != SUCCEEDED or before.tally is not None or before.alias is not None:
        return None
    if (before.plan, before.node) != (node.plan, node.node):
        return None
    return None if undone is not None and undone.state == SUCCEEDED else before


def go_on(w: Work, node: Node, key: str) -> None:
    """It has got one of its keys."""
    _proceed(w, node, entry.granted(w, node, key))


def wake(w: Work, node: Node, _: object) -> None:
    """Its timer is due: it has expired, or its start time has come."""
    expiry, now_ms = expiry_ms(w, node), node.due_at_ms
    if expiry is not None and now_ms is not None and now_ms >= expiry:
        return expire(w, node, None)
    _proceed(w, node, entry.due(w, node))


def expire(w: Work, node: Node, _: object) -> None:
    node.error = ErrorInfo("Expired", "it was not started before it expired", "stemflow.Expired")
    _fail_for_good(w, node, "expired")


def succeed(w: Work, node: Node, fact: Ended) -> None:
    """SUCCEEDED. Members that it added to its fan-in join in the same commit, unless it was stopped."""
    assert isinstance(fact.outcome, Ok)
    if fact.outcome.added and node.state == RUNNING:
        join_fan_in(w, node, fact.outcome.added)
    if node.path or not options_of(w, node, w.leaf_of(node)).ignore_result:
        node.result = fact.outcome.result
    _started(node, fact)
    finish(w, node, SUCCEEDED)


def ignore(w: Work, node: Node, fact: Ended) -> None:
    _started(node, fact)
    finish(w, node, SKIPPED, cause="condition")


def fail(w: Work, node: Node, fact: Ended) -> None:
    """Retry after a delay if attempts are left, else FAILED with a dead letter."""
    failed = fact.outcome
    assert isinstance(failed, Failed)
    _started(node, fact)
    node.error = failed.error
    delay = _retry_in(w, node, failed)
    if delay is None:
        return _fail_for_good(w, node, failed.dead)
    node.attempt += 1
    if failed.rule is not None:
        used = _used(node, options_of(w, node, w.leaf_of(node)))
        node.retries = tuple(count + (rule == failed.rule) for rule, count in enumerate(used))
    _proceed(w, node, entry.again(w, node, w.now_ms + delay))


def _retry_in(w: Work, node: Node, failed: Failed) -> int | None:
    options = options_of(w, node, w.leaf_of(node))
    allowed = options.max_retries if failed.max_retries is None else failed.max_retries
    if failed.verdict == "final" or node.attempt >= allowed:
        return None
    policy, attempt = failed.retry or options.retry, node.attempt
    if failed.rule is not None:
        policy = options.retry.rules[failed.rule]
        attempt = _used(node, options)[failed.rule]
        if attempt >= (policy.max_retries or 0):
            return None
    delay = failed.after_ms
    if failed.eta_at_ms is not None:
        delay = max(0, failed.eta_at_ms - w.now_ms)
    elif delay is None:
        delay = delay_ms(policy, node.run, node.path, attempt)
    budget = policy.budget_ms
    return None if budget is not None and w.now_ms + delay > node.opened_at_ms + budget else delay


def _used(node: Node, options: Options) -> tuple[int, ...]:
    """How many retries each rule of a policy that is a list has used."""
    return node.retries or (0,) * len(options.retry.rules)


def _fail_for_good(w: Work, node: Node, reason: str) -> None:
    task, attempts = w.leaf_of(node).task, node.attempt + (node.state != READY)
    w.dead.append(DeadLetter(node.run, node.path, task, reason, w.now_ms, node.error, node.queue, attempts))
    finish(w, node, FAILED)


def fail_stopped(w: Work, node: Node, fact: Ended) -> None:
    """A stopped task failed: FAILED if it was stopped because a sibling failed, CANCELLED if it was cancelled."""
    _started(node, fact)
    if node.kill:
        return cancel(w, node, fact)
    assert isinstance(fact.outcome, Failed)
    node.error = fact.outcome.error
    _fail_for_good(w, node, fact.outcome.dead)


def hand_back(w: Work, node: Node, fact: Ended) -> None:
    assert isinstance(fact.outcome, HandedBack)
    after_ms = fact.outcome.after_ms
    _proceed(w, node, entry.again(w, node, w.now_ms + after_ms if after_ms else 0))


def lose(w: Work, node: Node, fact: Lost) -> None:
    """A lost lease: deliver the same attempt again, up to `max_deliveries` losses."""
    options = options_of(w, node, w.leaf_of(node))
    node.losses += 1
    last = f"; the last time {fact.how}" if fact.how else ""
    if not options.acks_late:
        node.error = ErrorInfo("Lost", f"its worker died and it may run at most once{last}", "stemflow.Lost")
        return _fail_for_good(w, node, "lost")
    if node.losses >= options.max_deliveries:
        text = f"its worker died {node.losses} times while running it{last}"
        node.error = ErrorInfo("Poison", text, "stemflow.Poison")
        return _fail_for_good(w, node, "poison")
    _proceed(w, node, entry.again(w, node, 0))


def tell(w: Work, node: Node, kill: bool) -> None:
    node.state, node.kill = STOPPING, node.kill or kill


def cancel(w: Work, node: Node, fact: Ended | Lost | bool | None) -> None:
    """CANCELLED; an attempt that runs has ended with `fact`, or is given up."""
    if node.state in (RUNNING, STOPPING) and not isinstance(fact, (Ended, Lost)):
        journal.note_cut(w, node)
    finish(w, node, CANCELLED)


def lease(w: Work, node: Node, _: object) -> None:
    """The one action that stores execute themselves; it is defined here because the store contract compares them with
    it."""
    node.state, node.delivery = RUNNING, node.delivery + 1


def open_wait(w: Work, node: Node, refusal: GateError | None) -> None:
    if refusal is not None:
        return refuse(w, node, refusal)
    plan = w.plan_of(node)
    assert isinstance(plan, WaitPlan)
    due_at_ms: Any = w.now_ms + plan.for_ms
    if plan.until is not None:
        due_at_ms = w.gate(node.key, "until")
    elif plan.span is not None:
        span_ms = w.gate(node.key, "span")
        due_at_ms = span_ms if isinstance(span_ms, GateError) else w.now_ms + span_ms
    if isinstance(due_at_ms, GateError):
        return refuse(w, node, due_at_ms)
    node.state, node.due_at_ms = HELD, due_at_ms


def elapse(w: Work, node: Node, _: object) -> None:
    finish(w, node, SUCCEEDED)


def _started(node: Node, fact: Ended) -> None:
    if fact.started_at_ms:
        node.started_at_ms = fact.started_at_ms
