"""Unique keys: who holds one, who waits for it, who gets it next."""

from __future__ import annotations

import copy
from typing import Literal, NamedTuple

from stemflow.core.work import Work
from stemflow.model.records import FAILED, SUCCEEDED, Claim, Key, Node


class Contended(NamedTuple):
    """`granted`: the key is ours; `held`: its holder lives; `finished`: its holder ended inside the window."""

    answer: Literal["granted", "held", "finished"]
    holder: Key


def contend(w: Work, key: str, node: Key, window_ms: int | None, *, take: bool = False) -> Contended:
    """Take the claim `key` for `node` if it is free, or (with `take`) if its holder has ended."""
    claim = w.claim(key)
    if claim is not None and not claim.finished:
        return Contended("held", claim.holder)
    if claim is not None and not take and claim.until_ms is not None and claim.until_ms > w.now_ms:
        return Contended("finished", claim.holder)
    until = None if window_ms is None else w.now_ms + window_ms
    w.set_claim(key, Claim(key=key, holder=node, until_ms=until))
    return Contended("granted", node)


def queue_up(w: Work, key: str, node: Key) -> None:
    """Let `node` wait for the outcome of the claim's holder."""
    claim = _edit(w, key)
    claim.waiters = (*claim.waiters, node)
    w.set_claim(key, claim)


def withdraw(w: Work, key: str, node: Key) -> bool:
    """Take a waiter that was cancelled out of the queue; False when it is the holder by now."""
    claim = _edit(w, key)
    if claim.holder == node:
        return False
    claim.waiters = tuple(waiter for waiter in claim.waiters if waiter != node)
    w.set_claim(key, claim)
    return True


def release(w: Work, key: str, node: Node) -> tuple[tuple[Key, ...], bool]:
    """Give the claim back as `node` ends; answers the waiters to be told, and whether the first of them now holds it.

    Waiters share SUCCEEDED and FAILED; when the holder was cancelled or skipped, the first waiter becomes the holder.
    """
    claim = w.claim(key)
    if claim is None or claim.holder != node.key:
        return (), False
    claim = _edit(w, key)
    shared = node.state in (SUCCEEDED, FAILED)
    if not shared and claim.waiters:
        first, *rest = claim.waiters
        claim.holder, claim.waiters = first, tuple(rest)
        w.set_claim(key, claim)
        return (first,), True
    waiters, claim.waiters = claim.waiters, ()
    keep = node.state == SUCCEEDED and claim.until_ms is not None and claim.until_ms > w.now_ms
    claim.finished = True
    w.set_claim(key, claim if keep else None)
    return waiters, False


def _edit(w: Work, key: str) -> Claim:
    claim = w.claim(key)
    assert claim is not None
    return copy.copy(claim)
