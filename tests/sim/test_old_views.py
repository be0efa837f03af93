"""Decisions over records of different ages: a cache that lags behind, a read that is overtaken by a lease."""

from __future__ import annotations

from typing import Any

import pytest

from stemflow.core import admission as entry
from tests.sim.test_simulation import _found, quiet

__all__ = ["quiet"]


def test_a_view_that_does_not_fit_together_and_counts_as_a_fault_of_the_machine_is_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    granted = entry.granted

    def strict(w: Any, node: Any, key: str) -> Any:
        assert key in (node.slot, node.claim)
        return granted(w, node, key)

    monkeypatch.setattr(entry, "granted", strict)
    assert "AssertionError" in _found()
