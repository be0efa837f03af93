"""Decisions over records of different ages: a cache that lags behind, a read that is overtaken by a lease."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec import structs

from stemflow.core import admission as entry
from stemflow.model.effects import Decision
from stemflow.testing.simulation.simulator import CheckedStore
from tests.sim.test_simulation import _found, quiet

__all__ = ["quiet"]


class TrustsRefusals(CheckedStore):
    """Commits a decision that changes nothing without a look at what it rests on."""

    def _commit(self, decision: Decision, now_ms: int) -> bool:
        seen = decision.seen if decision.puts else ()
        return super()._commit(structs.replace(decision, seen=seen), now_ms)


def test_a_refusal_that_is_not_checked_against_the_store_is_found() -> None:
    assert "a report was refused although its token" in _found(store_class=TrustsRefusals)


def test_a_view_that_does_not_fit_together_and_counts_as_a_fault_of_the_machine_is_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    granted = entry.granted

    def strict(w: Any, node: Any, key: str) -> Any:
        assert key in (node.slot, node.claim)
        return granted(w, node, key)

    monkeypatch.setattr(entry, "granted", strict)
    assert "AssertionError" in _found()
