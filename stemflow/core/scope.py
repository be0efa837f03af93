"""What happens to a scope: opening, hearing of its members' ends, stopping, running its handlers, closing."""

from __future__ import annotations

from typing import Any

from stemflow.core import admission as entry
from stemflow.core.ending import bury, finish, how_ended, leave
from stemflow.core.fire import fire
from stemflow.core.kinds import rules_of
from stemflow.core.leaf import undone_path
from stemflow.core.members import (
    advance,
    cancel_unopened,
    open_below,
    open_members,
    skip_members,
    stop_members,
    tally_of,
)
from stemflow.core.work import StaleView, Tick, Work
from stemflow.model.effects import Frozen, GateError, GateName, Pages
from stemflow.model.facts import Ended, Replaced
from stemflow.model.plan import Handler, ScopePlan
from stemflow.model.records import (
    CANCELLED,
    FAILED,
    FINAL,
    RUNNING,
    SKIPPED,
    STOPPING,
    SUCCEEDED,
    WAITING,
    Cause,
    ErrorInfo,
    Key,
    Node,
    State,
    Tally,
    child_path,
)


def open_scope(w: Work, scope: Node, refusal: GateError | None) -> None:
    """It begins once its keys are its own, unless its `when` failed."""
    _proceed(w, scope, refusal or entry.opened(w, scope))


def _proceed(w: Work, scope: Node, answer: entry.Answer) -> None:
    if isinstance(answer, GateError):
        _begin(w, scope, answer)
    elif answer:
        _begin(w, scope, None)


def go_on(w: Work, scope: Node, key: str) -> None:
    """Its turn has come under one of its keys."""
    _proceed(w, scope, entry.granted(w, scope, key))


def wake(w: Work, scope: Node, _: object) -> None:
    """The instant for which it waited has come."""
    _proceed(w, scope, entry.due(w, scope))


def _begin(w: Work, scope: Node, refusal: GateError | None) -> None:
    """Open the members that wait for nobody."""
    plan = w.scope_of(scope)
    rules = rules_of(plan)
    scope.state, scope.at_ms, scope.due_at_ms = RUNNING, 0, None
    answer: Any
    if rules.repeats and plan.undo and refusal is None:
        answer = _undone_size(w, scope)
        if answer is None:
            return finish(w, scope, SKIPPED, cause="condition")
    else:
        answer = refusal or _answer(w, scope, rules.gate(plan))
    if isinstance(answer, GateError):
        bury(w, scope, answer)
        scope.tally, scope.error, scope.failed_at = Tally(0), answer.error, scope.path
        return close(w, scope, plan, FAILED, None)
    opening = rules.opening(w.shape(scope.plan), scope.node, answer)
    scope.tally, scope.result = Tally(opening.size), opening.result
    if plan.timeout_ms is not None:
        scope.due_at_ms = w.now_ms + plan.timeout_ms
    if opening.skipped:
        skip_members(w, scope, opening.skipped, "skipped")
    open_members(w, scope, opening.first)
    settle_scope(w, scope, plan)


def _answer(w: Work, scope: Node, gate: GateName | None) -> Any:
    """The value of the gate of its kind; items are stored in pages, and the answer is their number."""
    answer = None if gate is None else w.gate(scope.key, gate)
    if isinstance(answer, Frozen):
        w.pages.append(Pages(scope.key, answer.pages))
        return answer.size
    return answer


def _undone_size(w: Work, scope: Node) -> int | None:
    """How many members the scope that it undoes has; None when there is nothing to undo."""
    done = w.node((scope.run, undone_path(scope.path)))
    return None if done is None or done.tally is None else done.tally.size


def tick(w: Work, scope: Node, news: Tick) -> None:
    """A member ended: turn its bit, open what that makes ready, and settle. Or a handler did: run the next."""
    tally, plan = tally_of(scope), w.scope_of(scope)
    if news.index < 0:
        return _end(w, scope, plan, -news.index)
    if scope.handling or not tally.tick(news.index, news.how):
        return
    _mind(w, scope, plan, news)
    if scope.state == RUNNING:
        advance(w, scope, plan, news.index, news.how)
    settle_scope(w, scope, plan)


def _mind(w: Work, scope: Node, plan: ScopePlan, news: Tick) -> None:
    """Note the first failure that the scope does not tolerate."""
    if news.how == "failed" and scope.failed_at is None:
        _, digest, place = w.member(scope, news.index)
        if not rules_of(plan).tolerates(plan, w.shape(digest).nodes[place], news.index):
            scope.failed_at = news.failed_at


def settle_scope(w: Work, scope: Node, plan: ScopePlan) -> None:
    """Stay, stop the rest, or close. A member whose end is not heard yet counts as open: its bit is not turned."""
    tally = tally_of(scope)
    if scope.handling or scope.state not in (RUNNING, STOPPING):
        return
    if scope.state == RUNNING:
        verdict = rules_of(plan).settle(plan, tally, scope.failed_at is not None)
        if verdict.move == "stop":
            stop(w, scope, verdict.state, kill=False)
        elif verdict.move == "close":
            close(w, scope, plan, verdict.state, verdict.cause)
    elif not tally.open:
        state, cause = rules_of(plan).natural(plan, tally, scope.failed_at is not None)
        if scope.verdict is not None:
            state, cause = scope.verdict, None
        close(w, scope, plan, state, cause)


def close(w: Work, scope: Node, plan: ScopePlan, state: State, cause: Cause | None) -> None:
    """Evaluate the value, then run the handlers for `state`, then be final. No timer runs any more."""
    if state == SUCCEEDED and plan.value is not None:
        value = w.gate(scope.key, "value")
        if isinstance(value, GateError):
            bury(w, scope, value)
            scope.error, scope.failed_at, state = value.error, scope.path, FAILED
        else:
            scope.result = value
    scope.verdict, scope.cause, scope.due_at_ms = state, cause, None
    _end(w, scope, plan, 0)


def _end(w: Work, scope: Node, plan: ScopePlan, first: int) -> None:
    """Open the first handler from `first` on that is for the verdict; with none left the scope is final."""
    if scope.verdict is None:
        raise StaleView(scope.key, "a verdict, for which its handlers run")
    for number in range(first, len(plan.handlers)):
        handler = plan.handlers[number]
        if handler.state == scope.verdict:
            scope.handling = True
            node = Node(
                run=scope.run,
                path=_handler_path(scope, handler),
                plan=scope.plan,
                node=handler.node,
                index=-1 - number,
                state=WAITING,
                opened_at_ms=w.now_ms,
            )
            fire(w, w.create(node), "opened", None)
            return
    finish(w, scope, scope.verdict, cause=scope.cause)


def _handler_path(scope: Node, handler: Handler) -> str:
    return child_path(scope.path, "!" + handler.name)


def stop(w: Work, scope: Node, verdict: State | None, *, kill: bool) -> None:
    """Stop what has not started, tell what runs; the scope closes when nothing below it is open."""
    scope.state, scope.kill = STOPPING, scope.kill or kill
    if verdict is not None and scope.verdict is None:
        scope.verdict = verdict
    cancel_unopened(w, scope)
    stop_members(w, scope, kill)
    settle_scope(w, scope, w.scope_of(scope))


def stop_scope(w: Work, scope: Node, kill: bool) -> None:
    """Told from above, or asked to cancel at the root. A scope that is running its handler ends by itself."""
    if not scope.handling:
        stop(w, scope, CANCELLED if kill and not scope.path else None, kill=kill)


def stop_held(w: Work, scope: Node, kill: bool) -> None:
    """One that waits has no members to stop; it leaves the queues of its keys before its handlers run."""
    scope.state, scope.kill = STOPPING, kill
    scope.tally = scope.tally or Tally(0)
    leave(w, scope)
    close(w, scope, w.scope_of(scope), CANCELLED, None)


def cut(w: Work, scope: Node, _: object) -> None:
    """It ends now, and all that is open below it; nothing is waited for, opened or evaluated any more.

    A verdict that was reached before stays: hooks and compensation, which are cut off here, never change it.
    """
    plan = w.scope_of(scope)
    scope.tally = scope.tally or Tally(0)
    if scope.handling:
        keys = [(scope.run, _handler_path(scope, one)) for one in plan.handlers if one.state == scope.verdict]
        w.want(keys)
        for handler in (found for key in keys if (found := w.node(key)) is not None and found.state not in FINAL):
            fire(w, handler, "forced", None)
    else:
        scope.kill = True
        cancel_unopened(w, scope)
        for member in open_below(w, scope):
            fire(w, member, "forced", None)
            _hear_at_once(w, scope, plan, member.key)
        failed = scope.failed_at is not None and scope.path
        scope.verdict = scope.verdict or (FAILED if failed else CANCELLED)
    assert scope.verdict is not None
    finish(w, scope, scope.verdict, cause=scope.cause)


def _hear_at_once(w: Work, scope: Node, plan: ScopePlan, key: Key) -> None:
    """Turn the bit of a member that was cut: the scope is final before the news of it comes."""
    member = w.node(key)
    assert member is not None
    news = Tick(scope.key, member.index, how_ended(member), member.failed_at)
    tally_of(scope).tick(news.index, news.how)
    _mind(w, scope, plan, news)


def displace(w: Work, scope: Node, _: object) -> None:
    """A newer run goes instead, whose outcome this one shares; what it had opened is taken back, unstarted."""
    entry.displace(w, scope, None)
    if scope.tally is not None:
        cancel_unopened(w, scope)
        stop_members(w, scope, True)


def time_out(w: Work, scope: Node, _: object) -> None:
    plan = w.scope_of(scope)
    scope.error = ErrorInfo("TaskTimeout", f"it did not end within {plan.timeout_ms} ms", "stemflow.TaskTimeout")
    scope.failed_at, scope.due_at_ms = scope.path, None
    stop(w, scope, FAILED, kill=True)


def replace(w: Work, node: Node, fact: Ended) -> None:
    """The leaf becomes a scope in its own place."""
    assert isinstance(fact.outcome, Replaced)
    plan = fact.outcome.plan
    w.add_plan(node.run, plan)
    entry.leave_slot(w, node)
    node.plan, node.node, node.at_ms, node.due_at_ms, node.slot = plan.digest, 0, 0, None, None
    _proceed(w, node, entry.enter(w, node))
