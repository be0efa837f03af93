"""Running test cases, once or after each change, and saying how they went."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from pathlib import Path

from stemflow.cli.arguments import Arguments
from stemflow.cli.exits import FINE, INVALID_FILE, RUN_FAILED, Refused
from stemflow.cli.report import as_text
from stemflow.cli.test.coverage import coverage
from stemflow.cli.test.expectations import faults
from stemflow.cli.test.rehearse import rehearse
from stemflow.cli.test.suites import Ran, Report, Suite, find_suites
from stemflow.cli.test.writers import junit, text
from stemflow.runtime.tasks.registry import TaskRegistry

WATCH_S = 0.5
"""Seconds between two looks at the files."""


def main(arguments: Arguments) -> int:
    """Run the cases; RUN_FAILED when one fails or the coverage is too low, INVALID_FILE for a file with errors."""
    if not arguments.watch:
        return run_once(arguments)
    return watch(lambda: run_once(arguments), lambda: _stamps(arguments.paths), threading.Event().wait)


def run_once(arguments: Arguments) -> int:
    """Run all cases that are asked for, and print the report."""
    suites = list(find_suites(arguments.paths))
    wrong = [one for suite in suites for one in suite.diagnostics if one.severity == "error"]
    if wrong:
        texts = {file: text for suite in suites for file, text in suite.texts.items()}
        for one in wrong:
            print(as_text(one, texts), file=sys.stderr)
        raise Refused(f"{len(wrong)} {'error' if len(wrong) == 1 else 'errors'}; no case was run", INVALID_FILE)
    registry = _registry(arguments.tasks)
    reports = [_run(suite, registry, arguments.case) for suite in suites]
    if not any(report.ran for report in reports):
        raise Refused(f"{', '.join(arguments.paths)}: expected test cases, found none{_asked(arguments.case)}; write "
                      "them under `tests` in the workflow file, or in NAME.test.yaml next to it")  # fmt: skip
    for line in {"text": text, "junit": junit}[arguments.format](reports):
        print(line)
    low = [one for one in reports if one.coverage is not None and one.coverage.percent < arguments.min_coverage]
    for report in low:
        assert report.coverage is not None
        print(f"{report.suite.file}: expected a coverage of at least {arguments.min_coverage:g} %, "
              f"got {report.coverage.percent:.0f} %", file=sys.stderr)  # fmt: skip
    failed = any(one.faults for report in reports for one in report.ran)
    return RUN_FAILED if failed or low else FINE


def _asked(name: str | None) -> str:
    return "" if name is None else f" with {name!r} in its name"


def _registry(named: list[str]) -> TaskRegistry | None:
    if not named:
        return None
    from stemflow.runtime.tasks.discovery import find_tasks

    return find_tasks(named, None)


def _run(suite: Suite, registry: TaskRegistry | None, only: str | None) -> Report:
    assert suite.workflow is not None
    ran = []
    for file, case in suite.cases:
        if only is None or only in case.name:
            outcome = rehearse(suite.workflow, case, registry)
            ran.append(Ran(file, case, outcome, faults(case, outcome)))
    covered = coverage(suite.workflow, [one.outcome for one in ran]) if ran and only is None else None
    return Report(suite, ran, covered)


# -- watching


def watch(run: Callable[[], int], stamps: Callable[[], object], wait: Callable[[float], object]) -> int:
    """Run now and after each change of the files, until Ctrl-C; `stamps` differs after a change."""
    while True:
        before = stamps()
        try:
            run()
        except Refused as refused:
            print(f"error: {refused}", file=sys.stderr)
        print("waiting for a change; Ctrl-C ends", file=sys.stderr)
        while stamps() == before:
            wait(WATCH_S)


def _stamps(paths: list[str]) -> list[tuple[str, int]]:
    """When each YAML and Python file in the folders of `paths` was changed."""
    folders = {Path(path) if Path(path).is_dir() else Path(path).parent for path in paths}
    found = []
    for folder in sorted(folders):
        for file in sorted(one for suffix in ("*.yaml", "*.yml", "*.py") for one in folder.glob(suffix)):
            try:
                found.append((str(file), file.stat().st_mtime_ns))
            except OSError:
                continue
    return found
