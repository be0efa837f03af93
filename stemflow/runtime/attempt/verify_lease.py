"""Before a handler starts: is this lease what somebody with a key meant to be started, here and now?"""

from __future__ import annotations

from stemflow.model.plan import LeafPlan
from stemflow.model.records import FINAL, Key, Node, parent_path
from stemflow.runtime.payloads.signing import SignatureInvalid, UnknownKey
from stemflow.runtime.values.library import Library

SKEW_MS = 5_000
"""How far the clocks of two processes may be apart before an expiry that was overstepped is taken for a forgery."""


async def vouch(library: Library, node: Node, queues: tuple[str, ...] | None) -> int | None:
    """None when the handler may start, or in how many ms the lease is to be handed back for.

    A signature alone cannot tell a record from its own copy, so a copy that was put back, or elsewhere, is told by what
    it rests on: the record under its own name, the scopes above it that know which members have ended, and its run.
    Raises SignatureInvalid, UnknownKey.
    """
    trust = library.trust
    if trust.keys is None:
        if node.seal is not None:
            raise UnknownKey(f"task {'/'.join(node.key).rstrip('/')}", None)
        return None
    trust.demand(node)
    await library.header(node.run)
    where = f"task {'/'.join(node.key).rstrip('/')}"
    if node.run in trust.ended:
        raise SignatureInvalid(where, "its run has ended before")
    keys = _upwards(node.key)
    stored, *above = await library.store.read(keys)
    if not isinstance(stored, Node) or stored.delivery != node.delivery or stored.state in FINAL:
        return 0
    index = node.index
    for key, scope in zip(keys[1:], above, strict=True):
        trust.demand(scope)
        if not isinstance(scope, Node) or scope.tally is None or not _awaits(scope, index):
            raise SignatureInvalid(where, f"the scope {key[1] or 'of the run'} does not wait for it")
        index = scope.index
    leaf = (await library.shape(node.plan)).nodes[node.node]
    assert isinstance(leaf, LeafPlan)
    return _when(node, leaf, queues, library.store.now_ms(), where)


def _upwards(key: Key) -> list[Key]:
    keys = [key]
    while keys[-1][1]:
        keys.append((key[0], parent_path(keys[-1][1])))
    return keys


def _awaits(scope: Node, index: int) -> bool:
    """Whether member `index` (a handler, if negative) was opened and has not ended."""
    assert scope.tally is not None
    if scope.state in FINAL:
        return False
    return scope.handling if index < 0 else bool(scope.tally.open >> index & 1)


def _when(node: Node, leaf: LeafPlan, queues: tuple[str, ...] | None, now_ms: int, where: str) -> int | None:
    if queues is not None and node.queue not in queues:
        raise SignatureInvalid(where, f"it is for the queue {node.queue} and came by another")
    if node.due_at_ms is not None and node.due_at_ms + SKEW_MS < now_ms:
        raise SignatureInvalid(where, "it had expired")
    first_ms = 0 if node.attempt else max(node.opened_at_ms + leaf.delay_ms, leaf.eta_at_ms or 0)
    return first_ms - now_ms if first_ms > now_ms else None
