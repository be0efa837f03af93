"""`decide`: the one pure function that says what follows from facts. A fold of `step` with one diff at the end."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import structs

from stemflow.core import admission as entry
from stemflow.core import claims, leaf, scope, unique
from stemflow.core.ending import is_over
from stemflow.core.fire import ACTIONS, fire
from stemflow.core.signature_failure import condemn
from stemflow.core.table import Event
from stemflow.core.work import Missing, Tick, View, Work
from stemflow.model.effects import Decision, Need, Reply
from stemflow.model.facts import (
    Damaged,
    Distrusted,
    Due,
    Ended,
    Fact,
    Failed,
    HandedBack,
    Ignored,
    InboxRead,
    Lost,
    Ok,
    Replaced,
    Requested,
    Stop,
)
from stemflow.model.records import FINAL, RUNNING, STOPPING, WAITING, Node

ACTIONS.update(
    open_leaf=leaf.open_leaf,
    go_on=leaf.go_on,
    wake=leaf.wake,
    share=unique.share_outcome,
    displace=entry.displace,
    debounce=entry.debounce,
    expire=leaf.expire,
    lease=leaf.lease,
    succeed=leaf.succeed,
    ignore=leaf.ignore,
    fail=leaf.fail,
    fail_stopped=leaf.fail_stopped,
    hand_back=leaf.hand_back,
    lose=leaf.lose,
    tell=leaf.tell,
    cancel=leaf.cancel,
    open_wait=leaf.open_wait,
    elapse=leaf.elapse,
    open_scope=scope.open_scope,
    replace=scope.replace,
    tick=scope.tick,
    stop_scope=scope.stop_scope,
    go_on_scope=scope.go_on,
    wake_scope=scope.wake,
    displace_scope=scope.displace,
    stop_held=scope.stop_held,
    time_out=scope.time_out,
    cut=scope.cut,
)

MARGIN = 1_000
"""By so much the revisions and tokens of a run begin above those of the root of the run that had its id before."""

EVENT_OF: dict[type, Event] = {
    Ok: "ok",
    Failed: "failed",
    Ignored: "ignored",
    HandedBack: "handed_back",
    Replaced: "replaced",
}


def decide(view: View, facts: Sequence[Fact], now_ms: int) -> Decision | Need:
    """What follows from `facts` at `now_ms` (store's clock), given what was read; or what else must be read.

    Law: deciding [a, b] at once leaves the same records as deciding a, then b (but for `rev`).
    """
    w = Work(view, now_ms)
    try:
        for fact in facts:
            if not step(w, fact):
                w.refused.append(fact)
    except Missing as missing:
        return w.need(missing)
    return w.decision()


def step(w: Work, fact: Fact) -> bool:
    """Apply one fact to the working copy; False when it changed nothing."""
    if isinstance(fact, Requested):
        done = _request(w, fact)
    elif isinstance(fact, Ended):
        done = _end(w, fact)
    elif isinstance(fact, (Distrusted, Damaged)):
        done = condemn(w, fact)
    elif isinstance(fact, InboxRead):
        done = _hear(w, fact)
    else:
        done = _other(w, fact)
    _drain(w)
    return done


def _end(w: Work, fact: Ended) -> bool:
    node = w.node(fact.key)
    if node is None or node.delivery != fact.token or node.state not in (RUNNING, STOPPING) or node.tally is not None:
        return False
    return fire(w, node, EVENT_OF[type(fact.outcome)], fact)


def _other(w: Work, fact: Lost | Due | Stop) -> bool:
    node = w.node(fact.key)
    if node is None or node.state in FINAL:
        return False
    if isinstance(fact, Lost):
        return node.delivery == fact.token and fire(w, node, "lost", fact)
    if isinstance(fact, Due):
        return node.due_at_ms == fact.due_at_ms and fire(w, node, "due", None)
    return fire(w, node, "forced", None) if fact.force else fire(w, node, "stop", True)


def _hear(w: Work, fact: InboxRead) -> bool:
    """Tell the scopes of the ends that were posted; one that they have heard of already changes nothing."""
    w.consumed.append((fact.key[0], fact.upto))
    w.want([post.scope for post in fact.posts])
    for post in fact.posts:
        scope = w.node(post.scope)
        if scope is not None and scope.base == post.base:
            w.pending += [Tick(post.scope, end.index, end.how, end.failed_at) for end in post.ends]
    return True


def _request(w: Work, fact: Requested) -> bool:
    """Create the run, unless its id or its unique key is taken."""
    header, key = fact.header, fact.key
    before = w.node(key)
    if before is not None and not is_over(w, before):
        w.purged.extend(fact.purged)
        w.replies.append(Reply("existing", header.run))
        return False
    holder = None
    if header.claim is not None:
        answer = unique.at_the_door(w, header, header.claim)
        if answer is not None:
            w.replies.append(answer)
            return True
        holder = unique.holder_of(w, header.claim.key)
    if before is not None:
        w.drop(before)
        header = structs.replace(header, base=MARGIN + max(header.base, before.rev, before.delivery))
    w.new_headers[header.run] = header
    w.purged.extend(fact.purged)
    w.shape(header.plan)
    w.also += fact.also
    node = Node(run=header.run, path="", plan=header.plan, node=0, state=WAITING, opened_at_ms=w.now_ms)
    fire(w, w.create(node), "opened", None)
    w.replies.append(Reply("accepted", header.run, holder))
    return True


def _drain(w: Work) -> None:
    """Hear of every end that this fact has caused, in order."""
    while w.pending:
        news = w.pending.popleft()
        if isinstance(news, Tick):
            if w.posted(news):
                continue
            node = w.node(news.scope)
            if node is not None:
                fire(w, node, "settled", news)
        else:
            waiter = w.node(news.key)
            if waiter is None or not claims.is_true_yet(w, news):
                continue
            if waiter.tally is not None and waiter.tally.open and any(isinstance(one, Tick) for one in w.pending):
                w.pending.append(news)  # its members, which it gave up, have ended and it has still to hear of them
            else:
                fire(w, waiter, news.event, news.about)
