"""From offsets in the text of a scalar to places in the file."""

from __future__ import annotations

from stemflow.dsl.findings import Position
from stemflow.dsl.source import Node


def place_inside(text: str, node: Node, column: int, end: int) -> Position:
    """The place of `node.value[column:end]` in the file; the whole scalar if quoting or folding hides it.

    The n-th occurrence in the value is the n-th in the raw text, whatever is between them.
    """
    raw, value = text[node.start : node.end], node.value
    fragment = value[column:end]
    if not fragment or "\n" in fragment:
        return node.place
    offset = -1
    for _ in range(_occurrences(value, fragment, column) + 1):
        offset = raw.find(fragment, offset + 1)
        if offset < 0:
            return node.place
    before = raw[:offset]
    lines = before.count("\n")
    first = offset - before.rfind("\n") if lines else node.place.column + offset
    return Position(node.place.line + lines, first, first + len(fragment))


def _occurrences(value: str, fragment: str, before: int) -> int:
    """How often `fragment` begins in `value` before the offset."""
    found, at = 0, value.find(fragment)
    while 0 <= at < before:
        found += 1
        at = value.find(fragment, at + 1)
    return found
