"""Tasks that were lost twice run with no neighbours, so that the third death names its culprit and blames no other."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from stemflow.model.plan import LeafPlan
from stemflow.model.records import Node, task_id
from stemflow.store.base import Lease

if TYPE_CHECKING:
    from stemflow.runtime.worker.worker import Worker

log = logging.getLogger("stemflow.worker")

SUSPECT_AFTER = 2
"""Losses after which a task runs alone in its worker."""


class Apart:
    """How much a worker may lease. When it meets a suspect it leases nothing until it is empty, then one at a time."""

    def __init__(self, worker: Worker) -> None:
        self.worker = worker
        self.wary = False

    def limit(self, free: int) -> int:
        """How many leases to ask for when `free` slots are."""
        if not self.wary:
            return free
        return min(free, 0 if self.worker.running else 1)

    def sort(self, leases: Sequence[Lease], asked: bool) -> tuple[list[Lease], list[Lease]]:
        """(to be started, to be handed back) of what an exchange brought; `asked`: it could have brought something."""
        if self.wary and any(self._is_suspect(running.node) for running in self.worker.running.values()):
            return [], list(leases)  # asked for before the suspect came
        suspects = [lease for lease in leases if self._is_suspect(lease.node)]
        if not suspects:
            if asked:
                self.wary = False
            return list(leases), []
        for node in (lease.node for lease in suspects):
            name = task_id(node.key)
            log.warning("task %s was lost %d times; it runs when this worker has nothing else", name, node.losses)
        self.wary = True
        if not self.worker.running:
            return suspects[:1], [lease for lease in leases if lease is not suspects[0]]
        return [lease for lease in leases if lease not in suspects], suspects

    def _is_suspect(self, node: Node) -> bool:
        """One that runs in a process of its own has no neighbours anyway."""
        if node.losses < SUSPECT_AFTER:
            return False
        shape = self.worker.advance.library.shapes.get(node.plan)
        leaf = shape.nodes[node.node] if shape is not None else None
        return not (isinstance(leaf, LeafPlan) and shape and shape.plan.options[leaf.options].isolation == "process")
