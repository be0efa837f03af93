"""Documentation, docstrings and comments use the words of the glossary of CONTRIBUTING.md and none that it rules
out."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
GUIDE = ROOT / "CONTRIBUTING.md"
PAGES = [ROOT / "README.md", ROOT / "workflows" / "README.md", GUIDE, *sorted((ROOT / "docs").rglob("*.md"))]
PACKAGES = (
    "model", "core", "compile", "testing", "runtime/attempt", "runtime/tasks", "runtime/runs", "runtime/values",
    "runtime/payloads", "runtime/catalog",
)  # fmt: skip
"""The packages whose docstrings and comments are held to it."""
MODULES = sorted(path for package in PACKAGES for path in (ROOT / "stemflow" / package).rglob("*.py"))
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
    "past its time": r"\bpast (?:its|their|his) time\b",
}


def prose(page: Path) -> str:
    """The page without code blocks, inline code, links' targets and, in the guide, the table of words to avoid."""
    text = page.read_text(encoding="utf-8")
    if page == GUIDE:
        before, _, table = text.partition("### Words to avoid\n")
        text = before + table[table.index("\n## ") :]
    return re.sub(r"^```.*?^```|`[^`\n]*`|\]\([^)]*\)", " ", text, flags=re.DOTALL | re.MULTILINE)


def comments(module: Path) -> str:
    """The docstrings and comments of a module, without code in backticks."""
    source = module.read_text(encoding="utf-8")
    texts = [
        node.value.value
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
    ]
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    texts += [token.string for token in tokens if token.type == tokenize.COMMENT]
    return re.sub(r"`[^`\n]*`", " ", "\n\n".join(texts))


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
def test_docstrings_and_comments_use_the_terms_of_the_glossary(module: Path) -> None:
    assert dialect(comments(module)) == []


def test_the_guide_names_each_word_that_is_ruled_out() -> None:
    table = GUIDE.read_text(encoding="utf-8").partition("### Words to avoid\n")[2].partition("\n## ")[0].lower()
    assert [word for word in RULED_OUT if word not in table] == []
