"""The gallery: each file is checked without a finding, its cases pass and take every branch, and the index lists it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from stemflow.cli.test.coverage import coverage
from stemflow.cli.test.expectations import faults
from stemflow.cli.test.rehearse import rehearse
from stemflow.cli.test.suites import find_suites

GALLERY = Path(__file__).parents[2] / "workflows" / "gallery"
FILES = sorted(GALLERY.glob("*.yaml"))
INDEX = (GALLERY / "README.md").read_text("utf-8")


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_pattern_does_what_its_cases_say(file: Path) -> None:
    # Given a file of the gallery, which has no finding, a warning neither
    (suite,) = find_suites([str(file)])
    assert suite.diagnostics == () and suite.workflow is not None

    # When its cases run in virtual time, then each ends as it expects, and together they take every branch
    outcomes = [(case, rehearse(suite.workflow, case, None)) for _, case in suite.cases]
    assert {case.name: faults(case, outcome) for case, outcome in outcomes} == {case.name: [] for case, _ in outcomes}
    assert coverage(suite.workflow, [outcome for _, outcome in outcomes]).missed == []


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_pattern_says_what_it_is_and_what_its_cases_assert(file: Path) -> None:
    (suite,) = find_suites([str(file)])
    assert suite.workflow is not None
    assert suite.workflow.name == file.stem and suite.workflow.description
    assert suite.cases and all(case.expect.keys() & {"state", "outputs", "args", "calls", "order"}
                               for _, case in suite.cases)  # fmt: skip


def test_the_index_lists_every_pattern_once() -> None:
    rows = re.findall(r"^\| .+\|$", INDEX, re.MULTILINE)
    listed = [name for row in rows for name in re.findall(r"\]\((\w+)\.yaml\)", row)]
    assert sorted(listed) == [file.stem for file in FILES]
    assert len([row for row in rows if ".yaml" in row]) >= 24
