"""Quarantine: a task whose worker died under it twice runs alone, so that a third death names its cause."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

from stemflow.core.shape import Shape
from stemflow.model.plan import LeafPlan
from stemflow.model.records import Node, task_id
from stemflow.runtime.worker.slots import Slots
from stemflow.store.base import Lease

log = logging.getLogger("stemflow.worker")

SUSPECT_AFTER = 2
"""Losses of a task after which it runs alone in its worker."""


class Quarantine:
    """Limits what a worker leases while it has a suspect: nothing until it is empty, then one task at a time.

    `shapes` are the plans that this process knows, by digest.
    """

    def __init__(self, slots: Slots, shapes: Mapping[str, Shape]) -> None:
        self._slots, self._shapes = slots, shapes
        self.active = False

    def limit(self, free: int) -> int:
        """How many leases to ask for when `free` slots are free."""
        if not self.active:
            return free
        return min(free, 0 if self._slots.released.occupied else 1)

    def admit(self, leases: Sequence[Lease], asked: bool) -> tuple[list[Lease], list[Lease]]:
        """Split the leases of an exchange into those to start and those to give back.

        `asked`: the exchange could have brought leases, so that none is a sign that no suspect waits.
        """
        running, released = self._slots.running, self._slots.released
        if self.active and any(self._is_suspect(one.node) for token, one in running.items() if token not in released):
            return [], list(leases)  # they were asked for before the suspect came
        suspects = [lease for lease in leases if self._is_suspect(lease.node)]
        if not suspects:
            if asked:
                self.active = False
            return list(leases), []
        for node in (lease.node for lease in suspects):
            name = task_id(node.key)
            log.warning("task %s was lost %d times; it runs when this worker has nothing else", name, node.losses)
        self.active = True
        if not released.occupied:
            return suspects[:1], [lease for lease in leases if lease is not suspects[0]]
        return [lease for lease in leases if lease not in suspects], suspects

    def _is_suspect(self, node: Node) -> bool:
        """A task that runs in a process of its own is none: it cannot take others with it."""
        if node.losses < SUSPECT_AFTER:
            return False
        shape = self._shapes.get(node.plan)
        leaf = shape.nodes[node.node] if shape is not None else None
        return not (isinstance(leaf, LeafPlan) and shape and shape.plan.options[leaf.options].isolation == "process")
