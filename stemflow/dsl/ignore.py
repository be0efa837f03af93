"""`# stemflow: ignore=SF204 reason`: a finding that the author has judged and does not want to see."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

from stemflow.dsl.findings import Findings, Position, did_you_mean
from stemflow.dsl.rules.catalogue import CATALOGUE
from stemflow.model.diagnostic import Diagnostic

_COMMENT = re.compile(r"#[ \t]*stemflow:[ \t]*ignore=(\S*)[ \t]*([^\r\n]*)")
_CODES = re.compile(r"SF\d{3}(,SF\d{3})*")
_NEVER = ("SF0", "SF201")
"""Without a shape or a readable expression there is nothing to run, so these cannot be ignored."""
_NEEDS_TASKS = frozenset({"SF303", "SF304", "SF306", "SF307", "SF401", "SF402"})
"""Findings that are made only when the tasks are known."""


class Ignore(NamedTuple):
    """One comment: the codes that it names, the line that it speaks of, and where it is."""

    codes: tuple[str, ...]
    line: int
    place: Position


class Ignores:
    """The ignore comments of a file."""

    def __init__(self, comments: Iterable[Ignore]) -> None:
        self.comments = tuple(comments)
        self._codes: dict[int, set[str]] = {}
        for one in self.comments:
            self._codes.setdefault(one.line, set()).update(one.codes)

    def covers(self, found: Diagnostic) -> bool:
        """Whether a comment speaks of this finding."""
        return found.code in self._codes.get(found.line, ()) and not found.code.startswith(_NEVER)

    def report_unused(self, found: Iterable[Diagnostic], with_tasks: bool, kept: list[Diagnostic]) -> None:
        """Add a warning to `kept` for each code of a comment that no finding has on its line."""
        there = {(one.line, one.code) for one in found}
        findings = Findings(next((one.file for one in kept), ""))
        for comment in self.comments:
            for code in comment.codes:
                known = code in CATALOGUE and not code.startswith(_NEVER) and (with_tasks or code not in _NEEDS_TASKS)
                if known and (comment.line, code) not in there:
                    findings.warning("SF018", f"ignore={code}: there is no such finding on line {comment.line}",
                                     comment.place, "take the comment out")  # fmt: skip
        kept.extend(one for one in findings.by_place() if not self.covers(one))


def read_ignores(text: str, findings: Findings) -> Ignores:
    """The comments of a file; one alone on its line speaks of the next line. Reports those that cannot be read."""
    found: list[Ignore] = []
    if "stemflow:" in text:
        for number, line in enumerate(text.split("\n"), 1):
            comment = _COMMENT.search(line)
            if comment is not None:
                place = Position(number, comment.start() + 1, comment.end() + 1)
                _check(comment[1], comment[2], place, findings)
                alone = not line[: comment.start()].strip()
                found.append(Ignore(tuple(comment[1].split(",")), number + 1 if alone else number, place))
    return Ignores(found)


def _check(codes: str, reason: str, place: Position, findings: Findings) -> None:
    if not _CODES.fullmatch(codes):
        findings.error("SF016", f"ignore: expected codes such as SF204 or SF204,SF502, got {codes!r}", place)
        return
    if not reason.strip():
        findings.error("SF016", f"ignore={codes}: expected a reason after the codes, got none", place,
                       f"write # stemflow: ignore={codes} why it is right")  # fmt: skip
    for code in codes.split(","):
        if code not in CATALOGUE:
            hint = did_you_mean(code, CATALOGUE, "codes")
            findings.error("SF016", f"ignore: there is no finding {code}", place,
                           hint if hint.startswith("did") else "`stemflow explain` lists all codes")  # fmt: skip
        elif code.startswith(_NEVER):
            findings.error("SF016", f"ignore: {code} cannot be ignored", place, "correct what it reports")
