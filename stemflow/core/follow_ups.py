"""Follow-ups of a scope: sub-plans that run after its members, one at a time, before it becomes final.

In this order: the first catch that fits, if the scope is about to become FAILED; the hooks for its verdict, which a
catch may have changed; the cleanup (`finally`). A follow-up is numbered by its place in this order, and its record
has the index `-1 - number`. While one runs, the scope is `handling` and keeps its verdict in its record.

A stop from outside cancels a running catch, because a catch does work of the workflow. Hooks and the cleanup go on.
"""

from __future__ import annotations

from stemflow.core.ending import finish, leave_dead_letter
from stemflow.core.fire import fire
from stemflow.core.work import MemberEnd, StaleView, Work
from stemflow.model.effects import GateError
from stemflow.model.plan import ScopePlan
from stemflow.model.records import (
    CANCELLED,
    FAILED,
    FINAL,
    SKIPPED,
    STOPPING,
    SUCCEEDED,
    WAITING,
    Key,
    Node,
    child_path,
)

CLEANUP = "finally"
"""The path segment of a cleanup, without its `!`."""


def catch_name(number: int) -> str:
    """The path segment of a catch, without its `!`: `catch`, `catch2`, `catch3`, ..."""
    return "catch" if number == 0 else f"catch{number + 1}"


def names_of(plan: ScopePlan) -> list[str]:
    """The path segments of all follow-ups, in order, without their `!`."""
    names = [catch_name(number) for number in range(len(plan.catches))]
    names += [hook.name for hook in plan.hooks]
    return names if plan.cleanup is None else [*names, CLEANUP]


def begin(w: Work, scope: Node, plan: ScopePlan) -> None:
    """The members have ended and the verdict is known: run the follow-ups, then become final."""
    if plan.catches and scope.verdict == FAILED and not scope.stopped:
        number = w.gate(scope.key, "catch")
        if isinstance(number, GateError):
            leave_dead_letter(w, scope, number)
            scope.error, scope.failed_at = number.error, scope.path
        elif number >= 0:
            return _open(w, scope, plan, number)
    _run_from(w, scope, plan, len(plan.catches))


def ended(w: Work, scope: Node, plan: ScopePlan, end: MemberEnd) -> None:
    """A follow-up ended; run the next one. A catch replaces the outcome, a failed cleanup may fail the scope, a hook
    changes nothing."""
    number = -1 - end.index
    if scope.verdict is None:
        raise StaleView(scope.key, "a verdict, for which its follow-ups run")
    if number < len(plan.catches):
        _replace_outcome(w, scope, end)
        return _run_from(w, scope, plan, len(plan.catches))
    if number < len(plan.catches) + len(plan.hooks):
        return _run_from(w, scope, plan, number + 1)
    assert plan.cleanup is not None
    tolerated = w.shape(scope.plan).nodes[plan.cleanup].on_error != "fail"
    if end.how == "failed" and not tolerated and scope.verdict in (SUCCEEDED, SKIPPED):
        scope.verdict, scope.cause = FAILED, None
        scope.failed_at, scope.error, scope.alias, scope.result = end.failed_at, None, None, None
    finish(w, scope, scope.verdict, cause=scope.cause)


def running(w: Work, scope: Node, plan: ScopePlan) -> list[Node]:
    """The follow-ups that have not ended: at most one."""
    keys = list(dict.fromkeys(_key(scope, name) for name in names_of(plan)))  # the undo hook may be for two verdicts
    w.want(keys)
    return [found for key in keys if (found := w.node(key)) is not None and found.state not in FINAL]


def stop_catch(w: Work, scope: Node, plan: ScopePlan, kill: bool) -> None:
    """Stop a catch that is running; any other follow-up goes on."""
    if not plan.catches:
        return
    for follow_up in running(w, scope, plan):
        if -1 - follow_up.index < len(plan.catches):
            scope.state, scope.kill = STOPPING, scope.kill or kill
            fire(w, follow_up, "stop", kill)


def _replace_outcome(w: Work, scope: Node, end: MemberEnd) -> None:
    """The outcome of a catch is that of the scope. One that was skipped gives null."""
    scope.error, scope.failed_at, scope.result = None, None, None
    if scope.stopped and scope.kill and not scope.path:
        scope.verdict = CANCELLED  # the run was cancelled while it ran
    elif end.how == "failed":
        scope.verdict, scope.failed_at = FAILED, end.failed_at
    elif end.how == "cancelled":
        scope.verdict = CANCELLED
    else:
        scope.verdict = SUCCEEDED
        scope.alias = _key(scope, catch_name(-1 - end.index))


def _run_from(w: Work, scope: Node, plan: ScopePlan, first: int) -> None:
    """Open the first follow-up from number `first` on that is for the verdict. If none is left, the scope becomes
    final."""
    assert scope.verdict is not None
    for number in range(first, len(plan.catches) + len(plan.hooks)):
        if plan.hooks[number - len(plan.catches)].state == scope.verdict:
            return _open(w, scope, plan, number)
    if plan.cleanup is not None and _has_begun(scope):
        return _open(w, scope, plan, len(plan.catches) + len(plan.hooks))
    finish(w, scope, scope.verdict, cause=scope.cause)


def _has_begun(scope: Node) -> bool:
    """False for a scope that was cancelled while it waited for its keys."""
    return scope.verdict != CANCELLED or (scope.tally is not None and scope.tally.size > 0)


def _open(w: Work, scope: Node, plan: ScopePlan, number: int) -> None:
    places = [one.node for one in plan.catches] + [one.node for one in plan.hooks]
    if plan.cleanup is not None:
        places.append(plan.cleanup)
    scope.handling = True
    node = Node(
        run=scope.run,
        path=_key(scope, names_of(plan)[number])[1],
        plan=scope.plan,
        node=places[number],
        index=-1 - number,
        state=WAITING,
        opened_at_ms=w.now_ms,
    )
    w.create(node)
    when = w.plan_of(node).when
    go = True if when is None else w.gate(node.key, "when")
    if go:
        fire(w, node, "opened", go if isinstance(go, GateError) else None)
    else:
        w.forget(node)
        w.pending.append(MemberEnd(scope.key, node.index, "skipped", None))


def _key(scope: Node, name: str) -> Key:
    return (scope.run, child_path(scope.path, "!" + name))
