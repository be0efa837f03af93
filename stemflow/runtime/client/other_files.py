"""Reading the files that a workflow file uses: only files of the same project, by their relative paths."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath

from stemflow.dsl.others import CannotRead, OtherFile, ReadOther
from stemflow.dsl.source import MOST_BYTES

MARKS = (".git", "pyproject.toml", "stemflow.tasks.lock.json")
"""What the folder of a project has. A file uses and calls files below the nearest such folder, else below its own."""


def bounded_text(path: Path) -> str:
    """The UTF-8 text of a file. Of one above the limit, and of a device that never ends, only so much that the parser
    refuses it. Raises OSError, UnicodeDecodeError."""
    with path.open("rb") as file:
        data = file.read(MOST_BYTES + 1)
    return data.decode("utf-8", "strict" if len(data) <= MOST_BYTES else "ignore")


def project_of(folder: Path) -> Path:
    """The top folder of the project that a resolved folder belongs to; the folder itself if nothing marks one."""
    for one in (folder, *folder.parents):
        if any((one / mark).exists() for mark in MARKS):
            return one
    return folder


def others_of(path: Path) -> ReadOther:
    """Reads what the workflow file at `path` uses, and what that uses in turn."""
    names: list[str] = []

    def read(relative: str, file: str) -> OtherFile:
        names.append(file)  # the first is that of the file itself, which may be another in findings than its path
        return read_other(relative, str(path) if file == names[0] else file)

    return read


def read_other(path: str, file: str) -> OtherFile:
    """The file at `path`, relative to the folder of `file`. Raises CannotRead."""
    folder = Path(file).parent
    if PurePosixPath(path).is_absolute() or "\\" in path or ":" in path or path.startswith("~"):
        raise CannotRead(f"expected a path relative to this file, such as lib/common.yaml, got {path!r}")
    try:
        target = (folder / path).resolve(strict=True)
    except (OSError, RuntimeError, ValueError):
        raise CannotRead(f"expected a workflow file at {os.path.normpath(folder / path)}, found none") from None
    project = project_of(folder.resolve())
    if not target.is_relative_to(project):
        raise CannotRead(f"expected a file inside the project {project}, got {path!r}, which is outside")
    if target.suffix not in (".yaml", ".yml") or not target.is_file():
        raise CannotRead(f"expected a file that ends in .yaml or .yml, got {path!r}")
    try:
        if target.stat().st_size > MOST_BYTES:
            raise CannotRead(f"expected at most {MOST_BYTES:,} bytes, got a larger file")
        text = target.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CannotRead(f"expected a file of UTF-8 text that can be read, got {type(error).__name__}") from None
    return OtherFile(text, os.path.normpath(folder / path), str(target))
