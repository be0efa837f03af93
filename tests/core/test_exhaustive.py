"""Small plans through every interleaving of reports, losses, timers and stops; no live cell can be spared."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cache

import pytest

from stemflow.core.table import TABLE
from tests.core.explored_cases import CASES
from tests.core.explorer import Case, CellKey, Explorer, Result
from tests.core.world import Broken


@cache
def explored(number: int) -> Result:
    return Explorer(CASES[number]).explore()


HEAVY = frozenset(
    [
        "shared key", "shared key, three", "one at a time", "one scope at a time", "map of chains", "nested fail fast",
        "group of everything", "keep_last with a window", "keep_last with a window that is over",
        "three under one key, debounce", "three under one key, keep_last", "three under one key, replace",
        "whole runs under one key, debounce", "whole runs after a quiet period, one at a time",
    ]
)  # fmt: skip
"""Cases that take a second and more; the long test of all cases has them."""
LIGHT = [number for number, case in enumerate(CASES) if case.name not in HEAVY]


@pytest.mark.parametrize("number", LIGHT, ids=[CASES[number].name for number in LIGHT])
def test_every_interleaving_keeps_the_rules_and_can_end(number: int) -> None:
    assert explored(number).ends


POSTING = (
    "chain of 3", "group fail_fast", "member stopped", "chord fail_fast", "nested chord", "diamond", "map", "timeout",
    "hooks", "always, at a stop", "catch", "cleanup", "undo", "replace", "add to a group", "one at a time in one group",
)  # fmt: skip


@pytest.mark.parametrize("name", POSTING)
def test_every_interleaving_of_posts_keeps_the_rules_and_can_end(name: str) -> None:
    """The inbox of a run may be heard at any time after something was posted to it."""
    (case,) = (case for case in CASES if case.name == name)
    assert Explorer(replace(case, hot=True, losses=0, hand_backs=0)).explore().ends


@pytest.mark.long
@pytest.mark.parametrize("number", range(len(CASES)), ids=[case.name for case in CASES])
def test_every_interleaving_of_posts_and_losses_keeps_the_rules_and_can_end(number: int) -> None:
    assert Explorer(replace(CASES[number], hot=True)).explore().ends


@pytest.mark.long
@pytest.mark.timeout(900)
def test_every_live_cell_is_visited_leaves_nodes_where_it_may_and_cannot_be_spared() -> None:
    """One test: both parts need what was seen in all cases, and each process of a parallel run would explore them."""
    # Given every interleaving of every plan
    results = [explored(number) for number in range(len(CASES))]
    assert all(result.ends for result in results)
    states, edges = sum(r.states for r in results), sum(r.edges for r in results)
    print(f"{len(CASES)} plans x {states} states x {edges} steps, {len(TABLE)} live cells")

    # Then each landing that the table allows has happened
    visited = {landing for result in results for landing in result.visited}
    allowed = {(key, state) for key, cell in TABLE.items() for state in cell.to}
    never = sorted(" ".join((*key, "->", state)) for key, state in allowed - visited)
    assert not never, f"the table allows what never happens: {never}"

    # And without any one of the cells a rule is broken, or a state is stuck
    unnoticed = ["-".join(cell) for cell in list(TABLE) if not _is_noticed_when_blank(cell)]
    assert not unnoticed, f"cells whose absence breaks no rule: {unnoticed}"


def _is_noticed_when_blank(cell: CellKey) -> bool:
    cases = list(_visitors(cell))
    with pytest.MonkeyPatch.context() as patch:
        patch.delitem(TABLE, cell)
        try:
            for case in cases:
                Explorer(case).explore()
        except (Broken, AssertionError):
            return True
    return False


def _visitors(cell: CellKey) -> Iterator[Case]:
    """Cases that go through `cell`, the smallest first."""
    found = [(explored(n).edges, n) for n in range(len(CASES)) if any(key == cell for key, _ in explored(n).visited)]
    return (CASES[number] for _, number in sorted(found))
