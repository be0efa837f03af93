"""Workflow files for programs: read, checked, and given complete inputs. The command line uses the same functions."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from stemflow.dsl import Parsed, parse_workflow
from stemflow.dsl.cases import CaseFile
from stemflow.dsl.rules import Unusable, View
from stemflow.errors import StemflowError
from stemflow.model.diagnostic import Diagnostic
from stemflow.model.workflow import Workflow
from stemflow.runtime.client.called_files import CalledFiles, findings
from stemflow.runtime.client.other_files import bounded_text, others_of
from stemflow.runtime.values.forms import complete_form


class InvalidWorkflow(StemflowError):
    """A workflow file has errors; `diagnostics` has every finding with its place, code and hint."""

    def __init__(self, diagnostics: tuple[Diagnostic, ...]) -> None:
        self.diagnostics = diagnostics
        super().__init__("\n".join(_line(one) for one in diagnostics))


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
    """A file that was parsed, not yet checked against the graph's rules and the tasks.

    `path` is where it is, for the files that it calls.
    """

    file: str
    text: str
    parsed: Parsed
    path: Path

    @classmethod
    def of(cls, text: str, file: str, path: Path | None = None) -> WorkflowFile:
        path = Path(os.path.realpath(file if path is None else path))
        return cls(file, text, parse_workflow(text, file, others_of(path)), path)

    def checked(self, known_tasks: Collection[str] | None) -> Checked:
        """All findings; `known_tasks` None: no registry was named, so tasks are not looked up.

        The workflow has the workflows that it calls in it, as they are now.
        """
        called = CalledFiles(self.path.parent)
        callees = called.callees(self.path, self.parsed, known_tasks)
        found = findings(self.parsed, known_tasks, callees)
        workflow = self.parsed.workflow
        if workflow is not None and callees and not any(isinstance(one, Unusable) for one in callees.values()):
            workflow = called.linked(self.path, workflow, known_tasks)
        return Checked(self.file, self.text, workflow, found)

    def check_cases(self, cases: CaseFile, file: str) -> tuple[Diagnostic, ...]:
        """The findings about a file of tests for this workflow, which may name what it calls."""
        callees = CalledFiles(self.path.parent).callees(self.path, self.parsed, None)
        return self.parsed.check_cases(cases, file, callees)

    def called(self) -> set[Path]:
        """The files that this one calls, directly or through others."""
        return CalledFiles(self.path.parent).below(self.path, self.parsed)

    def view(self, known_tasks: Collection[str] | None) -> View | None:
        """The file as rules see it, with what is known of the workflows that it calls."""
        return CalledFiles(self.path.parent).view(self.path, self.parsed, known_tasks)


def load_workflow(path: str | os.PathLike[str], *, known_tasks: Collection[str] | None = None) -> Workflow:
    """Read the workflow file at `path`, to be given to `Stemflow.run` or `submit`.

    With `known_tasks` (a registry will do) unknown task names are found too. Raises InvalidWorkflow with every finding,
    and OSError or UnicodeDecodeError when there is no text to read.
    """
    file = os.fspath(path)
    checked = WorkflowFile.of(bounded_text(Path(file)), file).checked(known_tasks)
    if checked.workflow is None or checked.fails:
        raise InvalidWorkflow(checked.found or (no_body(file),))
    return checked.workflow


def no_body(file: str) -> Diagnostic:
    """The error of asking for the workflow of a file that has templates and types for others, but no body."""
    return Diagnostic(
        "SF013", "the file: expected a body to run, got templates and types only", 1, 1, 2,
        hint="write steps, chain, group or chord", severity="error", file=file,
    )  # fmt: skip


def complete_inputs(workflow: Workflow, given: Mapping[str, Any]) -> dict[str, Any]:
    """The inputs with defaults filled in, in the order of the file; raises InvalidInputs."""
    return complete_form(workflow.inputs, given)


def _line(found: Diagnostic) -> str:
    hint = f"; {found.hint}" if found.hint else ""
    return f"{found.file}:{found.line}:{found.column}: {found.severity} {found.code}: {found.message}{hint}"
