"""Invariants of every commit, and of every run that has ended. A violation is described by a sentence."""

from __future__ import annotations

from collections.abc import Mapping

from stemflow.core.kinds import rules_of
from stemflow.core.shape import Shape
from stemflow.model.plan import LeafPlan, ScopePlan
from stemflow.model.records import CANCELLED, FAILED, FINAL, Claim, Key, Node, Record, Tally, parent_path

_SETS = ("ok", "failed", "skipped", "upstream", "cancelled")


def check_commit(before: Mapping[Key, Record | None], after: Mapping[Key, Record | None], now_ms: int) -> list[str]:
    """Violations in one commit (I2, I4, I14, I15 and the tallies), given its records before and after."""
    broken: list[str] = _taken_away(before, after)
    for key, new in after.items():
        old = before.get(key)
        if isinstance(new, Node):
            broken += [f"{key}: {text}" for text in _node(old if isinstance(old, Node) else None, new)]
        elif isinstance(new, Claim):
            broken += [f"{key}: {text}" for text in _claim(old if isinstance(old, Claim) else None, new)]
    return broken


def _taken_away(before: Mapping[Key, Record | None], after: Mapping[Key, Record | None]) -> list[str]:
    """Only a commit that is guarded by the holder's record, and so by its token, may release a key (I6)."""
    broken = []
    for place, old in before.items():
        if isinstance(old, Claim) and not old.finished:
            new = after.get(place)
            gone = set(old.holders) - set(new.holders if isinstance(new, Claim) else ())
            broken += [f"{old.key} was taken from {holder}, which had no part in it" for holder in gone - set(after)]
    return broken


def _claim(old: Claim | None, new: Claim) -> list[str]:
    """A claim has at most `limit` holders (I6, I7), none of them twice, and no waiter while there is room."""
    broken = []
    came = set(new.holders) - set(old.holders if old is not None else ())
    if came and len(new.holders) > new.limit:
        broken.append(f"{len(new.holders)} hold it, its limit is {new.limit}")
    names = [*new.holders, *new.waiters, *(one.node for one in new.sharers)]
    if len(set(names)) < len(names):
        broken.append("somebody is in it twice")
    if new.waiters and len(new.holders) < new.limit:
        broken.append("somebody waits for it while there is room")
    if not new.holders:
        broken.append("nobody holds it")
    return broken


def _node(old: Node | None, new: Node) -> list[str]:
    broken = [] if new.tally is None else tally_breaches(new.tally)
    if new.state in FINAL and new.tally is not None and new.tally.open:
        broken.append(f"it is {new.state} while members are open")
    if not new.unlisted:
        broken += _journal(new)
    if old is None:
        return broken
    if old.state in FINAL:
        broken.append(f"it was {old.state}, which is final, and was changed to {new.state}")
    if new.delivery < old.delivery:
        broken.append(f"its token went back from {old.delivery} to {new.delivery}")
    if new.rev <= old.rev:
        broken.append(f"its revision went from {old.rev} to {new.rev}")
    if old.tally is not None and new.tally is not None:
        broken += _grown(old.tally, new.tally)
    return broken


def _journal(node: Node) -> list[str]:
    """The journal names each charged failure and each loss; the last of them may have ended the task."""
    outcomes = [one.outcome for one in node.journal]
    failures, losses = (sum(how in some for how in outcomes) for some in (("failed", "timed-out"), ("lost",)))
    broken = []
    if failures - node.attempt not in (0, 1 if node.state == FAILED else 0):
        broken.append(f"its journal has {failures} failures, it is at attempt {node.attempt}")
    if losses - node.losses not in (0, 1 if node.state == CANCELLED else 0):
        broken.append(f"its journal has {losses} losses, it counts {node.losses}")
    return broken


def _grown(old: Tally, new: Tally) -> list[str]:
    """A bit that was set stays set, in the same bit set."""
    names = ("opened", "ended", *_SETS)
    return [f"its {name} bits went back" for name in names if getattr(old, name) & ~getattr(new, name)]


def tally_breaches(tally: Tally) -> list[str]:
    """Counters equal the number of bits, the outcome sets are disjoint, and their union is the set of ended members."""
    broken = []
    if tally.done != tally.ended.bit_count():
        broken.append(f"its tally counts {tally.done} ended members, {tally.ended.bit_count()} bits are turned")
    if tally.failures != tally.failed.bit_count():
        broken.append(f"its tally counts {tally.failures} failures, {tally.failed.bit_count()} bits are turned")
    if sum(getattr(tally, name).bit_count() for name in _SETS) != tally.ended.bit_count():
        broken.append("a member of its tally ended in two ways, or in none")
    if tally.opened >> tally.size or tally.ended >> tally.size:
        broken.append(f"its tally has bits beyond its {tally.size} members")
    return broken


def check_run(
    nodes: Mapping[Key, Node], shapes: Mapping[str, Shape], opened: Mapping[Key, int], ended: Mapping[Key, int]
) -> list[str]:
    """Violations in a run that has ended: an open node, a tally that disagrees with its members, too many attempts."""
    broken: list[str] = []
    for key, node in nodes.items():
        plan = shapes[node.plan].nodes[node.node]
        if node.state not in FINAL:
            broken.append(f"{key}: it is {node.state} although its run has ended")
        if isinstance(plan, LeafPlan):
            limit = shapes[node.plan].plan.options[plan.options].max_retries
            if node.attempt > limit:
                broken.append(f"{key}: attempt {node.attempt} with {limit} retries allowed")
        elif isinstance(plan, ScopePlan) and node.tally is not None:
            broken += [f"{key}: {text}" for text in _order(node, plan, nodes, shapes[node.plan], opened, ended)]
    return broken + _members(nodes)


def _members(nodes: Mapping[Key, Node]) -> list[str]:
    """Each member's record agrees with its bit in the tally (I3, I14)."""
    broken = []
    for node in nodes.values():
        scope = nodes.get((node.run, parent_path(node.path)))
        if not node.path or scope is None or scope.tally is None or node.index < 0:
            continue
        how = scope.tally.how(node.index)
        recorded = {"ok": "succeeded", "upstream": "skipped"}.get(how or "", how)
        if recorded != node.state:
            broken.append(f"{node.key}: it is {node.state}, its scope has it as {how}")
    return broken


def _order(
    scope: Node,
    plan: ScopePlan,
    nodes: Mapping[Key, Node],
    shape: Shape,
    opened: Mapping[Key, int],
    ended: Mapping[Key, int],
) -> list[str]:
    """Members opened after their predecessors had ended (I11)."""
    members = (n for n in nodes.values() if n.path and n.run == scope.run and parent_path(n.path) == scope.path)
    from_index = {member.index: member for member in members}
    assert scope.tally is not None
    broken = []
    for source, target in rules_of(plan).waits(shape, scope.node, scope.tally.size):
        first, second = from_index.get(source), from_index.get(target)
        if first and second and opened[second.key] < ended.get(first.key, opened[second.key] + 1):
            broken.append(f"{second.path} was opened before {first.path} had ended")
    return broken


__all__ = ["check_commit", "check_run", "tally_breaches"]
