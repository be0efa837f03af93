"""A graph of named steps: each opens when its predecessors have ended, if the skip rule allows it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from stemflow.core.kinds.base import KindRules, Moves, Opening, View
from stemflow.core.shape import Dag, Shape
from stemflow.core.skip_rule import admitted


def _failed_before(view: View, dag: Dag, target: int) -> bool:
    """Whether a step has failed, and not with `on_error: continue`, from which edges lead to `target`."""
    failed = view.tally.failed & dag.above[target] if view.tally.failed else 0
    while failed:
        index = (failed & -failed).bit_length() - 1
        if view.shape.nodes[view.plan.members[index]].on_error != "continue":
            return True
        failed &= failed - 1
    return False


class StepsRules(KindRules):
    """Its value is its `outputs`, or null."""

    name = "steps"
    names_steps = True

    def opening(self, shape: Shape, node: int, answer: Any) -> Opening:
        return Opening(len(shape.scope(node).members), shape.dag(node).roots)

    def after(self, view: View, index: int, how: str, answer: Any = None) -> Moves:
        """Open the successors of `index`. A skip continues to the successors of the skipped step, without recursion."""
        tally, shape, plan = view.tally, view.shape, view.plan
        dag = shape.dag(view.node)
        opened: dict[int, None] = {}
        skipped: dict[int, str] = {}
        bits, ended = tally.ended, [index]
        while ended:
            for target in dag.successors[ended.pop()]:
                if dag.needed[target] & ~bits or (tally.opened | bits) >> target & 1:
                    continue
                sources = [
                    (
                        edge.kind,
                        skipped.get(edge.source) or tally.how(edge.source),
                        shape.nodes[plan.members[edge.source]].on_error,
                    )
                    for edge in dag.edges[target]
                ]
                run_on = shape.nodes[plan.members[target]].run_on
                verdict = admitted(run_on, sources, run_on == "failure" and _failed_before(view, dag, target))
                if verdict is None:
                    opened[target] = None
                else:
                    skipped[target] = verdict
                    bits |= 1 << target
                    ended.append(target)
        return Moves(opened, tuple((1 << target, verdict) for target, verdict in skipped.items()))

    def spared(self, shape: Shape, node: int) -> int:
        """Steps with `run_on: always` are for what must be done however the scope ends."""
        return sum(1 << index for index in shape.dag(node).always)

    def released(self, view: View) -> Iterable[int]:
        dag, tally = view.shape.dag(view.node), view.tally
        known = tally.opened | tally.ended
        return [i for i in dag.always if not known >> i & 1 and not dag.needed[i] & ~tally.ended]

    def waits(self, shape: Shape, node: int, size: int) -> Iterable[tuple[int, int]]:
        return ((edge.source, target) for target, edges in enumerate(shape.dag(node).edges) for edge in edges)

    def redone(self, shape: Shape, node: int, index: int) -> set[int]:
        dag, again, todo = shape.dag(node), {index}, [index]
        while todo:
            for following in dag.successors[todo.pop()]:
                if following not in again:
                    again.add(following)
                    todo.append(following)
        return again
