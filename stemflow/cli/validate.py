"""`stemflow validate`: every finding about the files that are named."""

from __future__ import annotations

import os
import sys
from collections.abc import Collection, Iterable
from pathlib import Path

from stemflow.cli.arguments import Arguments
from stemflow.cli.exits import FINE, INVALID_FILE, Refused
from stemflow.cli.finding_formats import WRITERS
from stemflow.cli.report import as_text, count_text
from stemflow.cli.validate_settings import Settings, codes, read_settings
from stemflow.cli.workflow_file import read_file
from stemflow.cli.workflow_paths import STDIN, Filters, changed_since, workflow_files
from stemflow.dsl.fixes import CODES as FIXED
from stemflow.dsl.fixes import fixed
from stemflow.model.diagnostic import Diagnostic
from stemflow.runtime.client.workflow_files import Checked, WorkflowFile

STDIN_NAME = "<stdin>"
LOCK_NAME = "stemflow.tasks.lock.json"
"""The name is repeated here so that nothing of the runtime is imported where there is no lock file."""


def main(arguments: Arguments) -> int:
    """Check the files; INVALID_FILE when one has an error (or, with `--strict`, a warning)."""
    settings = _settings(arguments)
    changed = None if arguments.changed_since is None else changed_since(arguments.changed_since)
    files = workflow_files(arguments.paths, Filters(settings.include, settings.exclude), changed)
    known = _known_tasks(arguments.tasks)
    locks = Locks()
    if arguments.fix:
        for file in files:
            _fix(file, locks.of(file) if known is None else known, settings)
    checked = [_checked(file, locks.of(file) if known is None else known) for file in files]
    found = [one for file in checked for one in file.found if settings.keeps(one)]
    _print(checked, found, arguments)
    return INVALID_FILE if any(settings.strict or one.severity == "error" for one in found) else FINE


def _settings(arguments: Arguments) -> Settings:
    """pyproject.toml, with what the command line adds."""
    given = read_settings(Path.cwd())
    return given._replace(
        include=tuple(arguments.include) or given.include,
        exclude=(*given.exclude, *arguments.exclude),
        select=codes(arguments.select, "--select") or given.select,
        ignore=(*given.ignore, *codes(arguments.ignore, "--ignore")),
        strict=given.strict or arguments.strict,
    )


def _known_tasks(named: list[str]) -> Collection[str] | None:
    """Task modules are imported only when they were named."""
    if not named:
        return None
    from stemflow.runtime.tasks.discovery import find_tasks

    return find_tasks(named, None)


class Locks:
    """The lock files of tasks, each read once."""

    def __init__(self) -> None:
        self._found: dict[Path, Collection[str] | None] = {}

    def of(self, file: str) -> Collection[str] | None:
        """The tasks of the nearest lock file at or above the folder of a file; None where there is none."""
        folder = Path.cwd() if file == STDIN else Path(file).resolve().parent
        if folder not in self._found:
            path = next((one / LOCK_NAME for one in (folder, *folder.parents) if (one / LOCK_NAME).is_file()), None)
            self._found[folder] = None if path is None else _read_lock(path)
        return self._found[folder]


def _read_lock(path: Path) -> Collection[str]:
    from stemflow.runtime.catalog.lock import read_lock

    return read_lock(path)


def _checked(file: str, known: Collection[str] | None) -> Checked:
    """The findings about one file; that it cannot be read is one."""
    try:
        if file == STDIN:
            return WorkflowFile.of(_standard_input(), STDIN_NAME).checked(known)
        return read_file(file).checked(known)
    except Refused as refused:
        file = STDIN_NAME if file == STDIN else file
        message, _, hint = str(refused).removeprefix(f"{file}: ").partition("; ")
        return Checked(file, "", None, (Diagnostic("SF005", message, hint=hint or None, file=file),))


def _fix(file: str, known: Collection[str] | None, settings: Settings) -> None:
    """Write the certain fixes of the findings that are asked for into the file."""
    before = _checked(file, known)
    if file == STDIN or not any(one.code in FIXED for one in before.found):
        return

    def check(text: str) -> list[Diagnostic]:
        return [one for one in WorkflowFile.of(text, file).checked(known).found if settings.keeps(one)]

    text, gone = fixed(before.text, check)
    if text != before.text:
        Path(file).write_bytes(text.encode())
        print(f"{file}: fixed {gone} {'finding' if gone == 1 else 'findings'}", file=sys.stderr)


def _standard_input() -> str:
    try:
        return sys.stdin.buffer.read().decode("utf-8")
    except UnicodeDecodeError as error:
        raise Refused(f"expected UTF-8 text, got something else at byte {error.start}; save it as UTF-8") from None


def _print(checked: list[Checked], found: list[Diagnostic], arguments: Arguments) -> None:
    texts = {file.file: file.text for file in checked}
    if arguments.format == "text" and _in_colour(arguments.color):
        lines: Iterable[str] = (as_text(one, texts, colour=True) for one in found)
    else:
        lines = WRITERS[arguments.format](found, texts)
    for line in lines:
        print(line)
    if arguments.format in ("text", "github"):
        print(count_text(found, len(checked)), file=sys.stderr)


def _in_colour(wanted: str) -> bool:
    if wanted != "auto":
        return wanted == "always"
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
