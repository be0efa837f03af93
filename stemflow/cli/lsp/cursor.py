"""Where a cursor is in a YAML text that may be broken: the keys around it, and the expression that it is in."""

from __future__ import annotations

import re
from typing import NamedTuple

_KEY = re.compile(r"""(?:-[ ]+)*(?:"([^"]*)"|'([^']*)'|([^\s#\[\]{},"':][^#\[\]{},"':]*?))[ ]*:(?:\s|$)""")
_BARE = ("when", "items", "on", "while", "until")


class Cursor(NamedTuple):
    """`path` are the keys around the cursor, with a number for a place in a list; `key` is the key whose value it is in
    (None: a key is being written); `word` is what is written before it of a word or field path."""

    path: tuple[str | int, ...]
    key: str | None
    word: str
    in_expression: bool


def cursor_at(text: str, line: int, column: int) -> Cursor:
    """The cursor at a line and column (from 0, in characters)."""
    lines = text.split("\n")
    before = lines[line][:column] if line < len(lines) else ""
    path = _block_path(lines, line, len(before) - len(before.lstrip(" ")), before)
    key, inner = _flow(before)
    path += inner
    opened = before.rfind("${{")
    in_marks = opened >= 0 and "}}" not in before[opened:]
    in_expression = in_marks or (key in _BARE and path[-1:] != ("inputs",))
    word = re.search(r"[\w.\[\]-]*$" if not in_expression else r"[\w.\[\]*'-]*$", before)
    return Cursor(path, key, word[0] if word is not None else "", in_expression)


def _block_path(lines: list[str], line: int, indent: int, before: str) -> tuple[str | int, ...]:
    """The keys of the block mappings and lists around a line."""
    found: list[str | int] = []
    if before.lstrip(" ").startswith("- "):
        found.append(_place(lines, line, indent))
        indent -= 0
    for number in range(line - 1, -1, -1):
        text = lines[number]
        stripped = text.lstrip(" ")
        if not stripped or stripped.startswith("#"):
            continue
        own = len(text) - len(stripped)
        dashes = re.match(r"(?:-[ ]+)+", stripped)
        if dashes is not None and own < indent:
            key_at = own + len(dashes[0])
            key = _KEY.match(stripped[len(dashes[0]) :])
            if key is not None and key_at < indent and not _has_value(stripped):
                found.append(_name(key))
            if key_at <= indent:
                found.append(_place(lines, number, own))
                indent = own + 1 if own else 0
                # A list may be at the column of its own key.
                indent = own + 1
            continue
        key = _KEY.match(stripped)
        if key is not None and own < indent and not _has_value(stripped):
            found.append(_name(key))
            indent = own
        if not indent:
            break
    return tuple(reversed(found))


def _has_value(stripped: str) -> bool:
    key = _KEY.match(stripped)
    rest = stripped[key.end() :].strip() if key is not None else ""
    return bool(rest) and not rest.startswith(("#", "&", "|", ">"))


def _place(lines: list[str], line: int, column: int) -> int:
    """The index of a list item, by the dashes at its column above it."""
    count = 0
    for number in range(line - 1, -1, -1):
        text = lines[number]
        own = len(text) - len(text.lstrip(" "))
        if not text.strip() or own > column:
            continue
        if own < column or not text.lstrip(" ").startswith("-"):
            break
        count += 1
    return count


def _name(match: re.Match[str]) -> str:
    return next(one for one in match.groups() if one is not None)


def _flow(before: str) -> tuple[str | None, tuple[str | int, ...]]:
    """The key whose value the end of a line is in, and the keys of the flow collections that are open there."""
    stripped = before.lstrip(" ")
    key: str | None = None
    stack: list[tuple[str | None, str]] = []
    position = 0
    quote = ""
    dashes = re.match(r"(?:-[ ]+)+", stripped)
    if dashes is not None:
        position = dashes.end()
    fresh = True
    while position < len(stripped):
        letter = stripped[position]
        if quote:
            quote = "" if letter == quote else quote
        elif fresh and (found := _KEY.match(stripped, position)) is not None:
            key, fresh = _name(found), False
            position = found.end()
            continue
        elif letter in "\"'":
            quote = letter
        elif letter in "{[":
            if stripped.startswith("{{", position) and stripped[position - 1 : position] == "$":
                end = stripped.find("}}", position)
                if end < 0:
                    break
                position = end + 2
                continue
            stack.append((key, letter))
            key, fresh = (None, True) if letter == "{" else (key, False)
        elif letter in "}]" and stack:
            key, _ = stack.pop()
            fresh = False
        elif letter == "," and stack:
            fresh = stack[-1][1] == "{"
            key = None if fresh else key
        elif letter not in " ":
            fresh = False if key is not None else fresh
        position += 1
    names: list[str | int] = []
    for name, opening in stack:
        if name is not None and (opening == "{" or name != key):
            names.append(name)
    return key, tuple(names)
