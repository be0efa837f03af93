"""The members of a scope: opening them, skipping them in bulk, stopping them. `core.kinds` determines their order."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from stemflow.core.ending import how_ended, leave_dead_letter
from stemflow.core.fire import fire
from stemflow.core.kinds import KINDS
from stemflow.core.kinds.base import Moves, View
from stemflow.core.shape import kind_of
from stemflow.core.table import TABLE, Event
from stemflow.core.work import MemberEnd, Missing, StaleView, Work
from stemflow.model.effects import GateError
from stemflow.model.plan import ScopePlan
from stemflow.model.records import FINAL, WAITING, Node, Tally


def tally_of(scope: Node) -> Tally:
    """The tally of an opened scope; raises StaleView for the record of a time at which it was none yet."""
    if scope.tally is None:
        raise StaleView(scope.key, "a scope that has opened its members")
    return scope.tally


def open_members(w: Work, scope: Node, indices: Iterable[int]) -> None:
    """Open several members that do not depend on each other; everything that is missing is requested at once."""
    lacking = []
    w.ahead[scope.run] = max(w.ahead.get(scope.run, 0), tally_of(scope).open.bit_count())
    for index in indices:
        try:
            open_member(w, scope, index)
        except Missing as missing:
            lacking.append(missing)
    if lacking:
        raise Missing.all(lacking)


def open_member(w: Work, scope: Node, index: int) -> None:
    """Create the record of member `index` and fire `opened`."""
    tally_of(scope).opened |= 1 << index
    key, digest, place = w.member(scope, index)
    node = Node(run=scope.run, path=key[1], plan=digest, node=place, index=index, state=WAITING, opened_at_ms=w.now_ms)
    plan = w.shape(digest).nodes[place]
    w.create(node)
    if plan.when is not None:
        go = w.gate(key, "when")
        if not go:
            w.forget(node)
            return w.pending.append(MemberEnd(scope.key, index, "skipped", None))
        fire(w, node, "opened", go if isinstance(go, GateError) else None)
    else:
        fire(w, node, "opened", None)


def skip_members(w: Work, scope: Node, members: int, how: str) -> None:
    """End members (one bit each) that will never run as SKIPPED, without a record; `how` is `skipped` or `upstream`."""
    if _all_may(w, scope, "upstream", bits(members)):
        tally_of(scope).end_many(members, how)


def cancel_unopened(w: Work, scope: Node, spared: int = 0) -> None:
    """End members that have not opened, except those in `spared`, as CANCELLED, without a record."""
    if _all_may(w, scope, "stop", range(len(w.scope_of(scope).members))):
        tally_of(scope).cancel_unopened(spared)


def _all_may(w: Work, scope: Node, event: Event, indices: Iterable[int]) -> bool:
    """Whether the table allows each of these members to end at `event` before it has opened."""
    nodes = w.shape(scope.plan).nodes
    place = KINDS[w.scope_of(scope).kind].place
    kinds = {kind_of(nodes[place(w.scope_of(scope), index)]) for index in indices}
    return all((kind, WAITING, event) in TABLE for kind in kinds)


def stop_members(w: Work, scope: Node, kill: bool, spared: int = 0) -> None:
    """Stop the open members, except those in `spared`: those that have not started end, running ones are asked to stop.

    A member may have ended already, if its end is still in the inbox."""
    for member in open_below(w, scope, spared):
        if member.state in FINAL:
            w.pending.append(MemberEnd(scope.key, member.index, how_ended(member), member.failed_at))
        else:
            fire(w, member, "stop", kill)


def open_below(w: Work, scope: Node, spared: int = 0) -> Iterator[Node]:
    """The open members, except those in `spared`, each with its record at the time of iteration."""
    keys = [w.member(scope, index)[0] for index in bits(tally_of(scope).open & ~spared)]
    w.want(keys)
    for key in keys:
        member = w.node(key)
        if member is not None:
            yield member


def bits(mask: int) -> Iterator[int]:
    """The indices of the set bits. Linear in their number, unlike clearing them one by one."""
    digits = bin(mask)[:1:-1]
    index = digits.find("1")
    while index >= 0:
        yield index
        index = digits.find("1", index + 1)


def advance(w: Work, scope: Node, plan: ScopePlan, index: int, how: str) -> None:
    """Open or skip the successors of member `index`."""
    rules, tally, failed = KINDS[plan.kind], tally_of(scope), scope.failed_at is not None
    if rules.gives_up(plan, failed) or rules.decided(plan, tally) is not None:
        return
    view = View(w.shape(scope.plan), scope.node, tally, failed, bool(scope.extra), scope.bound)
    gate = rules.asks(view, index, how)
    answer = None if gate is None else w.gate(scope.key, gate)
    if isinstance(answer, GateError):
        leave_dead_letter(w, scope, answer)
        moves = Moves(error=answer.error)
    else:
        moves = rules.after(view, index, how, answer)
    if moves.error is not None:
        scope.error, scope.failed_at = moves.error, scope.path
        return
    if moves.size is not None:
        view.tally.size = moves.size
    for members, cause in moves.ended:
        skip_members(w, scope, members, cause)
    open_members(w, scope, moves.opened)


def open_released(w: Work, scope: Node, plan: ScopePlan) -> None:
    """Open the spared members of a stopped scope that wait for nothing any more."""
    failed = scope.failed_at is not None
    view = View(w.shape(scope.plan), scope.node, tally_of(scope), failed, bool(scope.extra), scope.bound)
    released = tuple(KINDS[plan.kind].released(view))
    if released:
        open_members(w, scope, released)
