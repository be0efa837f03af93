"""Documentation, code and the names of tests use the words of the glossary of CONTRIBUTING.md and none that it rules
out."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
GUIDE = ROOT / "CONTRIBUTING.md"
PACKAGE = ROOT / "stemflow"
PAGES = [
    *(ROOT / "README.md", *(ROOT / "workflows").rglob("*.md"), GUIDE),
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted(PACKAGE.rglob("*.md")),
]
MODULES = sorted(PACKAGE.rglob("*.py"))
SCRIPTS = sorted(PACKAGE.rglob("*.lua"))
TESTS = sorted([*(ROOT / "tests").rglob("test_*.py"), *(PACKAGE / "testing" / "contract").rglob("*.py")])
RULED_OUT = {
    "told": r"\btold\b",
    "heard": r"\bhears?\b|\bheard\b",
    "news": r"\bnews\b",
    "stands": r"\bstands?\b(?! for\b)|\bstood\b",
    "lies": r"\blies\b|\blie in\b",
    "whoever": r"\bwhoever\b|\bwhomever\b",
    "one who": r"\bone who\b|\bof who\b|(?:^|[.;:] )Who \w+s\b(?![^.]*\?)",
    "beside": r"\bbeside\b",
    "anew": r"\banew\b",
    "mended": r"\bmend(?:s|ed|ing)?\b",
    "till": r"\btill\b",
    "for ever": r"\bfor ever\b",
    "handed out": r"\bhand(?:s|ed|ing)? (?:out|over)\b|\bhanded to\b",
    "the gate": r"\b(?:run|runs) (?:of )?the gate\b|\bthe (?:whole )?gate (?:is|runs)\b",
    "past its time": r"\bpast (?:its|their|his) time\b",
}

NAMES_RULED_OUT = {
    *("told", "tells", "hear", "heard", "hears", "news", "stands", "stood", "lies", "whoever", "whomever"),
    *("beside", "anew", "mend", "mended", "till"),
}
"""Words that are not part of a name."""

PURE = [module for module in MODULES if module.relative_to(PACKAGE).parts[0] in ("core", "compile", "dsl", "expr")]
"""Modules that call no handler: what follows a step is a catch, a hook or a cleanup there, in short a follow-up."""


def prose(page: Path) -> str:
    """The page without code blocks, inline code, links' targets and, in the guide, the table of words to avoid."""
    text = page.read_text(encoding="utf-8")
    if page == GUIDE:
        before, _, table = text.partition("### Words to avoid\n")
        text = before + table[table.index("\n## ") :]
    return re.sub(r"^```.*?^```|`[^`\n]*`|\]\([^)]*\)", " ", text, flags=re.DOTALL | re.MULTILINE)


@cache
def tree(module: Path) -> ast.Module:
    return ast.parse(module.read_text(encoding="utf-8"))


def sentences(module: Path) -> str:
    """The docstrings, messages and comments of a module, without code in backticks."""
    texts = [
        node.value
        for node in ast.walk(tree(module))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value
    ]
    texts += re.findall(r"(?:^|\s)(# .*)$", module.read_text(encoding="utf-8"), re.MULTILINE)
    return re.sub(r"`[^`\n]*`", " ", "\n\n".join(texts))


def names(module: Path) -> Iterator[str]:
    """Every name that a module defines: modules, classes, functions, parameters, variables and attributes."""
    yield module.stem
    for node in ast.walk(tree(module)):
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                yield node.name
            case ast.arg():
                yield node.arg
            case ast.Attribute(ctx=ast.Store()):
                yield node.attr
            case ast.Name(ctx=ast.Store()):
                yield node.id


def words_of(name: str) -> set[str]:
    """`_loopHeld_MS` -> loop, held, ms."""
    return {word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", name)}


def dialect(text: str) -> list[str]:
    """The words in `text` that are ruled out, each with what is around it."""
    return [
        f"{word}: ...{text[max(0, match.start() - 30) : match.end() + 30]!r}..."
        for word, pattern in RULED_OUT.items()
        for match in re.finditer(pattern, text, re.IGNORECASE | re.MULTILINE)
    ]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_a_page_uses_the_terms_of_the_glossary(page: Path) -> None:
    assert dialect(prose(page)) == []


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.relative_to(ROOT).as_posix())
def test_code_uses_the_terms_of_the_glossary(module: Path) -> None:
    assert dialect(sentences(module)) == []
    assert [name for name in names(module) if words_of(name) & NAMES_RULED_OUT] == []


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.relative_to(ROOT).as_posix())
def test_a_script_uses_the_terms_of_the_glossary(script: Path) -> None:
    text = script.read_text(encoding="utf-8")
    assert dialect(text) == []
    assert [name for name in set(re.findall(r"\w+", text)) if words_of(name) & NAMES_RULED_OUT] == []


@pytest.mark.parametrize("module", TESTS, ids=lambda module: module.relative_to(ROOT).as_posix())
def test_names_of_tests_use_the_terms_of_the_glossary(module: Path) -> None:
    tests = re.findall(r"\bdef (test_\w+)", module.read_text(encoding="utf-8"))
    assert [name for name in tests if words_of(name) & NAMES_RULED_OUT] == []


def test_a_handler_is_a_function_that_a_task_calls() -> None:
    assert [(module.name, name) for module in PURE for name in names(module) if "handler" in name.lower()] == []


def test_words_of_names_are_found_in_every_way_of_writing() -> None:
    assert words_of("_toldRun_MS") == {"told", "run", "ms"}


def test_the_guide_names_each_word_that_is_ruled_out() -> None:
    table = GUIDE.read_text(encoding="utf-8").partition("### Words to avoid\n")[2].partition("\n## ")[0].lower()
    assert [word for word in RULED_OUT if word not in table] == []
