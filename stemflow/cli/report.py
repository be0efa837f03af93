"""Findings as text with a caret, as JSON, and as annotations of GitHub Actions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

from stemflow.cli.text import shown
from stemflow.model.diagnostic import Diagnostic

_WINDOW = 110
"""Characters of a source line that are shown around the place."""


_COLOURS = {"error": "\x1b[1;31m", "warning": "\x1b[1;33m", "hint": "\x1b[36m"}
_PLAIN = "\x1b[0m"


def as_text(found: Diagnostic, source: Mapping[str, str], colour: bool = False) -> str:
    """`file:line:col: error SF101: sentence`, the line with a caret, and the hint. `source`: file -> its text."""
    where = f"{shown(found.file)}:{found.line}:{found.column}: " if found.line else f"{shown(found.file)}: "
    start, hint, end = (_COLOURS[found.severity], _COLOURS["hint"], _PLAIN) if colour else ("", "", "")
    lines = [f"{where}{start}{found.severity} {found.code}{end}: {shown(found.message)}"]
    excerpt = _excerpt(found, _lines(source.get(found.file, "")))
    if excerpt:
        gutter, bar, carets = excerpt[1].partition("|")
        lines += [excerpt[0], f"{gutter}{bar}{start}{carets}{end}"]
    if found.hint:
        lines.append(f"  {hint}hint:{end} {shown(found.hint)}")
    return "\n".join(lines)


@lru_cache(maxsize=2)
def _lines(text: str) -> list[str]:
    return text.split("\n")


def _excerpt(found: Diagnostic, lines: list[str]) -> list[str]:
    if not 0 < found.line <= len(lines):
        return []
    line = lines[found.line - 1].rstrip("\r")
    start = max(found.column - 1, 0)
    end = max(found.end_column - 1, start + 1)
    cut = max(0, min(start - _WINDOW // 3, len(line) - _WINDOW))
    before, marked = shown(line[cut:start]), shown(line[start:end])
    shown_line = shown(line[cut : cut + _WINDOW])
    number = f"{found.line:>5}"
    carets = "^" * max(1, min(len(marked), len(shown_line) - len(before)))
    return [f"{number} | {shown_line}".rstrip(), f"{' ' * len(number)} | {' ' * len(before)}{carets}"]


def as_data(found: Diagnostic) -> dict[str, Any]:
    """One finding as an object of `validate --format json`."""
    return {
        "file": found.file,
        "line": found.line,
        "column": found.column,
        "end_column": found.end_column,
        "severity": found.severity,
        "code": found.code,
        "message": found.message,
        "hint": found.hint,
    }


def as_github(found: Diagnostic, file: str) -> str:
    """A workflow command of GitHub Actions that shows the finding next to the line of a pull request."""
    places = {"file": file, "line": found.line, "col": found.column, "endColumn": found.end_column}
    given = ",".join(f"{name}={_property(str(value))}" for name, value in places.items() if value)
    text = found.message if found.hint is None else f"{found.message}; {found.hint}"
    return f"::{found.severity} {given},title={found.code}::{_data(text)}"


def _data(text: str) -> str:
    return shown(text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A"))


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")


def count_text(found: Iterable[Diagnostic], files: int) -> str:
    """`3 files: 2 errors, 1 warning`."""
    severities = [one.severity for one in found]
    counts = [
        f"{severities.count(severity)} {severity}{'s' if severities.count(severity) != 1 else ''}"
        for severity in ("error", "warning")
        if severity in severities
    ]
    return f"{files} file{'s' if files != 1 else ''}: {', '.join(counts) or 'nothing to report'}"
