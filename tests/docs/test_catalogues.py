"""The catalogues of invariants, faults, threats and peer bugs: complete, and every test that they name exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEST = re.compile(r"`([\w/]+\.py)::(test_\w+)`")


def rows(page: str, letter: str) -> list[tuple[str, str]]:
    """(number, rest of the row) of each row of a catalogue; rows of measurements have words after the number."""
    text = (ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8").partition("## Measured")[0]
    return re.findall(rf"(?m)^\| ({letter}-?\d+(?: to {letter}-\d+)?) \|(.*)\|$", text)


INVARIANTS = rows("invariants", "I")
FAULTS, THREATS, BUGS = rows("faults", "F"), rows("threats", "T"), rows("peer-bugs", "B")
ALL = [*INVARIANTS, *FAULTS, *THREATS, *BUGS]


def test_every_catalogue_is_complete() -> None:
    assert [name for name, _ in INVARIANTS] == [f"I{number}" for number in range(1, 21)]
    assert {name for name, _ in FAULTS} == {f"F-{number:02}" for number in {*range(1, 75)}}
    threats = [f"T-{number:02}" for number in range(1, 41) if not 27 <= number <= 31]
    assert {name for name, _ in THREATS} == {*threats, "T-27 to T-31"}
    assert [name for name, _ in BUGS] == [f"B-{number:02}" for number in range(1, 73)]


@pytest.mark.parametrize(("name", "row"), ALL, ids=[name for name, _ in ALL])
def test_the_tests_that_a_row_names_exist(name: str, row: str) -> None:
    named = TEST.findall(row)
    assert [test for path, test in named if not _defines(path, test)] == []
    assert row.count("::") == len(named)
    *_, last = row.split("|")
    assert named or last.strip(), f"{name} is checked nowhere, and nothing says why"


@pytest.mark.parametrize("name", ["faults", "threats", "peer-bugs"])
def test_the_rows_that_a_catalogue_refers_to_exist(name: str) -> None:
    known = {name for name, _ in ALL} | {f"T-{number}" for number in range(27, 32)}
    text = (ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8")
    assert set(re.findall(r"\b[FTB]-\d\d\b|\bI\d+\b", text)) <= known


def test_every_test_that_a_measurement_names_exists() -> None:
    measured = (ROOT / "docs" / "faults.md").read_text(encoding="utf-8").partition("## Measured")[2]
    named = TEST.findall(measured)
    assert len(named) > 80
    assert [test for path, test in named if not _defines(path, test)] == []


def _defines(path: str, test: str) -> bool:
    return re.search(rf"(?m)^ *(async )?def {test}\(", (ROOT / path).read_text(encoding="utf-8")) is not None
