"""Verifying a lease before its handler starts: it was signed, it was not replayed, and it is due.

Only stores with signing keys need this (ADR 25).
"""

from __future__ import annotations

from stemflow.model.plan import LeafPlan
from stemflow.model.records import FINAL, Key, Node, parent_path
from stemflow.runtime.payloads.signing import SignatureInvalid, UnknownKey
from stemflow.runtime.values.library import Library

SKEW_MS = 5_000
"""By how much the clocks of two processes may differ before a lease after its expiry counts as forged."""


async def verify_lease(library: Library, node: Node, queues: tuple[str, ...] | None) -> int | None:
    """Return None if the handler may start, else the milliseconds for which the lease is to be handed back.

    A signature cannot tell a record from a copy of it, so a record that was replayed, or copied to another place, is
    found by what refers to it: the record under its own key, the scopes above it, which know the members that have
    ended, and its run. `queues`: those that this worker serves; None: all. Raises SignatureInvalid, UnknownKey.
    """
    trust = library.trust
    if trust.keys is None:
        if node.seal is not None:
            raise UnknownKey(f"task {'/'.join(node.key).rstrip('/')}", None)
        return None
    trust.verify(node)
    await library.header(node.run)
    where = f"task {'/'.join(node.key).rstrip('/')}"
    if node.run in trust.ended:
        raise SignatureInvalid(where, "its run has ended before")
    keys = _with_scopes(node.key)
    stored, *scopes = await library.store.read(keys)
    if not isinstance(stored, Node) or stored.delivery != node.delivery or stored.state in FINAL:
        return 0
    index = node.index
    for key, scope in zip(keys[1:], scopes, strict=True):
        trust.verify(scope)
        if not isinstance(scope, Node) or scope.tally is None or not _waits_for(scope, index):
            raise SignatureInvalid(where, f"the scope {key[1] or 'of the run'} does not wait for it")
        index = scope.index
    leaf = (await library.shape(node.plan)).nodes[node.node]
    assert isinstance(leaf, LeafPlan)
    return _too_early_ms(node, leaf, queues, library.store.now_ms(), where)


def _with_scopes(key: Key) -> list[Key]:
    """The key of a node, and those of the scopes above it up to the run."""
    keys = [key]
    while keys[-1][1]:
        keys.append((key[0], parent_path(keys[-1][1])))
    return keys


def _waits_for(scope: Node, index: int) -> bool:
    """Whether member `index` (a handler, if negative) was opened and has not ended."""
    assert scope.tally is not None
    if scope.state in FINAL:
        return False
    return scope.handling if index < 0 else bool(scope.tally.open >> index & 1)


def _too_early_ms(node: Node, leaf: LeafPlan, queues: tuple[str, ...] | None, now_ms: int, where: str) -> int | None:
    if queues is not None and node.queue not in queues:
        raise SignatureInvalid(where, f"it is for the queue {node.queue} and was leased from another")
    if node.due_at_ms is not None and node.due_at_ms + SKEW_MS < now_ms:
        raise SignatureInvalid(where, "it had expired")
    first_ms = 0 if node.attempt else max(node.opened_at_ms + leaf.delay_ms, leaf.eta_at_ms or 0)
    return first_ms - now_ms if first_ms > now_ms else None
