"""Worker processes of which one dies, once, at a chosen point of a run."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Collection
from typing import Any

from stemflow.model.effects import Decision
from stemflow.model.records import FINAL, Node
from stemflow.testing.simulation.checked_store import CheckedStore
from stemflow.testing.simulation.faults import Faults
from stemflow.testing.simulation.simulator import Process, World
from stemflow.testing.simulation.virtual_loop import VirtualLoop
from tests.dags.dag import Witness, make_registry

POINTS = ("crash in handler", "crash before exchange", "crash after exchange")


class OneDeath(Faults):
    """No fault but one: once `after` tasks have begun (or, for an exchange, have ended), `point` strikes."""

    def __init__(self, rng: random.Random, witness: Witness, point: str, after: int) -> None:
        super().__init__(rng)
        self.witness, self.point, self.after = witness, point, after
        self.struck = False

    def strikes(self, name: str) -> bool:
        if self.struck or name != self.point:
            return False
        begun = self.witness.started
        self.struck = self.after <= (begun if name == "crash in handler" else len(self.witness.lines) - begun)
        return self.struck


class CountingStore(CheckedStore):
    """Counts how often a final state was committed for each path."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.settled: Counter[str] = Counter()

    def _commit(self, decision: Decision, now_ms: int) -> bool:
        done = super()._commit(decision, now_ms)
        if done:
            self.settled.update(
                node.path for put in decision.puts if isinstance(node := put.record, Node) and node.state in FINAL
            )
        return done


class DagWorld(World):
    """Processes with `slots` handlers each; after the death of one another starts within seconds."""

    store: CountingStore

    def __init__(
        self, loop: VirtualLoop, witness: Witness, failing: Collection[str], slots: int, point: str, after: int
    ) -> None:
        super().__init__(loop, CountingStore)
        self.told, self.failing, self.slots = witness, failing, slots
        self.faults = OneDeath(self.rng, witness, point, after)
        self.died_at_ms: float | None = None
        self.lines_before_death = 0
        self.settled_before_death: frozenset[str] = frozenset()

    def registry_for(self, process: Process) -> Any:
        def begun(ms: int) -> None:
            if self.faults.strikes("crash in handler"):
                self.loop.call_later(self.rng.uniform(0, ms) / 1_000, process.die)

        return make_registry(self.told, self.failing, begun)

    def start(self) -> None:
        super().start()
        self.processes[-1].worker.concurrency = self.slots

    def died(self, process: Process) -> None:
        if self.faults.on:
            self.died_at_ms = self.loop.time() * 1_000
            self.lines_before_death = len(self.told.lines)
            self.settled_before_death = frozenset(self.store.settled)
        super().died(process)

    async def end(self) -> None:
        """Stop the processes that are left."""
        self.faults.on = False
        for process in list(self.processes):
            process.die()
        await asyncio.sleep(0)
