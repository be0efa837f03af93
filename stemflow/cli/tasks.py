"""`stemflow tasks lock`: the lock file of task declarations."""

from __future__ import annotations

import sys
from pathlib import Path

from stemflow.cli.arguments import Arguments
from stemflow.cli.exits import FINE, RUN_FAILED, Refused
from stemflow.runtime.catalog.lock import LOCK_NAME, decode, differences, encode, locked_by
from stemflow.runtime.tasks.discovery import find_tasks


def main(arguments: Arguments) -> int:
    """Write the lock file; with `--check`, only say whether it is up to date."""
    path = Path(arguments.output or LOCK_NAME)
    tasks = locked_by(find_tasks(arguments.tasks, None))
    if not arguments.check:
        path.write_text(encode(tasks), "utf-8")
        print(f"{path}: {len(tasks)} {'task' if len(tasks) == 1 else 'tasks'}", file=sys.stderr)
        return FINE
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError):
        raise Refused(f"{path}: expected a lock file, found none that can be read; write it with "
                      "`stemflow tasks lock`", RUN_FAILED) from None  # fmt: skip
    found = differences(decode(text, str(path)), decode(encode(tasks), str(path)))
    for line in found:
        print(line)
    if found or text != encode(tasks):
        print(f"{path} is out of date; write it again with `stemflow tasks lock`", file=sys.stderr)
        return RUN_FAILED
    return FINE
