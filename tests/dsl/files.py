"""What the tests of the workflow file share: small files and findings as text."""

from __future__ import annotations

from pathlib import Path

from stemflow.dsl import Parsed, parse_workflow
from stemflow.model.diagnostic import Diagnostic

FOLDER = Path(__file__).parent
HEAD = 'stemflow: "1"\nname: x\n'


def parse(body: str) -> Parsed:
    """A file whose first lines are given, so that `body` begins on line 3."""
    return parse_workflow(HEAD + body, "x.yaml")


def show(found: Diagnostic) -> str:
    """One finding as the golden files hold it."""
    hint = f"\n    hint: {found.hint}" if found.hint else ""
    place = f"{found.file}:{found.line}:{found.column}-{found.end_column}"
    return f"{place}: {found.severity} {found.code}: {found.message}{hint}\n"


def codes(parsed: Parsed) -> list[str]:
    """The codes of all findings."""
    return [one.code for one in parsed.diagnostics]
