"""From the marks of PyYAML's parser to places in the file, for values and for what is not YAML."""

from __future__ import annotations

import re
from typing import Any

import yaml

from stemflow.dsl.findings import Position

BREAK = re.compile(r"\r\n|\r|\n")
_PROPERTIES = re.compile(r"(?:[&!]\S*(?:\s+(?:#[^\r\n]*\s+)*|$))+")
"""The anchor and the tag of a node, with what separates them from its value."""
_TAG = re.compile(r"(?:&\S*\s+)?(!\S*)")
_position = tuple.__new__
"""Makes a Position, without the call in between of which a file takes one for each of its values."""


def place_of(event: Any) -> Position:
    """The place of an event; what runs over several lines is marked by its first character."""
    start, end = event.start_mark, event.end_mark
    line, column, last = start.line, start.column, end.column
    return _position(Position, (line + 1, column + 1, last + 1 if end.line == line and last > column else column + 2))


def behind_properties(text: str, start: int, end: int, style: str, place: Position) -> tuple[int, Position]:
    """Where a scalar begins, without its anchor and tag, which are no part of its value."""
    found = _PROPERTIES.match(text, start, end)
    if found is None or found.end() >= end:
        return start, place
    breaks = [one.end() for one in BREAK.finditer(found[0])]
    column = len(found[0]) - breaks[-1] + 1 if breaks else place.column + len(found[0])
    whole = text[found.end() : end]
    is_line = style not in ("|", ">") and BREAK.search(whole) is None
    return found.end(), Position(place.line + len(breaks), column, column + (len(whole) if is_line else 1))


def tag_place(text: str, event: Any) -> Position:
    """The place of the tag of an event, which an anchor may precede."""
    found = _TAG.match(text, event.start_mark.index)
    if found is None:
        return place_of(event)
    breaks = [one.end() for one in BREAK.finditer(text, found.start(), found.start(1))]
    column = found.start(1) - (breaks[-1] if breaks else found.start() - event.start_mark.column) + 1
    return Position(event.start_mark.line + 1 + len(breaks), column, column + len(found[1]))


def syntax_error(text: str, error: yaml.YAMLError) -> tuple[str, Position, str | None]:
    """What the parser found in `text`, in the words of someone who writes YAML: message, place and hint."""
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    problem = getattr(error, "problem", None) or str(error).splitlines()[0]
    if mark is None:
        # The reader of characters gives an offset only.
        offset = getattr(error, "position", 0)
        before = text[: offset if isinstance(offset, int) else 0]
        place = Position(before.count("\n") + 1, offset - before.rfind("\n"), offset - before.rfind("\n") + 1)
        return f"this is not YAML: {problem}", place, "save the file as UTF-8 text"
    place = Position(mark.line + 1, mark.column + 1, mark.column + 2)
    at = text[mark.index : mark.index + 1]
    if at == "\t":
        return "this is not YAML: found a tab where only spaces may indent", place, "indent with spaces"
    if at and at in "@`%":
        return f"this is not YAML: a value cannot begin with {at!r}", place, "write it in quotes"
    if "mapping values are not allowed" in problem:
        message = "this is not YAML: a second ':' in one line, or a wrong indentation"
        return message, place, "write the value in quotes, or align it with its neighbours"
    return f"this is not YAML: {_story(error, problem)}", place, None


def _story(error: yaml.YAMLError, problem: str) -> str:
    context, start = getattr(error, "context", None), getattr(error, "context_mark", None)
    if context is None or start is None:
        return problem
    return f"{problem} {context} that begins at line {start.line + 1}, column {start.column + 1}"
