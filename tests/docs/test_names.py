"""Classes, attributes, functions and constants that the documentation names exist in the code."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from stemflow.model.metrics import FAMILIES

ROOT = Path(__file__).parents[2]
FOLDERS = [*(ROOT / "workflows").rglob("*.md"), *(ROOT / "docs").rglob("*.md")]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *FOLDERS]
CODE = sorted((ROOT / "stemflow").rglob("*.py"))
TEXTS = [
    *CODE,
    *(ROOT / "stemflow").rglob("*.lua"),
    *(ROOT / "benchmarks").glob("*.py"),
    *(ROOT / "tests").rglob("*.py"),
    *(ROOT / "workflows").glob("*.py"),
    *(ROOT / "schemas").glob("*.json"),
]
QUOTED = re.compile(r"`((?:\w+\.)*\w+)(?:\([^`]*\))?`")
IDENTIFIER = re.compile(r"[a-z][A-Z]|[a-zA-Z]_[a-zA-Z]|^[A-Z]\w*\.\w")
"""What is meant as the name of something: snake case, camel case, capitals with a line, or an attribute of a class."""
ELSEWHERE = frozenset(
    [
        "PyThreadState_SetAsyncExc",
        "RedisCluster",
        "TopologicalSorter",
        "TypeAdapter",
        "ExecuteAndTimeout",
        "GeneratorExit",
        "CancelledError",
        "TimeoutStopSec",
        "terminationGracePeriodSeconds",
        "uniqueItems",
        "compare_digest",
        *(f"stemflow_{family.name}" for family in FAMILIES),
    ]
)
"""Names of other programs and libraries."""


def _classes(body: list[ast.stmt]) -> Iterator[ast.ClassDef]:
    """The classes of a module, and those that they contain."""
    for node in body:
        if isinstance(node, ast.ClassDef):
            yield node
            yield from _classes(node.body)


def _named(node: ast.ClassDef) -> set[str]:
    """What a class has: methods, names, and attributes of `self`."""
    names = set()
    for inner in ast.walk(node):
        if isinstance(inner, ast.FunctionDef | ast.AsyncFunctionDef):
            names.add(inner.name)
        elif isinstance(inner, ast.Name):
            names.add(inner.id)
        elif isinstance(inner, ast.Attribute) and isinstance(inner.value, ast.Name) and inner.value.id == "self":
            names.add(inner.attr)
    return names


@pytest.fixture(scope="module")
def attributes() -> dict[str, set[str]]:
    """Class -> names of what it and its bases have."""
    own: dict[str, set[str]] = {}
    bases: dict[str, set[str]] = {}
    for path in CODE:
        source = path.read_text(encoding="utf-8")
        for node in _classes(ast.parse(source).body):
            names = own.setdefault(node.name, set())
            bases.setdefault(node.name, set()).update(base.id for base in node.bases if isinstance(base, ast.Name))
            names.update(_named(node))
    for _ in range(4):
        for name, above in bases.items():
            own[name] |= {attribute for base in above for attribute in own.get(base, ())}
    return own


@pytest.fixture(scope="module")
def words() -> set[str]:
    """All words of the code."""
    return {word for text in TEXTS for word in re.findall(r"\w+", text.read_text(encoding="utf-8"))}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_what_a_page_names_exists(page: Path, words: set[str], attributes: dict[str, set[str]]) -> None:
    text = page.read_text(encoding="utf-8")
    blocks = " ".join(re.findall(r"^```.*?^```", text, flags=re.DOTALL | re.MULTILINE))
    known = words | ELSEWHERE | set(re.findall(r"\w+", blocks))
    prose = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    if page.parent.name == "coming-from":  # the first column, and what is around the table, are words of the engine
        prose = "\n".join(re.findall(r"^\|(?:[^|\\]|\\.)*(\|.*)", prose, flags=re.MULTILINE))
    unknown = []
    for name in {name for name in QUOTED.findall(prose) if IDENTIFIER.search(name)}:
        owner, _, attribute = name.rpartition(".")
        if owner in attributes:
            unknown += [] if attribute in attributes[owner] else [name]
        elif not {*name.split(".")} <= known and not (ROOT / "tests" / "dsl" / "golden" / name).exists():
            unknown.append(name)
    assert sorted(unknown) == []
