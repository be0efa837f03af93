"""The expressions that a scalar of a workflow file holds."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from stemflow.dsl.expressions import Read
from stemflow.expr.template import CLOSE, OPEN, closing


class Piece(NamedTuple):
    """One expression in a scalar: its text, where it begins, and whether it fills the scalar."""

    text: str
    offset: int
    whole: bool


def pieces(read: Read) -> Iterator[Piece]:
    """The expressions of a scalar."""
    text = read.node.value
    if not isinstance(text, str):
        return
    start = text.find(OPEN)
    if read.bare and (start < 0 or text[:start].strip()):
        yield Piece(text, 0, True)
        return
    done, found, rest = 0, [], ""
    while (start := text.find(OPEN, done)) >= 0:
        end = closing(text, start)
        rest += text[done:start]
        found.append((text[start + len(OPEN) : end], start + len(OPEN)))
        done = end + len(CLOSE)
    whole = len(found) == 1 and not (rest + text[done:]).strip()
    yield from (Piece(one, offset, whole) for one, offset in found)
