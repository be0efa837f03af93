"""Every finding has a fixed wording and place: golden/NAME.yaml gives golden/NAME.txt.

`STEMFLOW_GOLDEN=write pytest tests/dsl/test_golden.py` writes the files again.
"""

from __future__ import annotations

import os

import pytest

from stemflow.dsl import parse_workflow
from tests.dsl.files import FOLDER, show

FILES = sorted((FOLDER / "golden").glob("*.yaml"))


@pytest.mark.parametrize("name", [file.stem for file in FILES])
def test_a_file_has_the_findings_of_its_golden_file(name: str) -> None:
    file = FOLDER / "golden" / f"{name}.yaml"
    told = "".join(map(show, parse_workflow(file.read_text("utf-8"), file.name).diagnostics))
    golden = file.with_suffix(".txt")
    if os.environ.get("STEMFLOW_GOLDEN") == "write":
        golden.write_text(told, encoding="utf-8")
    assert told == golden.read_text("utf-8")
