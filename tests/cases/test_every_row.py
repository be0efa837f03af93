"""No row of the catalogue of cases is left out."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

SCENARIOS = (
    1, 3, 4, 6, 7, 9, 10, 12, 13, 15, 16, 18, 19, 21, 22, 24, 25, 27, 28, 30, 31, 33, 34, 36, 37, 39, 40, 42, 43, 45,
    46, 48, 51, 52, 54, 55, 60, 63, 64, 66, 67, 69,
)  # fmt: skip
"""Rows of the first table: what canvases of other engines are tested with."""
SUFFERED = (1, 3, 4, 5, 6, 8, 11, 13, 22, 23, 28, 35, 37)
"""Rows of the second table: what users of other engines suffer from."""

ROWS = {f"A{row}" for row in SCENARIOS} | {f"B{row}" for row in SUFFERED}


def _covered() -> Iterator[str]:
    """The ids on tests next to this file, read from their source, so that a selection of tests changes nothing."""
    for file in sorted(Path(__file__).parent.glob("test_*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
                for mark in node.decorator_list:
                    if isinstance(mark, ast.Call) and ast.unparse(mark.func) == "pytest.mark.case":
                        yield from (ast.literal_eval(arg) for arg in mark.args)


def test_every_row_has_a_test() -> None:
    # Given the ids of all rows; when the marks of the tests are counted; then none is missing and none is unknown.
    covered = set(_covered())
    assert ROWS - covered == set()
    assert covered - ROWS == set()
    assert len(ROWS) == 42 + 13
