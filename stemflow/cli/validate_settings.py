"""`[tool.stemflow.validate]` of the nearest pyproject.toml."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any, NamedTuple

from stemflow.cli.exits import Refused
from stemflow.dsl.rules.catalogue import CATALOGUE
from stemflow.lazy_import import LazyModule
from stemflow.model.diagnostic import Diagnostic

if TYPE_CHECKING:
    import tomllib
else:
    tomllib = LazyModule("tomllib")

_NEVER = ("SF0", "SF201")


class Settings(NamedTuple):
    """What is checked, and which findings are kept. `per_path`: (pattern, codes) that are ignored in some files."""

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    select: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    strict: bool = False
    per_path: tuple[tuple[str, tuple[str, ...]], ...] = ()

    def keeps(self, found: Diagnostic) -> bool:
        """Whether a finding is reported. What stops a file from being read at all always is."""
        if found.severity == "error" and found.code.startswith(_NEVER):
            return True
        if self.select and not found.code.startswith(self.select):
            return False
        file = PurePath(found.file).as_posix()
        ignored = [*self.ignore]
        for pattern, codes in self.per_path:
            if fnmatchcase(file, pattern) or fnmatchcase(file, f"*/{pattern}"):
                ignored += codes
        return not found.code.startswith(tuple(ignored)) if ignored else True


def read_settings(start: Path) -> Settings:
    """The settings for files below `start`; raises Refused for a key or value that cannot be used."""
    for folder in (start, *start.parents):
        file = folder / "pyproject.toml"
        if file.is_file():
            return _read(file)
    return Settings()


def _read(file: Path) -> Settings:
    try:
        text = file.read_text("utf-8")
        if "stemflow" not in text or "validate" not in text:
            return Settings()  # most projects; reading all of their file would take longer than the check
        table = tomllib.loads(text).get("tool", {}).get("stemflow", {}).get("validate", {})
    except (OSError, ValueError, AttributeError) as error:
        raise Refused(f"{file}: expected TOML, got {error}; correct it") from None
    where = f"{file}: tool.stemflow.validate"
    if not isinstance(table, dict):
        raise Refused(f"{where}: expected a table, got {table!r}")
    known = {"include", "exclude", "select", "ignore", "strict", "per-path-ignores"}
    for key in table:
        if key not in known:
            raise Refused(f"{where}: there is no key {key!r}; known keys: {', '.join(sorted(known))}")
    strict, per_path = table.get("strict", False), table.get("per-path-ignores", {})
    if not isinstance(strict, bool):
        raise Refused(f"{where}.strict: expected true or false, got {strict!r}")
    if not isinstance(per_path, dict):
        raise Refused(f"{where}.per-path-ignores: expected a table of patterns, got {per_path!r}")
    return Settings(
        _texts(table, "include", where),
        _texts(table, "exclude", where),
        codes(_texts(table, "select", where), f"{where}.select"),
        codes(_texts(table, "ignore", where), f"{where}.ignore"),
        strict,
        tuple(
            (pattern, codes(_texts(per_path, pattern, f"{where}.per-path-ignores"), f"{where}.per-path-ignores"))
            for pattern in per_path
        ),
    )


def _texts(table: dict[str, Any], key: str, where: str) -> tuple[str, ...]:
    given = table.get(key, [])
    if not isinstance(given, list) or not all(isinstance(one, str) for one in given):
        raise Refused(f"{where}.{key}: expected a list of texts, got {given!r}")
    return tuple(given)


def codes(given: Sequence[str], where: str) -> tuple[str, ...]:
    """Codes or their beginnings (`SF2`, `SF209`), from lists with commas; raises Refused for what begins no code."""
    found = tuple(word.strip().upper() for one in given for word in one.split(",") if word.strip())
    for word in found:
        if len(word) < 3 or not any(code.startswith(word) for code in CATALOGUE):
            raise Refused(f"{where}: expected codes such as SF209, or the beginning of some, such as SF7, "
                          f"got {word!r}; `stemflow explain` lists all")  # fmt: skip
    return found
