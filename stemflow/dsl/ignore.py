"""`# stemflow: ignore=SF204 reason`: a finding that the author has judged and does not want to see."""

from __future__ import annotations

import re
from collections.abc import Mapping

from stemflow.dsl.findings import Findings, Position
from stemflow.model.diagnostic import Diagnostic

_COMMENT = re.compile(r"#[ \t]*stemflow:[ \t]*ignore=(\S*)[ \t]*([^\r\n]*)")
_CODES = re.compile(r"SF\d{3}(,SF\d{3})*")
_NEVER = ("SF0", "SF201")
"""Without a shape or a readable expression there is nothing to run, so these cannot be ignored."""


def read_ignores(text: str, findings: Findings) -> Mapping[int, frozenset[str]]:
    """Line -> codes ignored there; a comment alone on its line speaks of the next line."""
    if "stemflow:" not in text:
        return {}
    ignored: dict[int, frozenset[str]] = {}
    for number, line in enumerate(text.split("\n"), 1):
        found = _COMMENT.search(line)
        if found is None:
            continue
        place = Position(number, found.start() + 1, found.end() + 1)
        _check(found[1], found[2], place, findings)
        target = number + 1 if not line[: found.start()].strip() else number
        ignored[target] = ignored.get(target, frozenset()) | frozenset(found[1].split(","))
    return ignored


def _check(codes: str, reason: str, place: Position, findings: Findings) -> None:
    if not _CODES.fullmatch(codes):
        findings.error("SF016", f"ignore: expected codes such as SF204 or SF204,SF502, got {codes!r}", place)
    elif not reason.strip():
        findings.error("SF016", f"ignore={codes}: expected a reason after the codes, got none", place,
                       f"write # stemflow: ignore={codes} why it is right")  # fmt: skip
    for code in codes.split(","):
        if code.startswith(_NEVER):
            findings.error("SF016", f"ignore: {code} cannot be ignored", place, "mend what it tells")


def is_ignored(ignored: Mapping[int, frozenset[str]], found: Diagnostic) -> bool:
    """Whether a comment in the file speaks of this finding."""
    return found.code in ignored.get(found.line, ()) and not found.code.startswith(_NEVER)
