"""The ledger finds what a limit forbids, and nothing else."""

from __future__ import annotations

import pytest

from stemflow.model.rates import Rate
from stemflow.testing.history.rate_ledger import Ledger

WINDOW, PACE = Rate(2, 100, "k"), Rate(4, 100, "k", burst=2)


@pytest.mark.parametrize(
    ("limit", "instants", "broken"),
    [
        (WINDOW, (0, 0, 100, 100), 0),
        (WINDOW, (0, 50, 99), 1),
        (WINDOW, (0, 0, 0, 99), 2),
        (PACE, (0, 0, 25, 50, 200, 200, 225), 0),
        (PACE, (0, 0, 0), 1),
        (PACE, (0, 0, 24), 1),
        (PACE, (0, 24, 49, 74), 0),
    ],
)
def test_the_ledger_reports_excess_starts(limit: Rate, instants: tuple[int, ...], broken: int) -> None:
    ledger = Ledger()
    assert sum(len(ledger.start([limit], at_ms)) for at_ms in instants) == broken
