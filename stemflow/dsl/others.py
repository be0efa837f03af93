"""`use` of a file: the types and templates of other files."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol, TypeVar

from stemflow.dsl.findings import Findings
from stemflow.dsl.source import Node
from stemflow.errors import StemflowError
from stemflow.model.diagnostic import Diagnostic


class CannotRead(StemflowError):
    """A file in `use` that is missing or outside of the project; the message is a sentence about it."""


class OtherFile(NamedTuple):
    """The text of a file in `use`. `file`: what it is called in findings. `key`: the same for the same file."""

    text: str
    file: str
    key: str


class Read(Protocol):
    """A file that was parsed."""

    @property
    def diagnostics(self) -> tuple[Diagnostic, ...]: ...


Parsed = TypeVar("Parsed", bound=Read)

ReadOther = Callable[[str, str], OtherFile]
"""Reads the file at a path relative to the folder of another file, which is given second. Raises CannotRead."""


def no_other(path: str, file: str) -> OtherFile:
    """Refuse: what is read is no file in a folder."""
    raise CannotRead("expected a workflow that is a file itself, since the path begins at its folder")


def read_others(
    node: Node | None, file: str, read: ReadOther, chain: tuple[OtherFile, ...], findings: Findings,
    parse: Callable[[OtherFile, tuple[OtherFile, ...]], Parsed],
) -> dict[str, Parsed]:  # fmt: skip
    """Alias -> file, of those that could be read without an error; the others are reported."""
    found: dict[str, Parsed] = {}
    for alias, path in ({} if node is None else node.members).items():
        if path.flawed or not isinstance(path.value, str):
            continue
        try:
            other = read(path.value, file)
        except CannotRead as error:
            findings.error("SF006", f"use.{alias}: {error}", path.place)
            continue
        if other.key in {one.key for one in chain}:
            way = " -> ".join([*(one.file for one in chain), other.file])
            findings.error("SF006", f"use.{alias}: expected files that do not use each other, got {way}", path.place,
                           "move what both need into a third file")  # fmt: skip
            continue
        parsed = parse(other, (*chain, other))
        errors = [one for one in parsed.diagnostics if one.severity == "error"]
        if errors:
            first = errors[0]
            findings.error("SF006", f"use.{alias}: {other.file} has an error in line {first.line}: {first.message}",
                           path.place, f"run stemflow validate {other.file}")  # fmt: skip
            continue
        found[alias] = parsed
    return found
