"""Actions of the `scope` rows of the transition table: opening, ends of members, stopping, hooks, closing."""

from __future__ import annotations

from typing import Any

from stemflow.core import admission as entry
from stemflow.core import follow_ups
from stemflow.core.ending import finish, how_ended, leave, leave_dead_letter
from stemflow.core.fire import fire
from stemflow.core.kinds import KINDS, rules_of
from stemflow.core.leaf import undone_path
from stemflow.core.members import (
    advance,
    cancel_unopened,
    open_below,
    open_members,
    open_released,
    skip_members,
    stop_members,
    tally_of,
)
from stemflow.core.work import MemberEnd, Work
from stemflow.model.effects import Frozen, GateError, GateName, Pages
from stemflow.model.facts import Ended, Replaced
from stemflow.model.plan import ScopePlan
from stemflow.model.records import (
    CANCELLED,
    FAILED,
    RUNNING,
    SKIPPED,
    STOPPING,
    SUCCEEDED,
    Cause,
    ErrorInfo,
    Key,
    Node,
    State,
    Tally,
)

UNDO = "undo"
"""The name of the handler that compensates."""


def open_scope(w: Work, scope: Node, refusal: GateError | None) -> None:
    """Begin once it has its keys, unless its `when` failed."""
    _proceed(w, scope, refusal or entry.opened(w, scope))


def _proceed(w: Work, scope: Node, answer: entry.Answer) -> None:
    if isinstance(answer, GateError):
        _begin(w, scope, answer)
    elif answer:
        _begin(w, scope, None)


def go_on(w: Work, scope: Node, key: str) -> None:
    """It has got one of its keys."""
    _proceed(w, scope, entry.granted(w, scope, key))


def wake(w: Work, scope: Node, _: object) -> None:
    """Its timer is due."""
    _proceed(w, scope, entry.due(w, scope))


def _begin(w: Work, scope: Node, refusal: GateError | None) -> None:
    """Open the members without predecessors."""
    plan = w.scope_of(scope)
    rules = rules_of(plan)
    scope.state, scope.at_ms, scope.due_at_ms = RUNNING, 0, None
    answer: Any
    if plan.undo and refusal is None and _has_undone_itself(w, scope):
        return finish(w, scope, SKIPPED, cause="condition")
    if rules.repeats and plan.undo and refusal is None:
        answer = _undone_size(w, scope)
        if answer is None:
            return finish(w, scope, SKIPPED, cause="condition")
    else:
        answer = refusal or _answer(w, scope, rules.gate(plan))
    timeout_ms = plan.timeout_ms
    if plan.timeout is not None and not isinstance(answer, GateError):
        timeout_ms = w.gate(scope.key, "timeout")
        answer = timeout_ms if isinstance(timeout_ms, GateError) else answer
    if isinstance(answer, GateError):
        leave_dead_letter(w, scope, answer)
        scope.tally, scope.error, scope.failed_at = Tally(0), answer.error, scope.path
        return close(w, scope, plan, FAILED, None)
    opening = rules.opening(w.shape(scope.plan), scope.node, answer)
    scope.tally, scope.result, scope.bound = Tally(opening.size), opening.result, opening.bound
    if timeout_ms is not None:
        scope.due_at_ms = w.now_ms + timeout_ms
    if opening.skipped:
        skip_members(w, scope, opening.skipped, "skipped")
    verdict = rules.settle(plan, tally_of(scope), False)
    if verdict.move == "stop":  # a quorum of more members than there are: nothing is opened for it
        cancel_unopened(w, scope)
        return close(w, scope, plan, verdict.state, verdict.cause)
    open_members(w, scope, opening.first)
    settle_scope(w, scope, plan)


def _answer(w: Work, scope: Node, gate: GateName | None) -> Any:
    """The value of the gate of its kind. Items of a map are stored in pages."""
    answer = None if gate is None else w.gate(scope.key, gate)
    if isinstance(answer, Frozen) and answer.size is not None:
        w.pages.append(Pages(scope.key, answer.pages))
    return answer


def _has_undone_itself(w: Work, scope: Node) -> bool:
    """Whether the scope that it undoes is a sub-workflow whose own compensation has run."""
    done = w.node((scope.run, undone_path(scope.path)))
    if done is None or done.tally is None:
        return False
    return any(hook.name == UNDO and hook.state == done.state for hook in w.scope_of(done).hooks)


def _undone_size(w: Work, scope: Node) -> int | None:
    """The number of members of the scope that it undoes; None if there is nothing to undo."""
    done = w.node((scope.run, undone_path(scope.path)))
    return None if done is None or done.tally is None else done.tally.size


def tick(w: Work, scope: Node, end: MemberEnd) -> None:
    """A member ended: set its bit, open its successors, and settle. Or a follow-up ended: run the next one."""
    tally, plan = tally_of(scope), w.scope_of(scope)
    if end.index < 0:
        return follow_ups.ended(w, scope, plan, end)
    if scope.handling or not tally.tick(end.index, end.how):
        return
    if end.how == "failed":
        _note_failure(w, scope, plan, end)
    if scope.state == RUNNING:
        advance(w, scope, plan, end.index, end.how)
    elif scope.state == STOPPING:
        open_released(w, scope, plan)
    settle_scope(w, scope, plan)


def _note_failure(w: Work, scope: Node, plan: ScopePlan, end: MemberEnd) -> None:
    """Record the first failure that counts."""
    if end.how == "failed" and scope.failed_at is None:
        _, digest, place = w.member(scope, end.index)
        if rules_of(plan).counts(plan, tally_of(scope), w.shape(digest).nodes[place], end.index):
            scope.failed_at = end.failed_at


def settle_scope(w: Work, scope: Node, plan: ScopePlan) -> None:
    """Wait for more members, stop the rest, or close. A member whose end is still queued counts as open."""
    if scope.handling or scope.state not in (RUNNING, STOPPING):
        return
    rules, tally = KINDS[plan.kind], tally_of(scope)
    if scope.state == RUNNING:
        verdict = rules.settle(plan, tally, scope.failed_at is not None)
        if verdict.move == "stop":
            _note_winner(w, scope, plan)
            stop(w, scope, verdict.state, kill=verdict.kill)
        elif verdict.move == "close":
            close(w, scope, plan, verdict.state, verdict.cause)
    elif not tally.open:
        state, cause = rules.natural(plan, tally, scope.failed_at is not None)
        if scope.verdict is not None:
            state, cause = scope.verdict, None
        close(w, scope, plan, state, cause)


def close(w: Work, scope: Node, plan: ScopePlan, state: State, cause: Cause | None) -> None:
    """Evaluate the value, run the follow-ups for `state`, then become final. The scope's timer is cleared."""
    if plan.completion is not None:
        _complete(w, scope, plan, state)
    if state == SUCCEEDED:
        state = _value(w, scope, plan)
    scope.verdict, scope.cause, scope.due_at_ms = state, cause, None
    follow_ups.begin(w, scope, plan)


def _value(w: Work, scope: Node, plan: ScopePlan) -> State:
    """Keep the value that an expression gives; FAILED if it cannot be evaluated, or the value does not fit."""
    before, answer = scope.result, None
    if plan.value is not None:
        answer = w.gate(scope.key, "value")
        scope.result = before if isinstance(answer, GateError) else answer
    if plan.returns is not None and not isinstance(answer, GateError):
        answer = w.gate(scope.key, "returns")
    if not isinstance(answer, GateError):
        return SUCCEEDED
    leave_dead_letter(w, scope, answer)
    scope.result, scope.error, scope.failed_at = before, answer.error, scope.path
    return FAILED


def _complete(w: Work, scope: Node, plan: ScopePlan, state: State) -> None:
    """The error of a scope in which too few members succeeded; the winner of a race, whose value it shares."""
    rules, tally = rules_of(plan), tally_of(scope)
    if state == FAILED and scope.failed_at is None:
        scope.error, scope.failed_at = rules.missed(plan, tally), scope.path
    elif state == SUCCEEDED:
        _note_winner(w, scope, plan)


def _note_winner(w: Work, scope: Node, plan: ScopePlan) -> None:
    if plan.completion is not None and plan.completion.race and scope.alias is None:
        winner = rules_of(plan).taken(tally_of(scope))
        scope.alias = None if winner is None else w.member(scope, winner)[0]


def stop(w: Work, scope: Node, verdict: State | None, *, kill: bool) -> None:
    """Stop members that have not started, and ask running ones to stop; steps with `run_on: always` run nevertheless.
    The scope closes when nothing below it is open."""
    plan = w.scope_of(scope)
    spared = rules_of(plan).spared(w.shape(scope.plan), scope.node)
    scope.state, scope.kill = STOPPING, scope.kill or kill
    if verdict is not None and scope.verdict is None:
        scope.verdict = verdict
    cancel_unopened(w, scope, spared)
    stop_members(w, scope, kill, spared)
    open_released(w, scope, plan)
    settle_scope(w, scope, plan)


def stop_scope(w: Work, scope: Node, kill: bool) -> None:
    """Stopped by its parent, or by a cancel of the run. A scope whose hooks or cleanup run ends by itself."""
    scope.stopped = True
    if scope.handling:
        follow_ups.stop_catch(w, scope, w.scope_of(scope), kill)
    else:
        stop(w, scope, CANCELLED if kill and not scope.path else None, kill=kill)


def stop_held(w: Work, scope: Node, kill: bool) -> None:
    """A waiting scope has no members to stop. It leaves the queues of its keys before its hooks run."""
    scope.state, scope.kill, scope.stopped = STOPPING, kill, True
    scope.tally = scope.tally or Tally(0)
    leave(w, scope)
    close(w, scope, w.scope_of(scope), CANCELLED, None)


def cut(w: Work, scope: Node, _: object) -> None:
    """End the scope and everything open below it now. Nothing is waited for, opened or evaluated.

    A verdict that was reached before stays: hooks and compensation, which are cut off here, never change it.
    """
    plan = w.scope_of(scope)
    scope.tally = scope.tally or Tally(0)
    if scope.handling:
        for follow_up in follow_ups.running(w, scope, plan):
            fire(w, follow_up, "forced", None)
    else:
        scope.kill = True
        cancel_unopened(w, scope)
        for member in open_below(w, scope):
            fire(w, member, "forced", None)
            _end_cut_member(w, scope, plan, member.key)
        failed = scope.failed_at is not None and scope.path
        scope.verdict = scope.verdict or (FAILED if failed else CANCELLED)
    assert scope.verdict is not None
    finish(w, scope, scope.verdict, cause=scope.cause)


def _end_cut_member(w: Work, scope: Node, plan: ScopePlan, key: Key) -> None:
    """Set the bit of a member that was cut off, since the scope becomes final before the queued end is processed."""
    member = w.node(key)
    assert member is not None
    end = MemberEnd(scope.key, member.index, how_ended(member), member.failed_at)
    tally_of(scope).tick(end.index, end.how)
    _note_failure(w, scope, plan, end)


def displace(w: Work, scope: Node, _: object) -> None:
    """A newer run takes its place, and this one shares its outcome. Its open members, which have not started, are
    withdrawn."""
    entry.displace(w, scope, None)
    if scope.tally is not None:
        cancel_unopened(w, scope)
        stop_members(w, scope, True)


def time_out(w: Work, scope: Node, _: object) -> None:
    plan = w.scope_of(scope)
    text = f"it did not end within {plan.timeout_ms} ms" if plan.timeout is None else "it did not end in its time"
    scope.error = ErrorInfo("TaskTimeout", text, "stemflow.TaskTimeout")
    scope.failed_at, scope.due_at_ms = scope.path, None
    stop(w, scope, FAILED, kill=True)


def replace(w: Work, node: Node, fact: Ended) -> None:
    """The leaf is replaced by a sub-graph: its record becomes that of a scope."""
    assert isinstance(fact.outcome, Replaced)
    plan = fact.outcome.plan
    w.add_plan(node.run, plan)
    entry.leave_slot(w, node)
    node.plan, node.node, node.at_ms, node.due_at_ms, node.slot = plan.digest, 0, 0, None, None
    _proceed(w, node, entry.enter(w, node))
