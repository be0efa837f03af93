"""The findings of `validate` for programs: JSON, JSON lines, SARIF, GitLab code quality and JUnit XML."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from stemflow.cli.explain import page
from stemflow.cli.report import as_data, as_github, as_text
from stemflow.cli.text import json_text, shown
from stemflow.dsl.rules.catalogue import CATALOGUE
from stemflow.lazy_import import LazyModule
from stemflow.model.diagnostic import Diagnostic
from stemflow.version import __version__

if TYPE_CHECKING:
    import hashlib
    import xml.etree.ElementTree as ElementTree
else:
    # Each is needed for one of the formats.
    hashlib = LazyModule("hashlib")
    ElementTree = LazyModule("xml.etree.ElementTree")

SARIF_SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"

Files = Mapping[str, str]
"""File -> its text, for each file that was checked."""
Writer = Callable[[Sequence[Diagnostic], Files], Iterable[str]]


def relative(file: str) -> str:
    """The file as CI systems name it: from the working directory, with slashes; absolute where it is outside."""
    path = os.path.relpath(file)
    return PurePath(file if path.startswith("..") else path).as_posix()


def _text(found: Sequence[Diagnostic], files: Files) -> Iterable[str]:
    return (as_text(one, files) for one in found)


def _json(found: Sequence[Diagnostic], files: Files) -> Iterable[str]:
    yield json_text({"diagnostics": [as_data(one) for one in found]})


def _json_lines(found: Sequence[Diagnostic], files: Files) -> Iterable[str]:
    return (json_text(as_data(one)) for one in found)


def _github(found: Sequence[Diagnostic], files: Files) -> Iterable[str]:
    return (as_github(one, relative(one.file)) for one in found)


def _sarif(found: Sequence[Diagnostic], files: Files) -> Iterable[str]:
    """SARIF 2.1.0: one run, with the rules that the findings name."""
    codes = sorted({one.code for one in found})
    rules = [
        {
            "id": code,
            "shortDescription": {"text": CATALOGUE[code].title},
            "help": {"text": page(code), "markdown": page(code)},
            "defaultConfiguration": {"level": CATALOGUE[code].severity},
        }
        for code in codes
    ]
    driver = {"name": "stemflow", "version": __version__, "rules": rules}
    results = [_sarif_result(one, codes.index(one.code)) for one in found]
    run = {"tool": {"driver": driver}, "columnKind": "unicodeCodePoints", "results": results}
    yield json_text({"$schema": SARIF_SCHEMA, "version": "2.1.0", "runs": [run]}, indent=2)


def _sarif_result(found: Diagnostic, rule: int) -> dict[str, Any]:
    place: dict[str, Any] = {"artifactLocation": {"uri": relative(found.file)}}
    if found.line:
        place["region"] = {
            "startLine": found.line,
            "startColumn": max(found.column, 1),
            "endColumn": max(found.end_column, 1),
        }
    return {
        "ruleId": found.code,
        "ruleIndex": rule,
        "level": found.severity,
        "message": {"text": _sentence(found)},
        "locations": [{"physicalLocation": place}],
    }


def _gitlab(found: Sequence[Diagnostic], files: Files) -> Iterable[str]:
    """GitLab's code quality report. A fingerprint survives changes above the finding."""
    seen: dict[str, int] = {}
    issues = []
    for one in found:
        lines = files.get(one.file, "").split("\n")
        line = lines[one.line - 1].strip() if 0 < one.line <= len(lines) else ""
        same = f"{relative(one.file)}\n{one.code}\n{one.message}\n{line}"
        seen[same] = seen.get(same, 0) + 1
        issues.append({
            "description": f"{one.code}: {_sentence(one)}",
            "check_name": one.code,
            "fingerprint": hashlib.sha256(f"{same}\n{seen[same]}".encode(errors="replace")).hexdigest(),
            "severity": "major" if one.severity == "error" else "minor",
            "location": {"path": relative(one.file), "lines": {"begin": max(one.line, 1)}},
        })  # fmt: skip
    yield json_text(issues, indent=2)


def _junit(found: Sequence[Diagnostic], files: Files) -> Iterable[str]:
    """JUnit XML: a test case for each file, with its errors as failures and its warnings as output."""
    suite = ElementTree.Element("testsuite", name="stemflow validate", tests=str(len(files)), errors="0")
    failures = 0
    for file in files:
        case = ElementTree.SubElement(suite, "testcase", classname="stemflow.validate", name=relative(file))
        own = [one for one in found if one.file == file]
        errors = [one for one in own if one.severity == "error"]
        if errors:
            failures += 1
            failure = ElementTree.SubElement(case, "failure", type=errors[0].code, message=_xml(_sentence(errors[0])))
            failure.text = _xml("\n".join(as_text(one, files) for one in errors))
        if len(errors) < len(own):
            warnings = "\n".join(as_text(one, files) for one in own if one.severity != "error")
            ElementTree.SubElement(case, "system-out").text = _xml(warnings)
    suite.set("failures", str(failures))
    ElementTree.indent(suite)
    yield '<?xml version="1.0" encoding="UTF-8"?>'
    yield ElementTree.tostring(suite, encoding="unicode")


def _xml(text: str) -> str:
    """Text without what XML cannot hold; line feeds stay."""
    return "\n".join(shown(line) for line in text.split("\n"))


def _sentence(found: Diagnostic) -> str:
    return shown(found.message if found.hint is None else f"{found.message}; {found.hint}")


WRITERS: Mapping[str, Writer] = {
    "text": _text,
    "json": _json,
    "jsonl": _json_lines,
    "sarif": _sarif,
    "github": _github,
    "gitlab": _gitlab,
    "junit": _junit,
}
"""`--format` -> the lines that it prints."""
