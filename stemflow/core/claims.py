"""Claims: who holds a unique or a concurrency key, whose turn is next, and who shares the outcome of another.

What a newcomer does about a unique key that is taken is said in `core.unique`; here is only the record.
"""

from __future__ import annotations

import copy

from stemflow.core.timer import arm
from stemflow.core.work import StaleView, Wake, Work
from stemflow.model.records import FAILED, FINAL, NO_RUN, SUCCEEDED, Claim, Key, Node, Sharer


def find(w: Work, key: str) -> Claim | None:
    """The claim while somebody holds it or its window is open; a window that has passed gives way to whose turn is."""
    claim = w.claim(key)
    if claim is None or not claim.finished or is_open(w, claim):
        return claim
    if not claim.waiters:
        return None
    claim = edit(w, key)
    _next(w, claim)
    return claim


def is_open(w: Work, claim: Claim) -> bool:
    """Whether the window of the claim is not over."""
    return claim.until_ms is not None and claim.until_ms > w.now_ms


def edit(w: Work, key: str) -> Claim:
    """The copy of the claim that may be changed."""
    claim = w.claim(key)
    if claim is None:
        raise StaleView((NO_RUN, key), "a claim")
    claim = copy.copy(claim)
    w.set_claim(key, claim)
    return claim


def take(w: Work, key: str, node: Key, window_ms: int | None) -> None:
    """Hold a unique key that nobody else holds."""
    until_ms = None if window_ms is None else w.now_ms + window_ms
    w.set_claim(key, Claim(key=key, holders=(node,), until_ms=until_ms))


def enter(w: Work, key: str, node: Key, limit: int) -> bool:
    """Take a place under a concurrency key; False: there is none, and `node` waits for its turn."""
    claim = edit(w, key) if w.claim(key) is not None else Claim(key=key)
    w.set_claim(key, claim)
    claim.limit, claim.waiters = limit, (*claim.waiters, node)
    _next(w, claim, told=node)
    return node in claim.holders


def share(w: Work, key: str, node: Key, of: Key) -> None:
    """Let `node` wait for the outcome of `of`."""
    claim = edit(w, key)
    claim.sharers = (*claim.sharers, Sharer(node, of))


def line_up(w: Work, key: str, node: Key) -> Key | None:
    """Let `node` wait for its turn alone; answers whom it displaced, who shares its outcome from now on."""
    claim = edit(w, key)
    before = claim.waiters[0] if claim.waiters else None
    claim.waiters = (node,)
    if before is not None:
        _follow(claim, before, node, runs=True)
    return before


def supplant(w: Work, key: str, node: Key, window_ms: int | None, *, runs: bool) -> tuple[Key, ...]:
    """Let `node` hold the key instead of a holder that has not started; answers whom it displaced.

    `runs`: the old holder may take its place again should `node` be cancelled.
    """
    claim = edit(w, key)
    (holder,), waiters = claim.holders, claim.waiters
    claim.holders, claim.waiters = (node,), ()
    claim.until_ms = None if window_ms is None else w.now_ms + window_ms
    _follow(claim, holder, node, runs=runs)
    for waiter in waiters:
        _follow(claim, waiter, node, runs=True)
    return (holder, *waiters)


def _follow(claim: Claim, old: Key, new: Key, *, runs: bool) -> None:
    """`old` and who shared its outcome share that of `new`; who came last is first to take its place."""
    moved = [Sharer(one.node, new, one.runs) if one.of == old else one for one in claim.sharers]
    claim.sharers = (Sharer(old, new, runs), *moved)


def turn(w: Work, key: str, node: Node, window_ms: int | None) -> None:
    """It is the turn of `node`, which holds the key from now on, for a window of its own."""
    claim = edit(w, key)
    claim.waiters = tuple(one for one in claim.waiters if one != node.key)
    claim.holders, claim.finished, claim.duplicates = (node.key,), False, 0
    claim.until_ms = None if window_ms is None else w.now_ms + window_ms


def leave(w: Work, key: str, node: Node) -> None:
    """`node` holds the key, waits for it or shares in it no more; those who waited for that are told.

    Who shares its outcome shares SUCCEEDED and FAILED; when it was cancelled or skipped, the first of them who can
    takes its place. A claim that nobody holds or waits for is dropped, unless its window is open.
    """
    claim = w.claim(key)
    if claim is None or not concerns(claim, node.key):
        return
    claim = edit(w, key)
    heir = _part(w, claim, node)
    if node.key in claim.holders and not claim.finished:
        others = tuple(one for one in claim.holders if one != node.key)
        if heir is not None:
            claim.holders = (*others, heir)
            w.pending.append(Wake(heir, "granted", key))
        elif node.state == SUCCEEDED and is_open(w, claim):
            claim.finished = True
            for one in claim.waiters:
                await_turn(w, claim, w.edit(w.known(one, key)))
        else:
            claim.holders = others
            _next(w, claim)
    elif node.key in claim.waiters:
        places = [heir if one == node.key else one for one in claim.waiters]
        claim.waiters = tuple(one for one in places if one is not None)
        if claim.finished and not is_open(w, claim):
            _next(w, claim)  # the window ended before anybody was told
        elif heir is not None:
            await_turn(w, claim, w.edit(w.known(heir, key)))
    else:
        claim.sharers = tuple(one for one in claim.sharers if one.node != node.key)
    if not claim.holders:
        w.set_claim(key, None)


def is_true_yet(w: Work, news: Wake) -> bool:
    """Whether one whose turn had come still has it: a newer call may have displaced it before it was told."""
    if news.event != "granted":
        return True
    assert isinstance(news.about, str)
    claim = w.claim(news.about)
    return claim is not None and news.key in claim.holders and not claim.finished


def await_turn(w: Work, claim: Claim, node: Node) -> None:
    """`node` stands in line; while the window of the claim is open it is woken at its end."""
    node.at_ms = claim.until_ms if claim.until_ms is not None and is_open(w, claim) else 0
    arm(w, node)


def concerns(claim: Claim, node: Key) -> bool:
    """Whether `node` has a part in the claim."""
    live = node in claim.holders and not claim.finished
    return live or node in claim.waiters or any(one.node == node for one in claim.sharers)


def _part(w: Work, claim: Claim, node: Node) -> Key | None:
    """Part `node` from those who share its outcome; answers who takes its place instead, if anybody."""
    mine = [one for one in claim.sharers if one.of == node.key]
    heir = None
    if node.state not in (SUCCEEDED, FAILED):
        heir = next((one.node for one in mine if one.runs), None)
    if heir is None:
        claim.sharers = tuple(one for one in claim.sharers if one.of != node.key)
        w.want(one.node for one in mine)
        w.pending.extend(Wake(one.node, "denied", node) for one in mine)
        return None
    w.want([heir])
    claim.sharers = tuple(
        Sharer(one.node, heir, one.runs) if one.of == node.key else one for one in claim.sharers if one.node != heir
    )
    return heir


def _next(w: Work, claim: Claim, told: Key | None = None) -> None:
    """Whoever there is room for holds the key from now on; `told` knows already."""
    if claim.finished:
        claim.holders, claim.finished, claim.until_ms = (), False, None
    if len(claim.holders) >= claim.limit:
        return
    while claim.waiters and len(claim.holders) < claim.limit:
        w.want(claim.waiters[: claim.limit - len(claim.holders)])
        one, claim.waiters = claim.waiters[0], claim.waiters[1:]
        if one == told:
            claim.holders = (*claim.holders, one)
        elif _waits(w, one):
            claim.holders = (*claim.holders, one)
            w.pending.append(Wake(one, "granted", claim.key))


def _waits(w: Work, key: Key) -> bool:
    """Whether a waiter is still there: a run that was ended as damaged has left no queue."""
    node = w.node(key)
    return node is not None and node.state not in FINAL
