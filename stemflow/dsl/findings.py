"""The findings about one file, collected so that all are reported at once."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, NamedTuple

from stemflow.model.diagnostic import Diagnostic
from stemflow.model.suggest import nearest


class Position(NamedTuple):
    """Line, column and exclusive end column, from 1; all 0 when no place is known."""

    line: int = 0
    column: int = 0
    end_column: int = 0


class Findings:
    """Collects diagnostics; the same finding at the same place (through an alias) is reported once."""

    def __init__(self, file: str) -> None:
        self.file = file
        self._found: dict[tuple[str, str, Position], Diagnostic] = {}

    def error(self, code: str, message: str, place: Position, hint: str | None = None) -> None:
        """Add an error."""
        self.add(code, message, place, hint, "error")

    def warning(self, code: str, message: str, place: Position, hint: str | None = None) -> None:
        """Add a warning."""
        self.add(code, message, place, hint, "warning")

    def add(
        self, code: str, message: str, place: Position, hint: str | None, severity: Literal["error", "warning"]
    ) -> None:
        """Add a finding of either severity."""
        found = Diagnostic(code, message, *place, hint=hint, severity=severity, file=self.file)
        self._found.setdefault((code, message, place), found)

    def copy(self) -> Findings:
        """The same findings, to which others may be added."""
        other = Findings(self.file)
        other._found = dict(self._found)
        return other

    def by_place(self) -> tuple[Diagnostic, ...]:
        """All findings in the order of the file."""
        return tuple(sorted(self._found.values(), key=lambda one: (one.line, one.column, one.code)))


MOST_LISTED = 30


def did_you_mean(given: str, known: Iterable[str], what: str) -> str:
    """A hint: the nearest known word, or all of them where they are few."""
    words = tuple(known)
    near = nearest(given, words)
    if near is not None:
        return f"did you mean `{near}`?"
    if not words:
        return f"{what}: none"
    more = f" and {len(words) - MOST_LISTED} more" if len(words) > MOST_LISTED else ""
    return f"{what}: {', '.join(words[:MOST_LISTED])}{more}"


def describe(value: object) -> str:
    """A value as it is named in a sentence: its JSON type, and its text where it is short."""
    match value:
        case None:
            return "nothing (null)"
        case bool():
            return "true" if value else "false"
        case int() | float():
            return f"the number {value}"
        case str():
            return f"the text {shorten(value)}"
        case list():
            return f"a list of {len(value)}"
        case dict():
            return "a mapping"
    return type(value).__name__


def shorten(text: str) -> str:
    """A text in quotes, cut after 60 characters."""
    return repr(text if len(text) <= 60 else text[:57] + "...")
