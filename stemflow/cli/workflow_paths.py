"""The files that a command applies to: files as they are named, and the workflow files of folders."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, NamedTuple

from stemflow.cli.exits import Refused
from stemflow.lazy_import import LazyModule
from stemflow.runtime.client.other_files import bounded_text
from stemflow.runtime.client.workflow_files import WorkflowFile

if TYPE_CHECKING:
    import subprocess
else:
    subprocess = LazyModule("subprocess")  # for --changed-since

STDIN = "-"
_SUFFIXES = (".yaml", ".yml")
_MARK = re.compile(
    rb"""^(?:\xef\xbb\xbf)?["']?stemflow["']?[ \t]*:|^#.*yaml-language-server:.*workflow\.v1\.schema\.json""",
    re.MULTILINE,
)
_MOST_READ = 65_536


class Filters(NamedTuple):
    """Patterns on the path of a file below a named folder; `*` matches any characters, slashes too."""

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()

    def accept(self, path: str) -> bool:
        """Whether a file of a folder is wanted."""
        if _matches(path, self.exclude):
            return False
        return not self.include or _matches(path, self.include)


def _matches(path: str, patterns: Sequence[str]) -> bool:
    posix = PurePath(os.path.normpath(path)).as_posix()
    return any(
        fnmatchcase(posix, one) or fnmatchcase(posix, f"*/{one}") or fnmatchcase(posix, f"{one.rstrip('/')}/*")
        or fnmatchcase(posix, f"*/{one.rstrip('/')}/*") for one in patterns
    )  # fmt: skip


def workflow_files(paths: Sequence[str], filters: Filters, changed: Collection[str] | None = None) -> list[str]:
    """The files that `paths` stand for, each once. `changed`: only these, as absolute paths, and those that call them.

    A file that is named is taken as it is. Of a folder, those `*.yaml` and `*.yml` files are taken that have the key
    `stemflow` at the top, or a comment that names the schema; hidden files and folders are left out.
    Raises Refused when a folder holds none.
    """
    found: dict[str, None] = {}
    for path in paths:
        inside = list(_of_folder(path, filters)) if Path(path).is_dir() else [path]
        if not inside:
            raise Refused(f"{path}: expected workflow files in this folder, found none; they are *.yaml and *.yml "
                          "files with the key `stemflow` at the top")  # fmt: skip
        found.update(dict.fromkeys(inside))
    return [one for one in found if changed is None or one == STDIN or _concerns(one, changed)]


def _concerns(file: str, changed: Collection[str]) -> bool:
    """Whether a file has changed, or one that it calls."""
    if os.path.realpath(file) in changed:
        return True
    try:
        text = bounded_text(Path(file))
    except (OSError, UnicodeDecodeError):
        return False
    return "workflow:" in text and any(str(one) in changed for one in WorkflowFile.of(text, file).called())


def _of_folder(path: str, filters: Filters) -> Iterator[str]:
    for folder, below, names in os.walk(path):
        below[:] = sorted(name for name in below if not name.startswith("."))
        for name in sorted(names):
            file = os.path.join(folder, name)
            if not name.endswith(_SUFFIXES) or name.startswith(".") or _is_no_file(file):
                continue
            if filters.accept(file) and is_workflow(file):
                yield file


def _is_no_file(file: str) -> bool:
    """Whether there is a pipe or a device, or a link to one, which might be read without an end."""
    return os.path.exists(file) and not os.path.isfile(file)


def is_workflow(file: str) -> bool:
    """Whether a YAML file says that it is a workflow file; one that cannot be read is, so that it is reported."""
    try:
        with open(file, "rb") as source:
            return _MARK.search(source.read(_MOST_READ)) is not None
    except OSError:
        return True


def changed_since(revision: str) -> frozenset[str]:
    """The absolute paths of files that differ from a git revision, are gone since, or that git does not know yet."""
    top = _git("rev-parse", "--show-toplevel").strip()
    names = _git("diff", "--name-only", "-z", revision, "--").split("\0")
    names += _git("ls-files", "--others", "--exclude-standard", "--full-name", "-z", top).split("\0")
    return frozenset(os.path.realpath(os.path.join(top, name)) for name in names if name)


def _git(*words: str) -> str:
    try:
        done = subprocess.run(["git", *words], capture_output=True, text=True, check=False)
    except OSError as error:
        raise Refused(f"--changed-since: expected git, got {error.strerror}; install it") from None
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["no message"])[0]
        raise Refused(f"--changed-since: git {words[0]}: {said}; name a revision of this repository")
    return done.stdout
