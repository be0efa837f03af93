"""From offsets in the text of a scalar to places in the file, whatever quotes, escapes and folding are between them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from stemflow.dsl.findings import Position
from stemflow.dsl.marks import BREAK
from stemflow.dsl.source import Node

_BLANK = re.compile(r"[ \t\r\n]+")
_LINE = re.compile(r"([^\r\n]*)(\r\n|\r|\n|$)")
_ESCAPED = re.compile(r"\\(?:x[0-9A-Fa-f]{2}|u[0-9A-Fa-f]{4}|U[0-9A-Fa-f]{8}|(?:\r\n|\r|\n)[ \t]*|.)")


class _Piece(NamedTuple):
    """`text` of the value, which is written from `start` to `end` of the raw text."""

    text: str
    start: int
    end: int


def place_inside(text: str, node: Node, column: int, end: int) -> Position:
    """The place of `node.value[column:end]` in the file; the whole scalar where it is not written there.

    What runs over several lines is marked to the end of its first line.
    """
    raw, value = text[node.start : node.end], node.value
    if not 0 <= column < end <= len(value):
        return node.place
    found = (column, end) if raw == value else _aligned(raw, value, node.style, column, end)
    if found is None:
        return node.place
    breaks = [one.end() for one in BREAK.finditer(raw, 0, found[0])]
    line = BREAK.search(raw, *found)
    last = found[1] if line is None else max(line.start(), found[0] + 1)
    before = 1 - breaks[-1] if breaks else node.place.column
    return Position(node.place.line + len(breaks), before + found[0], before + last)


def _aligned(raw: str, value: str, style: str, column: int, end: int) -> tuple[int, int] | None:
    """Where `value[column:end]` is in the raw text of a scalar of this style; None if the two do not agree."""
    pieces = [*(_block(raw, value) if style in ("|", ">") else _flow(raw, style))]
    if "".join(one.text for one in pieces) != value:
        return None
    start = stop = at = 0
    for one in pieces:
        after = at + len(one.text)
        single = len(one.text) == one.end - one.start
        if at <= column < after:
            start = one.start + column - at if single else one.start
        if at < end <= after:
            stop = one.start + end - at if single else one.end
        at = after
    return start, stop


def _flow(raw: str, style: str) -> Iterator[_Piece]:
    """The pieces of a plain or quoted scalar."""
    at, last = (1, len(raw) - 1) if style else (0, len(raw))
    special = re.compile(rf"[ \t\r\n{re.escape(style)}{re.escape(chr(92)) if style == chr(34) else ''}]")
    while at < last:
        next_one = special.search(raw, at, last)
        if next_one is None or next_one.start() > at:
            stop = last if next_one is None else next_one.start()
            yield _Piece(raw[at:stop], at, stop)
            at = stop
            continue
        if (blank := _BLANK.match(raw, at, last)) is not None:
            breaks = len(BREAK.findall(blank[0]))
            folded = blank[0] if breaks == 0 else " " if breaks == 1 else "\n" * (breaks - 1)
            yield _Piece(folded, at, blank.end())
            at = blank.end()
        elif style == "'":
            yield _Piece("'", at, at + 2)
            at += 2
        else:
            escape = _ESCAPED.match(raw, at, last)
            stop = last if escape is None else escape.end()
            yield _Piece("" if escape is None else _unescaped(escape[0]), at, stop)
            at = stop


_ESCAPES = {
    "0": "\0", "a": "\a", "b": "\b", "t": "\t", "\t": "\t", "n": "\n", "v": "\v", "f": "\f", "r": "\r", "e": "\x1b",
    "N": "\x85", "_": "\xa0", "L": "\u2028", "P": "\u2029",
}  # fmt: skip


def _unescaped(escape: str) -> str:
    """The character that an escape in double quotes means; nothing for an escaped line break."""
    if escape[1] in "\r\n":
        return ""
    if escape[1] in "xuU":
        number = int(escape[2:], 16)
        return chr(number) if number < 0x110000 else ""
    return _ESCAPES.get(escape[1], escape[1])


def _block(raw: str, value: str) -> Iterator[_Piece]:
    """The pieces of a literal or folded scalar: its lines without their indentation."""
    header, *lines = [(one[1], one.start()) for one in _LINE.finditer(raw)]
    given = re.search(r"[1-9]", header[0].partition("#")[0])
    filled = [(line, at) for line, at in lines if line.strip(" ")]
    if not filled:
        return
    first = filled[0][0]
    indent = len(first) - len(first.lstrip(" "))
    if given is not None:
        # The indentation is counted from that of the parent, so it is found by what the value begins with.
        indent -= len(value.lstrip("\n")) - len(value.lstrip("\n").lstrip(" "))
    at = 0
    for line, start in lines:
        content = line[indent:]
        if not content or at >= len(value):
            continue
        before = at
        while value[at : at + 1] == "\n":
            at += 1
        if before and at == before and value[at : at + 1] == " ":
            at += 1
        yield _Piece(value[before:at], start, start)
        if not value.startswith(content, at):
            return
        yield _Piece(content, start + indent, start + len(line))
        at += len(content)
    yield _Piece(value[at:], len(raw), len(raw))
