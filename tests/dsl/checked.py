"""What the tests of the rules share: a small file checked whole, as `stemflow validate` does."""

from __future__ import annotations

import dataclasses
from typing import Any

from stemflow import TaskRegistry
from stemflow.model.diagnostic import Diagnostic
from stemflow.runtime.client.workflow_files import Checked, WorkflowFile
from tests.dsl.files import HEAD

registry = TaskRegistry()


@dataclasses.dataclass
class Box:
    size: int
    labels: list[str]


@registry.task("do")
def do(what: Any = None, count: int = 0, names: list[str] = [], big: bool = False) -> Any: ...  # noqa: B006


@registry.task("pack")
def pack() -> Box: ...


def check(body: str, tasks: bool = False) -> Checked:
    """The findings about a file whose `body` begins on line 3."""
    return WorkflowFile.of(HEAD + body, "x.yaml").checked(registry if tasks else None)


def step(text: str, before: str = "") -> str:
    """A file with a step `a`, and a step `b` that is `text`."""
    return f"{before}steps:\n  a: {{task: do}}\n  b: {text}\n"


def arg(expression: str, before: str = "") -> str:
    """A file whose step `b` has an expression as its argument."""
    return step('{task: do, args: {what: "${{ ' + expression.replace('"', '\\"') + ' }}"}}', before)


def told(checked: Checked) -> list[tuple[str, str]]:
    """(code, the marked text) of every finding."""
    return [(one.code, marked(checked, one)) for one in checked.found]


def marked(checked: Checked, found: Diagnostic) -> str:
    """The part of the file that a finding points at."""
    return checked.text.split("\n")[found.line - 1][found.column - 1 : found.end_column - 1]
