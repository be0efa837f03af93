"""What took the time of a run, computed from its records: the steps that decided when it ended, and the slowest."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from stemflow.model.records import FINAL, WAITING, Node, parent_path


class Span(Struct, frozen=True, kw_only=True):
    """How long a task, wait or event took, in epoch milliseconds. `started_at_ms`: of its last attempt; it is
    `opened_at_ms` for what no worker runs."""

    path: str
    state: str
    opened_at_ms: int
    started_at_ms: int
    ended_at_ms: int

    @property
    def took_ms(self) -> int:
        """From the instant at which it could have started to its end, or until now."""
        return self.ended_at_ms - self.opened_at_ms


def spans(nodes: Sequence[Node], now_ms: int) -> list[Span]:
    """One of each node without members that has opened, in order of opening."""
    scopes = {parent_path(node.path) for node in nodes if node.path}
    found = [_span(node, now_ms) for node in nodes if _has_opened(node) and node.path not in scopes]
    return sorted(found, key=lambda one: one.opened_at_ms)


def slowest(found: Sequence[Span], most: int) -> list[Span]:
    """The `most` spans that took longest, the longest first."""
    return sorted(found, key=lambda one: -one.took_ms)[:most]


def critical_path(nodes: Sequence[Node], now_ms: int) -> list[Span]:
    """The spans that decided when the run ended, in order: before each of them the one whose end let it open.

    In a composite that is the member that ended last, before it the sibling that ended last when it opened, and so on.
    """
    below: dict[str, list[Node]] = {}
    for node in nodes:
        if node.path and _has_opened(node):
            below.setdefault(parent_path(node.path), []).append(node)
    root = next((node for node in nodes if not node.path), None)
    found: list[Span] = []
    todo = [] if root is None else [root]
    while todo:
        node = todo.pop()
        members = below.get(node.path)
        if not members:
            found.append(_span(node, now_ms))
            continue
        todo += reversed(_chain(members, now_ms))
    return found


def _chain(members: Sequence[Node], now_ms: int) -> list[Node]:
    """The members of one composite on the path, the first one first."""
    by_end = sorted(members, key=lambda one: (_ended(one, now_ms), -one.started_at_ms))
    chain = [by_end.pop()]
    for one in reversed(by_end):
        if one.state in FINAL and one.ended_at_ms <= chain[-1].opened_at_ms:
            chain.append(one)
    return chain[::-1]


def _has_opened(node: Node) -> bool:
    return node.opened_at_ms > 0 and node.state != WAITING


def _ended(node: Node, now_ms: int) -> int:
    return node.ended_at_ms or max(now_ms, node.opened_at_ms)


def _span(node: Node, now_ms: int) -> Span:
    started_at_ms = node.started_at_ms or node.opened_at_ms
    return Span(
        path=node.path, state=node.state, opened_at_ms=node.opened_at_ms, started_at_ms=started_at_ms,
        ended_at_ms=_ended(node, now_ms),
    )  # fmt: skip
