"""Fixes of findings as edits of the text, so that comments and layout stay: certain ones, and suggestions."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from stemflow.dsl.findings import Findings
from stemflow.dsl.source import read
from stemflow.model.diagnostic import Diagnostic

MOST_ROUNDS = 10
_RENAMED = {"with": "args", "arguments": "args", "kwargs": "args", "need": "needs"}
"""Keys of other workflow languages that have exactly one meaning here."""
_FORGIVING = re.compile(r"(?:continue-on-error|continue_on_error|allow_failure|ignore_errors)[ ]*:[ ]*true")
_NEAR = re.compile(r"did you mean `([^`]+)`\?")


class Edit(NamedTuple):
    """Replace the columns from `start` to `end` (from 0, exclusive) of a line (from 0). `text` None: the whole line
    goes."""

    line: int
    start: int
    end: int
    text: str | None


def edit_of(found: Diagnostic, text: str) -> Edit | None:
    """The edit that certainly fixes a finding; None if there is none."""
    fix = _FIXES.get(found.code)
    lines = text.split("\n")
    if fix is None or not 0 < found.line <= len(lines):
        return None
    return fix(found, lines[found.line - 1])


def suggestion(found: Diagnostic, text: str) -> Edit | None:
    """The edit that writes the word which the hint suggests, for a person to choose."""
    near = _NEAR.search(found.hint or "")
    lines = text.split("\n")
    if near is None or not 0 < found.line <= len(lines):
        return None
    start, end = found.column - 1, found.end_column - 1
    marked = lines[found.line - 1][start:end]
    before = re.escape(marked.rpartition(".")[2])
    wrong = re.search(r"`([^`]+)`", found.message)
    if wrong is not None and marked.endswith(wrong[1]):
        start = end - len(wrong[1])
    elif not re.fullmatch(r"[\w.-]+", marked) or not before:
        return None
    return Edit(found.line - 1, start, end, near[1])


def apply(text: str, edits: Iterable[Edit]) -> str:
    """The text after the edits; of two that overlap, the first in the text counts."""
    lines: list[str | None] = list(text.split("\n"))
    last: tuple[int, int] | None = None
    for edit in sorted(set(edits), key=lambda one: (-one.line, -one.start)):
        line = lines[edit.line]
        if line is None or (last is not None and last[0] == edit.line and edit.end > last[1]):
            continue
        lines[edit.line] = None if edit.text is None else line[: edit.start] + edit.text + line[edit.end :]
        last = (edit.line, edit.start)
    return "\n".join(line for line in lines if line is not None)


def fixed(text: str, check: Callable[[str], Sequence[Diagnostic]]) -> tuple[str, int]:
    """The text after every certain fix, and the number of findings that are gone.

    `check` gives the findings about a text. An edit after which there are not fewer findings is not made.
    """
    found = check(text)
    before = len(found)
    for _ in range(MOST_ROUNDS):
        edits = [edit for one in found if (edit := edit_of(one, text)) is not None]
        done = _better(text, edits, found, check) or next(
            (better for edit in edits if (better := _better(text, [edit], found, check)) is not None), None
        )
        if done is None:
            break
        text, found = done
    return text, before - len(found)


def _better(
    text: str, edits: list[Edit], found: Sequence[Diagnostic], check: Callable[[str], Sequence[Diagnostic]]
) -> tuple[str, Sequence[Diagnostic]] | None:
    if not edits:
        return None
    after = apply(text, edits)
    left = check(after)
    return (after, left) if len(left) < len(found) else None


# -- one function for each code: the finding and its line -> the edit


def _written(found: Diagnostic, line: str) -> Edit | None:
    """The value that the hint says to write."""
    value = (found.hint or "").removeprefix("write ")
    start, end = found.column - 1, found.end_column - 1
    if not value or value == found.hint or not line[start:end].strip():
        return None
    return Edit(found.line - 1, start, end, _scalar(value))


def _scalar(value: str) -> str:
    """The text as a YAML scalar: plain where that reads as the same text in any place, else in quotes."""
    for probe in (f"k: {value}\n", f"{{k: {value}}}\n"):
        root = read(probe, findings := Findings(""))
        if root is None or findings.by_place() or root.value != {"k": value}:
            return json.dumps(value, ensure_ascii=False)
    return value


def _quoted(found: Diagnostic, line: str) -> Edit | None:
    """A number or a word where a text is expected."""
    start, end = found.column - 1, found.end_column - 1
    raw = line[start:end]
    if not (found.hint or "").endswith("in quotes") or not re.fullmatch(r"[\w.+-]+", raw):
        return None
    return Edit(found.line - 1, start, end, f'"{raw}"')


def _renamed(found: Diagnostic, line: str) -> Edit | None:
    """A key of another language."""
    start, end = found.column - 1, found.end_column - 1
    known = _RENAMED.get(line[start:end])
    if known is not None:
        return Edit(found.line - 1, start, end, known)
    forgiving = _FORGIVING.match(line, start)
    return None if forgiving is None else Edit(found.line - 1, start, forgiving.end(), "on_error: continue")


def _without_comment(found: Diagnostic, line: str) -> Edit | None:
    """An ignore comment that ignores nothing."""
    start = line.rfind("#", 0, found.column)
    if start < 0 or "," in line[start : found.end_column]:
        return None
    kept = line[:start].rstrip()
    return Edit(found.line - 1, len(kept), len(line), "" if kept else None)


def _without_need(found: Diagnostic, line: str) -> Edit | None:
    """A step in `needs` that a reference names already; the key goes with the last one."""
    start, end = found.column - 1, found.end_column - 1
    name = re.escape(line[start:end])
    for pattern in (rf"{name}[ ]*,[ ]*", rf",[ ]*{name}(?=[ ]*\])"):
        found_at = next((m for m in re.finditer(pattern, line) if m.start() <= start < m.end()), None)
        if found_at is not None:
            return Edit(found.line - 1, found_at.start(), found_at.end(), "")
    if re.fullmatch(rf"[ ]*needs:[ ]*\[[ ]*{name}[ ]*\][ ]*", line):
        return Edit(found.line - 1, 0, len(line), None)
    for pattern in (rf"needs:[ ]*\[[ ]*{name}[ ]*\][ ]*,[ ]*", rf",[ ]*needs:[ ]*\[[ ]*{name}[ ]*\](?=[ ]*}})"):
        found_at = next((m for m in re.finditer(pattern, line) if m.start() <= start < m.end()), None)
        if found_at is not None:
            return Edit(found.line - 1, found_at.start(), found_at.end(), "")
    return None


_FIXES: dict[str, Callable[[Diagnostic, str], Edit | None]] = {
    "SF011": _quoted,
    "SF018": _without_comment,
    "SF019": _renamed,
    "SF404": _written,
    "SF703": _without_need,
    "SF704": _written,
    "SF705": _written,
}
CODES = frozenset(_FIXES)
"""Codes of findings of which some have a certain fix."""
