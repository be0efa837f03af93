"""The page with the state diagrams is drawn from the table."""

from __future__ import annotations

from pathlib import Path

from stemflow.core.table import TABLE
from stemflow.testing.diagram import page

PAGE = Path(__file__).parents[2] / "docs" / "state-machine.md"


def test_the_page_in_the_docs_is_what_the_table_draws() -> None:
    assert PAGE.read_text("utf-8") == page(), f"write it anew: python -m stemflow.testing.diagram {PAGE.name}"


def test_each_cell_of_the_table_has_a_row_on_the_page() -> None:
    rows = [line for line in page().splitlines() if line.count("`") == 2 and line.startswith("|")]
    assert len(rows) == len(TABLE)
