"""Checks in the simulation that every open node is explained, and that what is said about it is true."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from stemflow.core.reasons import Explanation, Facts, Reason
from stemflow.core.why import explain
from stemflow.model.plan import ScopePlan
from stemflow.model.records import FINAL, RUNNING, Node, task_keys

IN_FUTURE = frozenset(("retry", "delayed", "timer", "rate-limit"))
"""Reasons that end at an instant which has not come."""


def check_explained(facts: Facts, has_posts: bool) -> list[str]:
    """What is wrong with the explanations of one run. `has_posts`: ends of members are in its inbox."""
    found = {one.path: one for one in explain(facts)}
    broken = [f"{path or 'the run'}: {text}" for path, text in _missing(facts, found)]
    for one in found.values():
        for reason in one.reasons:
            broken += [f"{one.path or 'the run'}: {reason.code}: {text}" for text in _wrong(facts, reason, has_posts)]
    return broken


def _missing(facts: Facts, found: Mapping[str, Explanation]) -> Sequence[tuple[str, str]]:
    missing = []
    for path, node in facts.nodes.items():
        said = found.get(path)
        if node.state not in FINAL and (said is None or not said.reasons):
            missing.append((path, f"it is {node.state}, and there is no reason"))
        if isinstance(facts.plan_of(node) if node.state not in FINAL else None, ScopePlan):
            missing += [(path, text) for text in _members(facts, node, found)]
    return missing


def _members(facts: Facts, scope: Node, found: Mapping[str, Explanation]) -> list[str]:
    """Every member that has neither opened nor ended is explained, alone or with others."""
    tally = scope.tally
    if tally is None or scope.state != RUNNING or scope.handling:
        return []
    rest = (((1 << tally.size) - 1) & ~(tally.opened | tally.ended)).bit_count()
    said = sum(one.members for one in found.values() if one.state == "waiting" and _is_member(one.path, scope.path))
    return [] if said == rest else [f"{rest} members have not opened, {said} are explained"]


def _is_member(path: str, scope: str) -> bool:
    rest = path[len(scope) :]
    inner = rest.lstrip(".[!")
    return path.startswith(scope) and bool(rest) and not any(mark in inner for mark in ".[!")


def _wrong(facts: Facts, reason: Reason, has_posts: bool) -> list[str]:
    broken = []
    if not reason.text or "unknown" in reason.text:
        broken.append(f"its text is {reason.text!r}")
    if reason.code in IN_FUTURE and (reason.until_ms is None or reason.until_ms <= facts.now_ms):
        broken.append(f"it ends at {reason.until_ms}, and it is {facts.now_ms}")
    if reason.code == "applying" and reason.since_ms is not None and "timer" not in reason.text and not has_posts:
        broken.append("nothing is in the inbox of the run")
    if reason.code in ("concurrency-key", "unique-key", "members", "steps", "hook"):
        broken += _holder(facts, reason)
    return broken


def _holder(facts: Facts, reason: Reason) -> list[str]:
    """What somebody waits for has not ended."""
    if reason.holder is None:
        return ["nothing is named that it waits for"]
    for key in task_keys(reason.holder):
        node = facts.node(key)
        if node is not None:
            return [f"{reason.holder} is {node.state}"] if node.state in FINAL else []
    return [] if reason.code == "steps" else [f"{reason.holder} does not exist"]
