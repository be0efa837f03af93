"""Columns of text under a header."""

from __future__ import annotations

from collections.abc import Sequence


def table(
    head: Sequence[str], rows: Sequence[Sequence[str]], *, right: frozenset[int] = frozenset(), header: bool = True
) -> list[str]:
    """The rows in columns; `right`: those that are aligned to the right. Without rows there is no line at all."""
    if not rows:
        return []
    all_rows = [head, *rows] if header else list(rows)
    widths = [max(len(row[at]) for row in all_rows) for at in range(len(head))]
    return ["  ".join(_cell(row[at], widths[at], at in right) for at in range(len(head))).rstrip() for row in all_rows]


def _cell(text: str, width: int, right: bool) -> str:
    return text.rjust(width) if right else text.ljust(width)
