"""The page of invariants names tests that exist, and says of each invariant where it is checked or that it is not."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROWS = re.findall(r"(?m)^\| (I\d+) \|(.*)\|$", (ROOT / "docs" / "invariants.md").read_text(encoding="utf-8"))
TEST = re.compile(r"`([\w/]+\.py)::(test_\w+)`")


def test_every_invariant_has_a_row() -> None:
    assert [name for name, _ in ROWS] == [f"I{number}" for number in range(1, 21)]


@pytest.mark.parametrize(("name", "row"), ROWS, ids=[name for name, _ in ROWS])
def test_the_tests_that_a_row_names_exist(name: str, row: str) -> None:
    named = TEST.findall(row)
    missing = [test for path, test in named if not _defines(path, test)]
    assert not missing
    assert row.count("::") == len(named)
    *_, gaps = row.split("|")
    assert named or gaps.strip(), f"{name} is checked nowhere, and nothing says why"


def _defines(path: str, test: str) -> bool:
    return re.search(rf"(?m)^ *(async )?def {test}\(", (ROOT / path).read_text(encoding="utf-8")) is not None
