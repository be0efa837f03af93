"""The checker of a history, in the manner of Jepsen's total-queue: nobody's word is taken alone.

It compares what clients were told (`Said`), what handlers and engines saw (`Sight`), and how the store stands at the
end. An outcome `fail` means certainly not done; whoever does not know says `info`.
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
    """What the client that submitted `run` was told."""

    run: str
    outcome: Literal["ok", "fail", "info"]


class Clients:
    """Submissions with what came of each."""

    def __init__(self) -> None:
        self.said: list[Said] = []

    async def submit(self, run: str, asked: Awaitable[RunHandle[Any]]) -> RunHandle[Any] | None:
        """Await a submission and write down what its asker knows after it; None unless it was accepted."""
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
    """What a history shows. All but `doubled`, `recovered` and `refused` must be empty."""

    runs: int
    lost: tuple[str, ...]
    """Runs that were accepted and are not there, or have a task that succeeded and was never seen to end."""
    stuck: tuple[str, ...]
    """Runs that are there and have not ended."""
    unexpected: tuple[str, ...]
    """Runs that are there, or whose tasks ran, though nobody asked for them or the asker was told that they failed."""
    double_commits: tuple[NodeKey, ...]
    """Nodes with two committed outcomes, or one that the store's last record contradicts."""
    double_leases: tuple[NodeKey, ...]
    """Nodes that two handlers worked on under the same token."""
    out_of_order: tuple[NodeKey, ...]
    """Nodes that began before one that they wait for had ended."""
    doubled: int
    """Deliveries beyond the first of an attempt: allowed, since a handler runs at least once."""
    recovered: int
    """Runs whose asker did not know, and that are there."""
    refused: int
    """Handlers that came to their end and whose outcome is not the one that was committed."""

    @property
    def fatal(self) -> dict[str, tuple[Any, ...]]:
        """What breaks a promise, by name."""
        names = ("lost", "stuck", "unexpected", "double_commits", "double_leases", "out_of_order")
        return {name: found for name in names if (found := getattr(self, name))}


def check(
    said: Sequence[Said],
    sights: Sequence[Sight],
    final: Mapping[str, Sequence[Node]],
    after: Mapping[str, Iterable[str]] | None = None,
) -> Verdict:
    """Judge a history. `final`: the records of every run that the store has, by run; `after`: for each path those that
    it waits for, in every run."""
    told = {one.run: one.outcome for one in said}
    nodes = {node.key: node for some in final.values() for node in some}
    begun = Counter((s.run, s.node, s.token) for s in sights if s.event == "begin")
    attempts = Counter((s.run, s.node, s.attempt) for s in sights if s.event == "begin")
    seen = {s.run for s in sights}
    return Verdict(
        runs=len(told),
        lost=tuple(sorted(_lost(told, sights, final))),
        stuck=tuple(sorted(run for run, some in final.items() if _root(some).state not in FINAL)),
        unexpected=tuple(sorted(run for run in seen | final.keys() if told.get(run, "fail") == "fail")),
        double_commits=tuple(sorted(_double_commits(sights, nodes))),
        double_leases=tuple(sorted({(run, node) for (run, node, _), count in begun.items() if count > 1})),
        out_of_order=tuple(sorted(_out_of_order(sights, after or {}))),
        doubled=sum(count - 1 for count in attempts.values()),
        recovered=sum(outcome == "info" and run in final for run, outcome in told.items()),
        refused=_refused(sights, nodes),
    )


def _root(nodes: Sequence[Node]) -> Node:
    return next(node for node in nodes if node.path == "")


def _lost(told: Mapping[str, str], sights: Sequence[Sight], final: Mapping[str, Sequence[Node]]) -> set[str]:
    ended = {(s.run, s.node) for s in sights if s.event == "end"}
    witnessed = {(s.run, s.node) for s in sights if s.event == "begin"}
    gone = {run for run, outcome in told.items() if outcome == "ok" and run not in final}
    # Only tasks that the witness knows can be asked for their end; scopes and waits run no handler.
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
