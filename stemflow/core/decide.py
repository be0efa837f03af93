"""`decide`: the pure function that determines what follows from facts. It folds `step` over them and returns the
changes."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import structs

from stemflow.core import admission as entry
from stemflow.core import claims, journal, leaf, scope, topics, unique, waiting
from stemflow.core.ending import has_expired
from stemflow.core.fire import ACTIONS, fire
from stemflow.core.signature_failure import fail_run
from stemflow.core.table import Event
from stemflow.core.work import MemberEnd, Missing, View, Work
from stemflow.model.effects import Decision, Need, Reply
from stemflow.model.facts import (
    Answered,
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
    Released,
    Replaced,
    Requested,
    Sent,
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
    open_event=waiting.open_event,
    look=waiting.look,
    emit=waiting.emit,
    open_approval=waiting.open_approval,
    answer=waiting.answer,
    lapse=waiting.lapse,
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
"""The distance between the revisions and tokens of an expired run and those of a new run with the same id."""

EVENT_OF: dict[type, Event] = {
    Ok: "ok",
    Failed: "failed",
    Ignored: "ignored",
    HandedBack: "handed_back",
    Replaced: "replaced",
}


def decide(view: View, facts: Sequence[Fact], now_ms: int) -> Decision | Need:
    """Decide what follows from `facts`, or what else must be read first.

    Deciding [a, b] at once leaves the same records as deciding a and then b, except for `rev`.

    Args:
        view: The records that were read so far.
        facts: What happened, in order.
        now_ms: The time of the store's clock, in epoch milliseconds.

    Raises:
        StaleView: The records of the view contradict each other; read them again.
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
    """Apply one fact to the working copy, with everything that follows from it; False if it changed nothing."""
    if isinstance(fact, Requested):
        done = _request(w, fact)
    elif isinstance(fact, Ended):
        done = _end(w, fact)
    elif isinstance(fact, (Distrusted, Damaged)):
        done = fail_run(w, fact)
    elif isinstance(fact, InboxRead):
        done = _apply_posts(w, fact)
    elif isinstance(fact, Sent):
        done = _send(w, fact)
    elif isinstance(fact, Released):
        done = claims.release(w, fact.claim, fact.holders)
        w.replies.append(Reply("accepted" if done else "refused", ""))
    else:
        done = _other(w, fact)
    _drain(w)
    return done


def _end(w: Work, fact: Ended) -> bool:
    node = w.node(fact.key)
    if node is None or node.delivery != fact.token or node.state not in (RUNNING, STOPPING) or node.tally is not None:
        return False
    node = w.edit(node)
    journal.note_end(w, node, fact)
    return fire(w, node, EVENT_OF[type(fact.outcome)], fact)


def _send(w: Work, fact: Sent) -> bool:
    """Store an event that was sent from outside, unless one with its id is kept."""
    fresh = topics.send(w, fact.event_type, fact.id, fact.body, fact.keep_ms)
    w.replies.append(Reply("accepted" if fresh else "existing", ""))
    return fresh


def _other(w: Work, fact: Lost | Due | Stop | Answered) -> bool:
    node = w.node(fact.key)
    if node is None or node.state in FINAL:
        return False
    if isinstance(fact, Lost):
        if node.delivery != fact.token or node.state not in (RUNNING, STOPPING) or node.tally is not None:
            return False
        node = w.edit(node)
        journal.note_loss(w, node, fact)
        return fire(w, node, "lost", fact)
    if isinstance(fact, Answered):
        return fire(w, node, "answered", fact)
    if isinstance(fact, Due):
        return node.due_at_ms == fact.due_at_ms and fire(w, node, "due", None)
    return fire(w, node, "forced", None) if fact.force else fire(w, node, "stop", True)


def _apply_posts(w: Work, fact: InboxRead) -> bool:
    """Queue the posted ends for their scopes. An end that a scope has processed already changes nothing."""
    w.consumed.append((fact.key[0], fact.upto))
    w.want([post.scope for post in fact.posts])
    for post in fact.posts:
        scope = w.node(post.scope)
        if scope is not None and scope.base == post.base:
            w.pending.extend(MemberEnd(post.scope, end.index, end.how, end.failed_at) for end in post.ends)
    return True


def _request(w: Work, fact: Requested) -> bool:
    """Create the run, unless its id or its unique key is taken."""
    header, key = fact.header, fact.key
    before = w.node(key)
    if before is not None and not has_expired(w, before):
        w.purged.extend(fact.purged)
        w.replies.append(Reply("existing", header.run))
        return False
    holder = None
    if header.claim is not None:
        answer = unique.answer_submission(w, header, header.claim)
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
    w.also.extend(fact.also)
    node = Node(run=header.run, path="", plan=header.plan, node=0, state=WAITING, opened_at_ms=w.now_ms)
    fire(w, w.create(node), "opened", None)
    w.replies.append(Reply("accepted", header.run, holder))
    return True


def _drain(w: Work) -> None:
    """Process everything that the fact has caused, in order."""
    while w.pending:
        notice = w.pending.popleft()
        if isinstance(notice, MemberEnd):
            if w.view.hot and w.posted(notice):
                continue
            node = w.node(notice.scope)
            if node is not None:
                fire(w, node, "settled", notice)
        else:
            waiter = w.node(notice.key)
            if waiter is None or not claims.still_applies(w, notice):
                continue
            if waiter.tally is not None and waiter.tally.open and any(isinstance(one, MemberEnd) for one in w.pending):
                w.pending.append(notice)  # the ends of members that it gave up must be processed first
            else:
                fire(w, waiter, notice.event, notice.about)
