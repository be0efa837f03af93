"""Workflow files with their test cases: finding them, and what became of them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from stemflow.cli.exits import Refused
from stemflow.cli.test.coverage import Coverage
from stemflow.cli.test.expectations import Fault
from stemflow.cli.test.rehearse import Outcome
from stemflow.cli.workflow_file import read_file, read_text
from stemflow.cli.workflow_paths import Filters, workflow_files
from stemflow.dsl.cases import Case, read_case_file
from stemflow.model.diagnostic import Diagnostic
from stemflow.model.workflow import Workflow

TEST_SUFFIXES = (".test.yaml", ".test.yml")


class Ran(NamedTuple):
    """A case that was run; `file` is where it is written."""

    file: str
    case: Case
    outcome: Outcome
    faults: list[Fault]


class Suite(NamedTuple):
    """A workflow file with its cases."""

    file: str
    workflow: Workflow | None
    cases: tuple[tuple[str, Case], ...]
    """(file, case), the inline ones first."""
    diagnostics: tuple[Diagnostic, ...]
    texts: dict[str, str]


class Report(NamedTuple):
    """What became of the cases of one workflow file."""

    suite: Suite
    ran: list[Ran]
    coverage: Coverage | None


def find_suites(paths: list[str]) -> Iterator[Suite]:
    """The workflow files that `paths` name, each once, with the cases in them and in the files of tests."""
    tests_of: dict[str, list[str]] = {}
    for path in paths:
        for file in map(os.path.normpath, _files(path)):
            if not file.endswith(TEST_SUFFIXES):
                own = str(_tests_next_to(file))
                tests_of.setdefault(file, [])
                if Path(own).exists() and own not in tests_of[file]:
                    tests_of[file].append(own)
                continue
            named = read_case_file(read_text(file), file).workflow
            workflow = os.path.normpath(Path(file).parent / named) if named else _workflow_next_to(file)
            listed = tests_of.setdefault(workflow, [])
            if file not in listed:
                listed.append(file)
    for workflow, tests in tests_of.items():
        yield _suite(workflow, tests)


def _files(path: str) -> list[str]:
    if not Path(path).is_dir():
        return [path]
    tests = sorted(str(one) for suffix in TEST_SUFFIXES for one in Path(path).rglob(f"*{suffix}"))
    try:
        return [*workflow_files([path], Filters()), *tests]
    except Refused:
        if not tests:
            raise
        return tests


def _tests_next_to(workflow: str) -> Path:
    path = Path(workflow)
    return path.with_name(f"{path.stem}.test{path.suffix}")


def _workflow_next_to(file: str) -> str:
    suffix = next(one for one in TEST_SUFFIXES if file.endswith(one))
    return file.removesuffix(suffix) + suffix.removeprefix(".test")


def _suite(file: str, tests: list[str]) -> Suite:
    source = read_file(file)
    checked = source.checked(None)
    found, texts = [*checked.found], {file: source.text}
    cases = [(file, case) for case in source.parsed.cases]
    for one in tests:
        texts[one] = read_text(one)
        read = read_case_file(texts[one], one)
        found += source.check_cases(read, one)
        cases += [(one, case) for case in read.cases]
    return Suite(file, checked.workflow, tuple(cases), tuple(found), texts)
