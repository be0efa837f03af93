"""The findings about one file, collected so that all are reported at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Final, Literal, NamedTuple

from stemflow.model.diagnostic import Diagnostic
from stemflow.model.suggest import nearest


class Position(NamedTuple):
    """Line, column and exclusive end column, from 1; all 0 when no place is known."""

    line: int = 0
    column: int = 0
    end_column: int = 0


MOST_FINDINGS: Final = 2_000
"""How many errors, and how many warnings, of one file are listed; the others are counted."""
MOST_TEXT: Final = 1_000
"""The longest message or hint, in characters."""

Severity = Literal["error", "warning"]


class Findings:
    """Collects diagnostics; the same finding at the same place (through an alias) is reported once."""

    def __init__(self, file: str) -> None:
        self.file = file
        self._found: dict[tuple[str, str, Position], Diagnostic] = {}
        self._counts: Counter[Severity] = Counter()

    def error(self, code: str, message: str, place: Position, hint: str | None = None) -> None:
        """Add an error."""
        self.add(code, message, place, hint, "error")

    def warning(self, code: str, message: str, place: Position, hint: str | None = None) -> None:
        """Add a warning."""
        self.add(code, message, place, hint, "warning")

    def add(self, code: str, message: str, place: Position, hint: str | None, severity: Severity) -> None:
        """Add a finding of either severity."""
        message, hint = _cut(message), None if hint is None else _cut(hint)
        key = (code, message, place)
        if key in self._found:
            return
        self._counts[severity] += 1
        if self._counts[severity] <= MOST_FINDINGS:
            self._found[key] = Diagnostic(code, message, *place, hint=hint, severity=severity, file=self.file)

    def copy(self) -> Findings:
        """The same findings, to which others may be added."""
        other = Findings(self.file)
        other._found, other._counts = dict(self._found), Counter(self._counts)
        return other

    def by_place(self) -> tuple[Diagnostic, ...]:
        """All findings in the order of the file, and first how many are left out."""
        listed = sorted(self._found.values(), key=lambda one: (one.line, one.column, one.code))
        more = [f"{count - MOST_FINDINGS:,} more {kind}s" for kind, count in sorted(self._counts.items())
                if count > MOST_FINDINGS]  # fmt: skip
        if more:
            said = f"{' and '.join(more)} are left out of this list"
            severity: Severity = "error" if self._counts["error"] > MOST_FINDINGS else "warning"
            listed.insert(0, Diagnostic("SF003", said, hint="correct those that are listed first", severity=severity,
                                        file=self.file))  # fmt: skip
        return tuple(listed)


def _cut(text: str) -> str:
    return text if len(text) <= MOST_TEXT else f"{text[:MOST_TEXT - 3]}..."


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
