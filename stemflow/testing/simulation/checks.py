"""Checks of each lease and each result in the simulation, in addition to the invariants of the records."""

from __future__ import annotations

from collections.abc import Mapping

from stemflow.core.shape import Shape
from stemflow.core.snapshot_invariants import is_spared
from stemflow.model.effects import Decision
from stemflow.model.facts import Ended
from stemflow.model.records import FINAL, NO_RUN, RUNNING, STOPPING, SUCCEEDED, Claim, Key, Node, Record, parent_path


def at_lease(leaf: Node, records: Mapping[Key, Record], shapes: Mapping[str, Shape], now_ms: int) -> list[str]:
    """I12: nothing is leased in a run that has ended, or below a scope that was stopped, but for what a stop opens or
    spares. I6: what is leased holds its keys. And it has not expired."""
    broken = []
    root = records.get((leaf.run, ""))
    if isinstance(root, Node) and root is not leaf and root.state in FINAL:
        broken.append("its run had ended")
    path, shield, below = leaf.path, leaf.path.rfind("!"), leaf
    while len(path) > shield + 1 and path:
        path = parent_path(path)
        scope = records.get((leaf.run, path))
        if isinstance(scope, Node):
            if is_spared(below, scope, shapes):
                break
            if scope.state == STOPPING and len(path) > shield:
                broken.append(f"{scope.path or 'its run'} was stopped")
            below = scope
    broken += [f"it does not hold {name}" for name in _not_held(leaf, records)]
    if leaf.due_at_ms is not None and leaf.due_at_ms <= now_ms:
        broken.append("it had expired")
    return [f"{leaf.key} was leased although {text}" for text in broken]


def at_commit(decision: Decision, records: Mapping[Key, Record]) -> list[str]:
    """I6: a task that commits a result under a key holds the key until then. `records`: as they are before the
    commit."""
    broken = []
    for put in decision.puts:
        old, new = records.get(put.key), put.record
        if not isinstance(old, Node) or not isinstance(new, Node) or old.tally is not None:
            continue
        if old.state in (RUNNING, STOPPING) and new.state == SUCCEEDED:
            broken += [
                f"{old.key} committed a result under {name}, which it does not hold"
                for name in _not_held(old, records)
            ]
    return broken


def at_refusal(decision: Decision, records: Mapping[Key, Record]) -> list[str]:
    """A report is refused only if its token does not hold. `records`: as they are before the commit."""
    changed = {put.key for put in decision.puts}
    broken = []
    for fact in decision.refused:
        node = records.get(fact.key)
        if not isinstance(fact, Ended) or not isinstance(node, Node) or fact.key in changed:
            continue
        if node.delivery == fact.token and node.state in (RUNNING, STOPPING):
            broken.append(f"{fact.key}: a report was refused although its token {fact.token} holds")
    return broken


def _not_held(node: Node, records: Mapping[Key, Record]) -> list[str]:
    """The keys that it names and does not hold."""
    claims = {name: records.get((NO_RUN, name)) for name in (node.slot, node.claim) if name}
    return [
        name
        for name, claim in claims.items()
        if not isinstance(claim, Claim) or node.key not in claim.holders or claim.finished
    ]
