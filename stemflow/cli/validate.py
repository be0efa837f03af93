"""`stemflow validate`: every finding about the files that are named, and nothing else."""

from __future__ import annotations

import os
import sys
from collections.abc import Collection, Iterator
from pathlib import Path

from stemflow.cli.arguments import Arguments
from stemflow.cli.exits import FINE, INVALID_FILE, Refused
from stemflow.cli.report import as_data, as_github, as_text, count_text
from stemflow.cli.text import json_text
from stemflow.cli.workflow_file import read_file
from stemflow.model.diagnostic import Diagnostic
from stemflow.runtime.client.workflow_files import Checked


def main(arguments: Arguments) -> int:
    """Check the files; INVALID_FILE when one has an error (or, with `--strict`, a warning)."""
    known = _known_tasks(arguments.tasks)
    checked = [_checked(file, known) for path in arguments.paths for file in _files(path)]
    _print(checked, arguments.format)
    found = [one for file in checked for one in file.found]
    bad = found if arguments.strict else [one for one in found if one.severity == "error"]
    return INVALID_FILE if bad else FINE


def _known_tasks(named: list[str]) -> Collection[str] | None:
    """Task modules are imported only when they were named."""
    if not named:
        return None
    from stemflow.runtime.tasks.discovery import find_tasks

    return find_tasks(named, None)


def _checked(file: str, known: Collection[str] | None) -> Checked:
    """The findings about one file; that it cannot be read is one."""
    try:
        return read_file(file).checked(known)
    except Refused as refused:
        message, _, hint = str(refused).removeprefix(f"{file}: ").partition("; ")
        return Checked(file, "", None, (Diagnostic("SF005", message, hint=hint or None, file=file),))


def _files(path: str) -> Iterator[str]:
    """The file itself, or the workflow files of a folder and the folders below it, hidden ones left out."""
    if not Path(path).is_dir():
        yield path
        return
    any_file = False
    for folder, below, names in os.walk(path):
        below[:] = sorted(name for name in below if not name.startswith("."))
        for name in sorted(names):
            if name.endswith((".yaml", ".yml")) and not name.startswith("."):
                any_file = True
                yield os.path.join(folder, name)
    if not any_file:
        raise Refused(f"{path}: expected workflow files (*.yaml, *.yml), found none in this folder; name a file")


def _print(checked: list[Checked], form: str) -> None:
    found = [one for file in checked for one in file.found]
    if form == "json":
        print(json_text({"diagnostics": [as_data(one) for one in found]}))
        return
    sources = {file.file: file.text for file in checked}
    for one in found:
        print(as_github(one) if form == "github" else as_text(one, sources))
    print(count_text(found, len(checked)), file=sys.stderr)
