"""Workflow files for programs: read, checked, and given complete inputs. The command line uses the same functions."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from stemflow.compile.arguments import TypedTasks
from stemflow.compile.rules import check
from stemflow.dsl import Parsed, check_inputs, parse_workflow
from stemflow.errors import StemflowError
from stemflow.model.diagnostic import Diagnostic
from stemflow.model.workflow import Workflow


class InvalidWorkflow(StemflowError):
    """A workflow file has errors; `diagnostics` has every finding with its place, code and hint."""

    def __init__(self, diagnostics: tuple[Diagnostic, ...]) -> None:
        self.diagnostics = diagnostics
        super().__init__("\n".join(_line(one) for one in diagnostics))


class InvalidInputs(StemflowError, ValueError):
    """Inputs of a run do not fit what its workflow declares; `messages` has a sentence for each that is wrong."""

    def __init__(self, messages: list[str]) -> None:
        self.messages = messages
        super().__init__("\n".join(messages))


class Checked(NamedTuple):
    """A file that was read. `workflow` is None when it has an error of shape or expression."""

    file: str
    text: str
    workflow: Workflow | None
    found: tuple[Diagnostic, ...]

    @property
    def fails(self) -> bool:
        return any(one.severity == "error" for one in self.found)


class WorkflowFile(NamedTuple):
    """A file that was parsed, not yet checked against the graph's rules and the tasks."""

    file: str
    text: str
    parsed: Parsed

    @classmethod
    def of(cls, text: str, file: str) -> WorkflowFile:
        return cls(file, text, parse_workflow(text, file))

    def checked(self, known_tasks: Collection[str] | None) -> Checked:
        """All findings; `known_tasks` None: no registry was named, so tasks are not looked up."""
        tasks = known_tasks if isinstance(known_tasks, TypedTasks) else None

        def built(workflow: Workflow) -> list[Diagnostic]:
            return check(workflow, self.parsed.locate, known_tasks)

        return Checked(self.file, self.text, self.parsed.workflow, self.parsed.check(tasks, built))


def load_workflow(path: str | os.PathLike[str], *, known_tasks: Collection[str] | None = None) -> Workflow:
    """Read the workflow file at `path`, to be given to `Stemflow.run` or `submit`.

    With `known_tasks` (a registry will do) unknown task names are found too. Raises InvalidWorkflow with every finding,
    and OSError or UnicodeDecodeError when there is no text to read.
    """
    file = os.fspath(path)
    checked = WorkflowFile.of(Path(file).read_text("utf-8"), file).checked(known_tasks)
    if checked.workflow is None or checked.fails:
        raise InvalidWorkflow(checked.found)
    return checked.workflow


def complete_inputs(workflow: Workflow, given: Mapping[str, Any]) -> dict[str, Any]:
    """The inputs with defaults filled in, in the order of the file; raises InvalidInputs."""
    return complete_form(workflow.inputs, given)


def complete_form(schemas: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """The values for these names with defaults filled in; raises InvalidInputs."""
    values, messages = check_inputs(schemas, given)
    if messages:
        raise InvalidInputs(messages)
    return values


def _line(found: Diagnostic) -> str:
    hint = f"; {found.hint}" if found.hint else ""
    return f"{found.file}:{found.line}:{found.column}: {found.severity} {found.code}: {found.message}{hint}"
