"""Small plans through every interleaving of reports, losses, timers and stops; no live cell can be spared."""

from __future__ import annotations

from collections import Counter
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


@pytest.mark.parametrize("number", range(len(CASES)), ids=[case.name for case in CASES])
def test_every_interleaving_keeps_the_rules_and_can_end(number: int) -> None:
    result = explored(number)
    assert result.ends


POSTING = (
    "chain of 3", "group fail_fast", "member stopped", "chord fail_fast", "nested chord", "diamond", "map", "timeout",
    "hooks", "catch", "cleanup", "undo", "replace", "add to a group", "one at a time in one group",
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


def test_every_live_cell_is_visited_and_leaves_nodes_where_it_may() -> None:
    # Given every interleaving of every plan
    visited: Counter[tuple[CellKey, str]] = Counter()
    for number in range(len(CASES)):
        visited.update(explored(number).visited)
    results = [explored(number) for number in range(len(CASES))]
    states, edges = sum(r.states for r in results), sum(r.edges for r in results)
    print(f"{len(CASES)} plans x {states} states x {edges} steps, {len(TABLE)} live cells")

    # Then each landing that the table allows has happened
    allowed = {(key, state) for key, cell in TABLE.items() for state in cell.to}
    never = sorted(" ".join((*key, "->", state)) for key, state in allowed - set(visited))
    assert not never, f"the table allows what never happens: {never}"


def _visitors(cell: CellKey) -> Iterator[Case]:
    """Cases that go through `cell`, the smallest first."""
    found = [(explored(n).edges, n) for n in range(len(CASES)) if any(key == cell for key, _ in explored(n).visited)]
    return (CASES[number] for _, number in sorted(found))


@pytest.mark.parametrize("cell", list(TABLE), ids="-".join)
def test_a_blanked_cell_is_noticed(cell: CellKey, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given cases that go through the cell
    cases = list(_visitors(cell))

    # When it is blank
    monkeypatch.delitem(TABLE, cell)

    # Then a rule is broken, or a state is stuck
    with pytest.raises((Broken, AssertionError)):
        for case in cases:
            Explorer(case).explore()
