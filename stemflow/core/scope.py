"""What happens to a scope: opening its members, hearing of their ends, stopping them, closing."""

from __future__ import annotations

from stemflow.core.ending import finish
from stemflow.core.fire import fire
from stemflow.core.leaf import undone_path
from stemflow.core.settle import natural, settle, tolerates
from stemflow.core.shape import Shape, body_index, kind_of, static_size
from stemflow.core.table import TABLE, Kind
from stemflow.core.upstream import admitted
from stemflow.core.work import Tick, Work
from stemflow.model.effects import Frozen, GateError, Pages
from stemflow.model.facts import Ended, Ok, Replaced
from stemflow.model.plan import Plan, ScopePlan
from stemflow.model.records import (
    CANCELLED,
    FAILED,
    RUNNING,
    SKIPPED,
    STOPPING,
    SUCCEEDED,
    WAITING,
    ErrorInfo,
    Node,
    State,
    Tally,
    child_path,
)
from stemflow.model.signature import Span

DEFAULT_WINDOW = 1_000
"""Members of a map that are open at once where the workflow names no `concurrency`."""


def open_scope(w: Work, scope: Node, _: object) -> None:
    """Open the members that wait for nobody."""
    plan = w.scope_of(scope)
    scope.state = RUNNING
    size = static_size(plan)
    if plan.kind == "map":
        frozen = _map_size(w, scope, plan)
        if frozen is None:
            return
        size = frozen
    scope.tally = Tally(size)
    if plan.timeout_ms is not None:
        scope.due_at_ms = w.now_ms + plan.timeout_ms
    if plan.kind == "chain":
        first: range | tuple[int, ...] = range(min(size, 1))
    elif plan.kind == "chord":
        first = range(size - 1) or (0,)
    elif plan.kind == "steps":
        first = w.shape(scope.plan).dag(scope.node).roots
    else:
        first = range(min(size, _window(plan) if plan.kind == "map" else size))
    for index in first:
        open_member(w, scope, index)
    settle_scope(w, scope, plan)


def _map_size(w: Work, scope: Node, plan: ScopePlan) -> int | None:
    """How many members the map has; None when that made it final."""
    if plan.undo:
        done = w.node((scope.run, undone_path(scope.path)))
        if done is None or done.tally is None:
            finish(w, scope, SKIPPED, cause="condition")
            return None
        return done.tally.size
    if isinstance(plan.items, int):
        return plan.items
    if isinstance(plan.items, Span):
        return len(range(plan.items.start, plan.items.stop, plan.items.step))
    frozen = w.gate(scope.key, "items")
    if isinstance(frozen, GateError):
        scope.error = frozen.error
        finish(w, scope, FAILED)
        return None
    assert isinstance(frozen, Frozen)
    w.pages.append(Pages(scope.key, frozen.pages))
    return frozen.size


def _window(plan: ScopePlan) -> int:
    return plan.window or DEFAULT_WINDOW


def open_member(w: Work, scope: Node, index: int) -> None:
    """Create the record of member `index` and let the table say how it begins."""
    tally = scope.tally
    assert tally is not None
    tally.opened |= 1 << index
    key, digest, place = w.member(scope, index)
    node = Node(
        run=scope.run, path=key[1], plan=digest, node=place, index=index, state=WAITING, opened_at_ms=w.now_ms
    )
    plan = w.shape(digest).nodes[place]
    w.create(node)
    if plan.when is not None:
        go = w.gate(key, "when")
        if isinstance(go, GateError):
            node.error = go.error
            return finish(w, node, FAILED)
        if not go:
            w.forget(node)
            w.pending.append(Tick(scope.key, index, "skipped", None))
            return
    fire(w, node, "opened", None)


def skip_members(w: Work, scope: Node, indices: range, how: str) -> None:
    """Members that will never run: one bit each, no record; they end SKIPPED with the cause that `how` names."""
    tally, shape, plan = scope.tally, w.shape(scope.plan), w.scope_of(scope)
    assert tally is not None
    mask = 0
    for index in indices:
        if (kind_of(shape.nodes[plan.members[index]]), WAITING, "upstream") in TABLE:
            mask |= 1 << index
    tally.end_many(mask, how)


def tick(w: Work, scope: Node, news: Tick) -> None:
    """A member ended: turn its bit, open what that makes ready, and settle."""
    tally, plan = scope.tally, w.scope_of(scope)
    assert tally is not None
    if news.index < 0:
        assert scope.verdict is not None
        return finish(w, scope, scope.verdict, cause=scope.cause)
    if scope.handling or not tally.tick(news.index, news.how):
        return
    if news.how == "failed" and scope.failed_at is None:
        _, digest, place = w.member(scope, news.index)
        if not tolerates(plan, w.shape(digest).nodes[place], news.index):
            scope.failed_at = news.failed_at
    if scope.state == RUNNING:
        advance(w, scope, plan, news.index, news.how)
    settle_scope(w, scope, plan)


def advance(w: Work, scope: Node, plan: ScopePlan, index: int, how: str) -> None:
    """Open or skip what waited for member `index`."""
    tally = scope.tally
    assert tally is not None
    if plan.kind == "map":
        following = (~tally.opened & (tally.opened + 1)).bit_length() - 1
        if following < tally.size and tally.open.bit_count() < _window(plan):
            open_member(w, scope, following)
    elif plan.kind == "steps":
        _advance_steps(w, scope, index)
    elif plan.kind == "chain" and index + 1 < tally.size and not tally.ended >> (index + 1) & 1:
        member = w.shape(scope.plan).nodes[plan.members[index]]
        if how == "ok" or (how == "failed" and member.on_error == "continue"):
            open_member(w, scope, index + 1)
        else:
            skip_members(w, scope, range(index + 1, tally.size), how if how == "skipped" else "upstream")
    elif plan.kind == "chord":
        _advance_chord(w, scope, plan)


def _advance_chord(w: Work, scope: Node, plan: ScopePlan) -> None:
    tally, body = scope.tally, body_index(plan)
    assert tally is not None
    if tally.opened >> body & 1 or tally.ended >> body & 1 or tally.done < tally.size - 1:
        return
    if scope.failed_at is None:
        open_member(w, scope, body)
    else:
        skip_members(w, scope, range(body, body + 1), "upstream")


def _advance_steps(w: Work, scope: Node, index: int) -> None:
    """Open what waited for `index`; a skip goes on to what waited for the skipped, without recursion."""
    tally, shape = scope.tally, w.shape(scope.plan)
    assert tally is not None
    dag, plan = shape.dag(scope.node), w.scope_of(scope)
    ended = [index]
    while ended:
        for target in dag.successors[ended.pop()]:
            if dag.needed[target] & ~tally.ended or (tally.opened | tally.ended) >> target & 1:
                continue
            member = shape.nodes[plan.members[target]]
            sources = [
                (edge.kind, tally.how(edge.source), shape.nodes[plan.members[edge.source]].on_error)
                for edge in dag.edges[target]
            ]
            verdict = admitted(member.run_on, sources)
            if verdict is None:
                open_member(w, scope, target)
            else:
                skip_members(w, scope, range(target, target + 1), verdict)
                ended.append(target)


def settle_scope(w: Work, scope: Node, plan: ScopePlan) -> None:
    """Stay, stop the rest, or close."""
    tally = scope.tally
    assert tally is not None
    if scope.handling or scope.state not in (RUNNING, STOPPING) or _has_news(w, scope):
        return
    if scope.state == RUNNING:
        verdict = settle(plan, tally, scope.failed_at is not None)
        if verdict.move == "stop":
            stop(w, scope, verdict.state, kill=False)
        elif verdict.move == "close":
            close(w, scope, plan, verdict.state, verdict.cause)
    elif not tally.open:
        state, cause = natural(plan, tally, scope.failed_at is not None)
        if scope.verdict is not None:
            state, cause = scope.verdict, None
        close(w, scope, plan, state, cause)


def _has_news(w: Work, scope: Node) -> bool:
    """Whether the end of a member is still to be heard, so that settling now would be early."""
    return bool(w.pending) and any(isinstance(t, Tick) and t.scope == scope.key for t in w.pending)


def close(w: Work, scope: Node, plan: ScopePlan, state: State, cause: object) -> None:
    """Evaluate the value, open the handler for `state` if there is one, else make the scope final."""
    if state == SUCCEEDED and plan.value is not None:
        value = w.gate(scope.key, "value")
        if isinstance(value, GateError):
            scope.error, scope.failed_at, state = value.error, scope.path, FAILED
        else:
            scope.result = value
    scope.cause = "condition" if cause == "condition" else "upstream" if cause else None
    for handler in plan.handlers:
        if handler.state == state:
            scope.verdict, scope.handling = state, True
            node = Node(
                run=scope.run,
                path=child_path(scope.path, "!" + handler.name),
                plan=scope.plan,
                node=handler.node,
                index=-1,
                state=WAITING,
                opened_at_ms=w.now_ms,
            )
            fire(w, w.create(node), "opened", None)
            return
    finish(w, scope, state, cause=scope.cause)


def stop(w: Work, scope: Node, verdict: State | None, *, kill: bool) -> None:
    """Stop what has not started, tell what runs; the scope closes when nothing below it is open."""
    tally, plan = scope.tally, w.scope_of(scope)
    assert tally is not None
    scope.state, scope.kill = STOPPING, scope.kill or kill
    if verdict is not None and scope.verdict is None:
        scope.verdict = verdict
    _derive_cancelled(w.shape(scope.plan), plan, tally)
    _stop_children(w, scope, tally, kill)
    settle_scope(w, scope, plan)


def _derive_cancelled(shape: Shape, plan: ScopePlan, tally: Tally) -> None:
    kinds: set[Kind] = {kind_of(shape.nodes[member]) for member in plan.members}
    if all((kind, WAITING, "stop") in TABLE for kind in kinds):
        tally.cancel_unopened()


def _stop_children(w: Work, scope: Node, tally: Tally, kill: bool) -> None:
    keys, bits, index = [], tally.open, 0
    while bits:
        index = (bits & -bits).bit_length() - 1
        bits &= bits - 1
        keys.append(w.member(scope, index)[0])
    w.want(keys)
    for key in keys:
        child = w.node(key)
        if child is not None:
            fire(w, w.edit(child), "stop", kill)


def stop_scope(w: Work, scope: Node, kill: bool) -> None:
    """Told from above, or asked to cancel at the root. A scope that is running its handler ends by itself."""
    if not scope.handling:
        stop(w, scope, CANCELLED if kill and not scope.path else None, kill=kill)


def time_out(w: Work, scope: Node, _: object) -> None:
    plan = w.scope_of(scope)
    scope.error = ErrorInfo("TaskTimeout", f"it did not end within {plan.timeout_ms} ms", "stemflow.TaskTimeout")
    scope.failed_at, scope.due_at_ms = scope.path, None
    if not scope.handling:
        stop(w, scope, FAILED, kill=True)


def replace(w: Work, node: Node, fact: Ended) -> None:
    """The leaf becomes a scope in its own place."""
    assert isinstance(fact.outcome, Replaced)
    plan = fact.outcome.plan
    w.add_plan(plan)
    node.plan, node.node, node.at_ms, node.due_at_ms = plan.digest, 0, 0, None
    open_scope(w, node, None)


def join_fan_in(w: Work, node: Node, fact: Ended) -> None:
    """Members that a task added to its own fan-in join it in the commit that ends the task."""
    if not isinstance(fact.outcome, Ok):
        return
    for plan in fact.outcome.added:
        scope = fan_in_of(w, node)
        if scope is not None and scope.state == RUNNING:
            add_members(w, w.edit(scope), plan)


def fan_in_of(w: Work, node: Node) -> Node | None:
    """The nearest scope above whose members run side by side and of which `node` is not the body."""
    while node.path:
        scope = w.node(w.parent_key(node))
        if scope is None:
            return None
        plan = w.scope_of(scope)
        if plan.kind in ("group", "map") or (plan.kind == "chord" and node.index != body_index(plan)):
            return scope
        node = scope
    return None


def add_members(w: Work, scope: Node, plan: Plan) -> None:
    """`plan` is a fragment whose root is a group: its members become members of `scope`."""
    w.add_plan(plan)
    root = plan.nodes[0]
    assert isinstance(root, ScopePlan) and scope.tally is not None
    first = scope.tally.size
    scope.extra = (*scope.extra, (plan.digest, len(root.members)))
    scope.tally.size += len(root.members)
    for index in range(first, scope.tally.size):
        open_member(w, scope, index)
