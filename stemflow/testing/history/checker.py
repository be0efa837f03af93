"""Checks a history, like Jepsen's total-queue checker: no single source is trusted.

It compares the answers that clients got (`Said`), what handlers and engines observed (`Sight`), and the final contents
of the store. The outcome `fail` means certainly not done; a client that does not know records `info`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Iterable, Mapping, Sequence
from typing import Any, Literal

from msgspec import Struct

from stemflow.model.records import FINAL, SUCCEEDED, Node
from stemflow.runtime.runs.handle import RunHandle
from stemflow.store.base import BackpressureError, StoreError
from stemflow.testing.history.witness import Sight

NodeKey = tuple[str, str]
"""(run id, path of the node)."""


class Said(Struct, frozen=True):
    """The answer that the client who submitted `run` got."""

    run: str
    outcome: Literal["ok", "fail", "info"]


class Clients:
    """Submissions and their outcomes."""

    def __init__(self) -> None:
        self.said: list[Said] = []

    async def submit(self, run: str, asked: Awaitable[RunHandle[Any]]) -> RunHandle[Any] | None:
        """Await a submission and record its outcome; None unless it was accepted."""
        try:
            handle = await asked
        except BackpressureError:
            self.said.append(Said(run, "fail"))
            return None
        except StoreError:
            self.said.append(Said(run, "info"))
            return None
        self.said.append(Said(run, "ok"))
        return handle


class Verdict(Struct, frozen=True, kw_only=True):
    """The result of checking a history. All fields but `doubled`, `recovered` and `refused` must be empty."""

    runs: int
    lost: tuple[str, ...]
    """Runs that were accepted and do not exist, or have a succeeded task whose handler was never seen to finish."""
    stuck: tuple[str, ...]
    """Runs that exist and have not ended."""
    unexpected: tuple[str, ...]
    """Runs that exist, or whose tasks ran, although nobody submitted them, or the submission failed."""
    double_commits: tuple[NodeKey, ...]
    """Nodes with two committed outcomes, or with one that the final record contradicts."""
    double_leases: tuple[NodeKey, ...]
    """Nodes that two handlers ran under the same token."""
    out_of_order: tuple[NodeKey, ...]
    """Nodes that began before one of their predecessors had ended."""
    doubled: int
    """Deliveries of an attempt beyond the first. They are allowed, since a handler runs at least once."""
    recovered: int
    """Existing runs whose submission had an unknown outcome."""
    refused: int
    """Handlers that finished, but whose outcome was not the committed one."""

    @property
    def fatal(self) -> dict[str, tuple[Any, ...]]:
        """The fields that violate a promise, by name."""
        names = ("lost", "stuck", "unexpected", "double_commits", "double_leases", "out_of_order")
        return {name: found for name in names if (found := getattr(self, name))}


def check(
    said: Sequence[Said],
    sights: Sequence[Sight],
    final: Mapping[str, Sequence[Node]],
    after: Mapping[str, Iterable[str]] | None = None,
) -> Verdict:
    """Check a history.

    `final`: the records of every run in the store, by run. `after`: the predecessors of each path, the same in every
    run."""
    answers = {one.run: one.outcome for one in said}
    nodes = {node.key: node for some in final.values() for node in some}
    begun = Counter((s.run, s.node, s.token) for s in sights if s.event == "begin")
    attempts = Counter((s.run, s.node, s.attempt) for s in sights if s.event == "begin")
    seen = {s.run for s in sights}
    return Verdict(
        runs=len(answers),
        lost=tuple(sorted(_lost(answers, sights, final))),
        stuck=tuple(sorted(run for run, some in final.items() if _root(some).state not in FINAL)),
        unexpected=tuple(sorted(run for run in seen | final.keys() if answers.get(run, "fail") == "fail")),
        double_commits=tuple(sorted(_double_commits(sights, nodes))),
        double_leases=tuple(sorted({(run, node) for (run, node, _), count in begun.items() if count > 1})),
        out_of_order=tuple(sorted(_out_of_order(sights, after or {}))),
        doubled=sum(count - 1 for count in attempts.values()),
        recovered=sum(outcome == "info" and run in final for run, outcome in answers.items()),
        refused=_refused(sights, nodes),
    )


def _root(nodes: Sequence[Node]) -> Node:
    return next(node for node in nodes if node.path == "")


def _lost(answers: Mapping[str, str], sights: Sequence[Sight], final: Mapping[str, Sequence[Node]]) -> set[str]:
    ended = {(s.run, s.node) for s in sights if s.event == "end"}
    witnessed = {(s.run, s.node) for s in sights if s.event == "begin"}
    gone = {run for run, outcome in answers.items() if outcome == "ok" and run not in final}
    # Only tasks in the witness log have observed ends; scopes and waits have no handler.
    hollow = {
        node.run
        for some in final.values()
        for node in some
        if node.state == SUCCEEDED and node.key in witnessed and node.key not in ended
    }
    return gone | hollow


def _double_commits(sights: Sequence[Sight], nodes: Mapping[NodeKey, Node]) -> set[NodeKey]:
    outcomes: dict[NodeKey, set[tuple[int, str]]] = {}
    for sight in sights:
        if sight.event == "commit":
            outcomes.setdefault((sight.run, sight.node), set()).add((sight.token, sight.state))
    found = {place for place, some in outcomes.items() if len(some) > 1}
    for place, some in outcomes.items():
        node = nodes.get(place)
        if node is not None and (node.delivery, node.state) not in some:
            found.add(place)
    return found


def _out_of_order(sights: Sequence[Sight], after: Mapping[str, Iterable[str]]) -> set[NodeKey]:
    found: set[NodeKey] = set()
    ended: dict[NodeKey, int] = {}
    for sight in sights:
        if sight.event == "end":
            at_ns = ended.get((sight.run, sight.node), sight.at_ns)
            ended[(sight.run, sight.node)] = min(at_ns, sight.at_ns)
    for sight in sights:
        if sight.event == "begin":
            for path in after.get(sight.node, ()):
                if ended.get((sight.run, path), sight.at_ns) >= sight.at_ns:
                    found.add((sight.run, sight.node))
    return found


def _refused(sights: Sequence[Sight], nodes: Mapping[NodeKey, Node]) -> int:
    ends = {(s.run, s.node, s.token) for s in sights if s.event == "end"}
    return sum(
        (run, path) in nodes and nodes[(run, path)].state in FINAL and nodes[(run, path)].delivery != token
        for run, path, token in ends
    )
