"""`stemflow fmt`: the standard layout of workflow files."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Iterator
from pathlib import Path

from stemflow.cli.arguments import Arguments
from stemflow.cli.exits import FINE, INVALID_FILE, RUN_FAILED, Refused
from stemflow.cli.text import shown
from stemflow.cli.workflow_file import read_text
from stemflow.cli.workflow_paths import STDIN, Filters, workflow_files
from stemflow.dsl.layout import CannotFormat, formatted


def main(arguments: Arguments) -> int:
    """Write the files; with `--check` or `--diff`, only say what would change, with exit code 1 if something would."""
    if arguments.paths == [STDIN]:
        print(formatted(sys.stdin.read()), end="")
        return FINE
    changed = 0
    broken: list[str] = []
    files = list(_files(arguments.paths))
    for file in files:
        text = read_text(file)
        try:
            better = formatted(text)
        except CannotFormat as reason:
            broken.append(f"{file}: {reason}")
            continue
        if better == text:
            continue
        changed += 1
        if arguments.diff:
            print("\n".join(_diff(file, text, better)))
        if arguments.check or arguments.diff:
            print(f"{file} would change", file=sys.stderr)
        else:
            Path(file).write_bytes(better.encode())
            print(f"{file} changed", file=sys.stderr)
    if broken:
        first, *more = broken
        raise Refused(first, INVALID_FILE, tuple(more))
    return RUN_FAILED if changed and (arguments.check or arguments.diff) else FINE


def _files(paths: list[str]) -> Iterator[str]:
    """Workflow files, and the files of tests in folders."""
    for path in paths:
        if Path(path).is_dir():
            tests = sorted(str(one) for suffix in ("yaml", "yml") for one in Path(path).rglob(f"*.test.{suffix}"))
            yield from dict.fromkeys((*workflow_files([path], Filters()), *tests))
        else:
            yield path


def _diff(file: str, before: str, after: str) -> Iterator[str]:
    lines = difflib.unified_diff(before.splitlines(), after.splitlines(), file, f"{file} (formatted)", lineterm="")
    return (shown(line) for line in lines)
