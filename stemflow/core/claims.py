"""Claims: the holders of a unique or concurrency key, the order of its waiters, and the nodes that share an outcome.

Theory of operation. A `Claim` is one record per key, which is committed together with the nodes that it concerns. A
node is in at most one of its three lists.

* *holders*: nodes that have the key. A unique key has one holder, a concurrency key up to `limit`. A unique key is
  held until the node is final; a concurrency key by a task until its attempt ends, by a composite until it is final.
* *waiters*: nodes in state HELD, which do not run yet and will get the key in this order. `_next` promotes them as
  long as there is room, and queues a `granted` notice for each; its action then lets the node continue.
* *sharers*: nodes in state HELD that never run, but end with the outcome of a holder or waiter (`Sharer.of`). When
  that one is SUCCEEDED or FAILED, they get a `denied` notice and end likewise. If it is cancelled or skipped instead,
  the first sharer that may run, if any, takes its place, and the others share with it (`_remove_sharers`).

A unique key may have a window: after a holder has succeeded, the claim stays with `finished` until `until_ms`, and
that node stays in its holders. Waiters have a timer for the end of the window; then the next one takes the claim over
(`find`, `turn`). A claim without holders is deleted. When it is created again, its revisions do not repeat earlier
ones (`Work._first_rev`).

A claim changes only in decisions that also guard the nodes concerned by revision and fencing token. That is why a
worker whose lease has expired can never release the key of the next holder: its report is refused, and the release
with it.

`core.unique` chooses the operation, by its mode, when a call finds its unique key taken; `core.admission` uses
concurrency keys.
"""

from __future__ import annotations

import copy

from stemflow.core.timer import arm
from stemflow.core.work import ClaimNotice, StaleView, Work
from stemflow.model.records import FAILED, FINAL, NO_RUN, SUCCEEDED, Claim, Key, Node, Sharer


def find(w: Work, key: str) -> Claim | None:
    """The claim, if it has a holder or an open window. If its window has passed, the next waiter becomes the holder
    first."""
    claim = w.claim(key)
    if claim is None or not claim.finished or is_open(w, claim):
        return claim
    if not claim.waiters:
        return None
    claim = edit(w, key)
    _next(w, claim)
    return claim


def is_open(w: Work, claim: Claim) -> bool:
    """Whether the window of the claim has not passed yet."""
    return claim.until_ms is not None and claim.until_ms > w.now_ms


def edit(w: Work, key: str) -> Claim:
    """The copy of the claim that this decision may change."""
    claim = w.claim(key)
    if claim is None:
        raise StaleView((NO_RUN, key), "a claim")
    claim = copy.copy(claim)
    w.set_shared(key, claim)
    return claim


def take(w: Work, key: str, node: Key, window_ms: int | None) -> None:
    """Let `node` hold a unique key that is free, with a window of `window_ms` milliseconds from now, if any."""
    until_ms = None if window_ms is None else w.now_ms + window_ms
    w.set_shared(key, Claim(key=key, holders=(node,), until_ms=until_ms))


def enter(w: Work, key: str, node: Key, limit: int) -> bool:
    """Let `node` take one of the `limit` slots of a concurrency key; False if there is none, and `node` waits for its
    turn."""
    claim = edit(w, key) if w.claim(key) is not None else Claim(key=key)
    w.set_shared(key, claim)
    claim.limit, claim.waiters = limit, (*claim.waiters, node)
    _next(w, claim, granted=node)
    return node in claim.holders


def share(w: Work, key: str, node: Key, of: Key) -> None:
    """Let `node` share the outcome of `of`."""
    claim = edit(w, key)
    claim.sharers = (*claim.sharers, Sharer(node, of))


def line_up(w: Work, key: str, node: Key) -> Key | None:
    """Make `node` the only waiter. Returns the displaced waiter, which now shares the outcome of `node`, if any."""
    claim = edit(w, key)
    before = claim.waiters[0] if claim.waiters else None
    claim.waiters = (node,)
    if before is not None:
        _follow(claim, before, node, runs=True)
    return before


def supplant(w: Work, key: str, node: Key, window_ms: int | None, *, runs: bool) -> tuple[Key, ...]:
    """Make `node` the holder instead of a holder that has not started. Returns the displaced nodes, which now share its
    outcome.

    `runs`: the old holder may run after all if `node` is cancelled.
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
    """Let `old` and its sharers share the outcome of `new`. The latest one is the first to take its place if it is
    cancelled."""
    moved = [Sharer(one.node, new, one.runs) if one.of == old else one for one in claim.sharers]
    claim.sharers = (Sharer(old, new, runs), *moved)


def turn(w: Work, key: str, node: Node, window_ms: int | None) -> None:
    """Make the waiter `node` the holder, with a new window of `window_ms` milliseconds, if any."""
    claim = edit(w, key)
    claim.waiters = tuple(one for one in claim.waiters if one != node.key)
    claim.holders, claim.finished, claim.duplicates = (node.key,), False, 0
    claim.until_ms = None if window_ms is None else w.now_ms + window_ms


def leave(w: Work, key: str, node: Node) -> None:
    """Remove `node` from the claim, and notify the nodes that waited for that.

    Its sharers get its outcome if it is SUCCEEDED or FAILED. If it was cancelled or skipped, the first sharer that may
    run takes its place. A claim without holders is deleted, unless its window is open.
    """
    claim = w.claim(key)
    if claim is None or not concerns(claim, node.key):
        return
    claim = edit(w, key)
    heir = _remove_sharers(w, claim, node)
    if node.key in claim.holders and not claim.finished:
        others = tuple(one for one in claim.holders if one != node.key)
        if heir is not None:
            claim.holders = (*others, heir)
            w.pending.append(ClaimNotice(heir, "granted", key))
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
            _next(w, claim)  # the window passed before a waiter took the claim over
        elif heir is not None:
            await_turn(w, claim, w.edit(w.known(heir, key)))
    else:
        claim.sharers = tuple(one for one in claim.sharers if one.node != node.key)
    if not claim.holders:
        w.set_shared(key, None)


def release(w: Work, key: str, holders: tuple[Key, ...]) -> bool:
    """Take a key away from those of `holders` that hold it, or end its window; whether that changed anything.

    What held it goes on, and notices nothing. A holder whose outcome others can only share keeps it.
    """
    claim = w.claim(key)
    if claim is None or not set(holders) & set(claim.holders):
        return False
    w.want(holders)
    nodes = {one: w.node(one) for one in holders}
    claim = edit(w, key)
    if not claim.finished:
        before = claim.holders
        for one in holders:
            if one in claim.holders:
                _take_away(w, claim, one, nodes[one])
        if claim.holders == before:
            return False
    _next(w, claim)
    if not claim.holders:
        w.set_shared(key, None)
    return True


def _take_away(w: Work, claim: Claim, holder: Key, node: Node | None) -> None:
    mine = [one for one in claim.sharers if one.of == holder]
    if mine and (node is None or (node.state not in FINAL and not any(one.runs for one in mine))):
        return
    heir = _remove_sharers(w, claim, node) if node is not None and mine else None
    others = tuple(one for one in claim.holders if one != holder)
    claim.holders = others if heir is None else (*others, heir)
    if heir is not None:
        w.pending.append(ClaimNotice(heir, "granted", claim.key))


def still_applies(w: Work, notice: ClaimNotice) -> bool:
    """Whether a notice is still valid: a newer call may have displaced the node before the notice was processed."""
    if notice.event != "granted":
        return True
    assert isinstance(notice.about, str)
    claim = w.claim(notice.about)
    return claim is not None and notice.key in claim.holders and not claim.finished


def await_turn(w: Work, claim: Claim, node: Node) -> None:
    """Set the timer of a waiter to the end of the claim's window, if it is open."""
    node.at_ms = claim.until_ms if claim.until_ms is not None and is_open(w, claim) else 0
    arm(w, node)


def concerns(claim: Claim, node: Key) -> bool:
    """Whether `node` is an active holder, a waiter or a sharer of the claim."""
    live = node in claim.holders and not claim.finished
    return live or node in claim.waiters or any(one.node == node for one in claim.sharers)


def _remove_sharers(w: Work, claim: Claim, node: Node) -> Key | None:
    """Separate `node` from its sharers: notify them of its outcome, or return the one that takes its place."""
    mine = [one for one in claim.sharers if one.of == node.key]
    heir = None
    if node.state not in (SUCCEEDED, FAILED):
        heir = next((one.node for one in mine if one.runs), None)
    if heir is None:
        claim.sharers = tuple(one for one in claim.sharers if one.of != node.key)
        w.want(one.node for one in mine)
        w.pending.extend(ClaimNotice(one.node, "denied", node) for one in mine)
        return None
    w.want([heir])
    claim.sharers = tuple(
        Sharer(one.node, heir, one.runs) if one.of == node.key else one for one in claim.sharers if one.node != heir
    )
    return heir


def _next(w: Work, claim: Claim, granted: Key | None = None) -> None:
    """Promote waiters to holders as long as there is room. `granted` needs no notice, as its caller handles it."""
    if claim.finished:
        claim.holders, claim.finished, claim.until_ms = (), False, None
    if len(claim.holders) >= claim.limit:
        return
    while claim.waiters and len(claim.holders) < claim.limit:
        w.want(claim.waiters[: claim.limit - len(claim.holders)])
        one, claim.waiters = claim.waiters[0], claim.waiters[1:]
        if one == granted:
            claim.holders = (*claim.holders, one)
        elif _waits(w, one):
            claim.holders = (*claim.holders, one)
            w.pending.append(ClaimNotice(one, "granted", claim.key))


def _waits(w: Work, key: Key) -> bool:
    """Whether a waiter still exists and waits. The nodes of a run that failed because of an invalid signature are not
    removed from their claims."""
    node = w.node(key)
    return node is not None and node.state not in FINAL
