"""Faults inside a process: what it has cached is older than it believes, or changes between two steps."""

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import Any

from stemflow.model.effects import GateKey, Need
from stemflow.model.facts import Fact
from stemflow.model.records import Key
from stemflow.runtime.commit.contention import Contention
from stemflow.runtime.commit.decider import Decider, Reading
from stemflow.testing.simulation.checked_store import CheckedStore
from stemflow.testing.simulation.faults import Faults


def grow_old(decider: Decider, faults: Faults, store: CheckedStore) -> None:
    """Let the cache of a process keep some records as they were before their last change."""
    meet = decider._fetch

    async def and_keep_old_ones(need: Need, gates: dict[GateKey, Any], reading: Reading, doubted: bool) -> None:
        await meet(need, gates, reading, doubted)
        for key in need.keys:
            if reading.records is decider.records and faults.strikes("old record"):
                decider.records[key] = store.previous.get(key)

    vars(decider)["_fetch"] = and_keep_old_ones


def cool_down(contention: Contention, faults: Faults) -> None:
    """Let contended scopes stop being hot after facts were batched, and before they are decided."""
    hot = contention.hot

    def unless_cooled(facts: Sequence[Fact]) -> Container[Key]:
        if contention.runs() and faults.strikes("cooled scope"):
            contention._until_ms.clear()
        return hot(facts)

    vars(contention)["hot"] = unless_cooled
