"""The members of a scope: opening them, skipping them in bulk, telling them to stop, and who comes after whom."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from stemflow.core.ending import how_ended
from stemflow.core.fire import fire
from stemflow.core.settle import gives_up
from stemflow.core.shape import body_index, kind_of
from stemflow.core.skip_rule import admitted
from stemflow.core.table import TABLE, Event
from stemflow.core.work import Missing, Tick, Work
from stemflow.model.effects import GateError
from stemflow.model.plan import ScopePlan
from stemflow.model.records import FINAL, WAITING, Node, Tally

DEFAULT_WINDOW = 1_000
"""Members of a map that are open at once where the workflow names no `concurrency`."""


def window_of(plan: ScopePlan) -> int:
    return plan.window or DEFAULT_WINDOW


def tally_of(scope: Node) -> Tally:
    assert scope.tally is not None
    return scope.tally


def open_members(w: Work, scope: Node, indices: Iterable[int]) -> None:
    """Open several that do not wait for one another; what they lack is asked for at once."""
    lacking = []
    for index in indices:
        try:
            open_member(w, scope, index)
        except Missing as missing:
            lacking.append(missing)
    if lacking:
        raise Missing.all(lacking)


def open_member(w: Work, scope: Node, index: int) -> None:
    """Create the record of member `index` and let the table say how it begins."""
    tally_of(scope).opened |= 1 << index
    key, digest, place = w.member(scope, index)
    node = Node(run=scope.run, path=key[1], plan=digest, node=place, index=index, state=WAITING, opened_at_ms=w.now_ms)
    plan = w.shape(digest).nodes[place]
    w.create(node)
    if plan.when is not None:
        go = w.gate(key, "when")
        if not go:
            w.forget(node)
            return w.pending.append(Tick(scope.key, index, "skipped", None))
        fire(w, node, "opened", go if isinstance(go, GateError) else None)
    else:
        fire(w, node, "opened", None)


def skip_members(w: Work, scope: Node, indices: range, how: str) -> None:
    """Members that will never run: one bit each, no record; they end SKIPPED with the cause that `how` names."""
    if _all_may(w, scope, "upstream", indices):
        tally_of(scope).end_many((1 << indices.stop) - (1 << indices.start), how)


def cancel_unopened(w: Work, scope: Node) -> None:
    """Members that were never opened are CANCELLED without a record."""
    if _all_may(w, scope, "stop", range(len(w.scope_of(scope).members))):
        tally_of(scope).cancel_unopened()


def _all_may(w: Work, scope: Node, event: Event, indices: range) -> bool:
    """Whether the table lets each of these members end at `event` before it was opened."""
    nodes, members = w.shape(scope.plan).nodes, w.scope_of(scope).members
    kinds = {kind_of(nodes[members[index]]) for index in indices}
    return all((kind, WAITING, event) in TABLE for kind in kinds)


def stop_members(w: Work, scope: Node, kill: bool) -> None:
    """Stop the open members that have not started, tell those that run; the end of one may still be in the inbox."""
    for member in open_below(w, scope):
        if member.state in FINAL:
            w.pending.append(Tick(scope.key, member.index, how_ended(member), member.failed_at))
        else:
            fire(w, member, "stop", kill)


def open_below(w: Work, scope: Node) -> Iterator[Node]:
    """The members that were opened and have not ended, each as it stands when its turn comes."""
    keys = [w.member(scope, index)[0] for index in bits(tally_of(scope).open)]
    w.want(keys)
    for key in keys:
        member = w.node(key)
        if member is not None:
            yield member


def bits(mask: int) -> Iterator[int]:
    """The indices of the bits that are set; linear, unlike clearing them one by one."""
    digits = bin(mask)[:1:-1]
    index = digits.find("1")
    while index >= 0:
        yield index
        index = digits.find("1", index + 1)


def advance(w: Work, scope: Node, plan: ScopePlan, index: int, how: str) -> None:
    """Open or skip what waited for member `index`."""
    if gives_up(plan, scope.failed_at is not None):
        return
    if plan.kind == "map":
        _advance_map(w, scope, plan)
    elif plan.kind == "steps":
        _advance_steps(w, scope, plan, index)
    elif plan.kind == "chain":
        _advance_chain(w, scope, plan, index, how)
    elif plan.kind == "chord":
        _advance_chord(w, scope, plan)


def _advance_map(w: Work, scope: Node, plan: ScopePlan) -> None:
    """The next in the window."""
    tally = tally_of(scope)
    following = tally.opened.bit_length()
    if scope.extra:  # those that joined while it ran were opened out of turn
        following = (tally.opened ^ (tally.opened + 1)).bit_length() - 1
    if following < tally.size and tally.open.bit_count() < window_of(plan):
        open_member(w, scope, following)


def _advance_chain(w: Work, scope: Node, plan: ScopePlan, index: int, how: str) -> None:
    tally, following = tally_of(scope), index + 1
    if following == tally.size:
        return
    member = w.shape(scope.plan).nodes[plan.members[index]]
    if how == "ok" or (how == "failed" and member.on_error == "continue"):
        open_member(w, scope, following)
    else:
        skip_members(w, scope, range(following, tally.size), how if how == "skipped" else "upstream")


def _advance_chord(w: Work, scope: Node, plan: ScopePlan) -> None:
    tally, body = tally_of(scope), body_index(plan)
    if tally.ended >> body & 1 or tally.opened >> body & 1 or tally.done < tally.size - 1:
        return
    if scope.failed_at is None and not tally.cancelled:
        open_member(w, scope, body)
    else:
        skip_members(w, scope, range(body, body + 1), "upstream")


def _advance_steps(w: Work, scope: Node, plan: ScopePlan, index: int) -> None:
    """Open what waited for `index`; a skip goes on to what waited for the skipped, without recursion."""
    tally, shape = tally_of(scope), w.shape(scope.plan)
    dag = shape.dag(scope.node)
    ready, ended = [], [index]
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
                ready.append(target)
            elif _all_may(w, scope, "upstream", range(target, target + 1)):
                tally.end_many(1 << target, verdict)
                ended.append(target)
    open_members(w, scope, dict.fromkeys(ready))
