"""The page about the command line is true: each of its examples is run, in order, in one folder.

`STEMFLOW_GOLDEN=write pytest tests/cli/test_docs.py` writes the outputs again.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from click import Group

from stemflow.cli.grammar.program import PROGRAM
from tests.cli.pages import BLOCK, Page

PAGE = Path(__file__).parents[2] / "docs" / "cli.md"


def test_every_example_prints_what_the_page_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    page = Page(PAGE, tmp_path)
    for _, kind, title, text in BLOCK.findall(page.text):
        if title:
            (tmp_path / title).write_text(text)
        if kind == "console":
            page.check(text)
    page.close()


def test_every_command_and_option_is_on_the_page() -> None:
    page = PAGE.read_text("utf-8")
    for name, command in PROGRAM.commands.items():
        assert f"`stemflow {name}" in page, name
        inner = command.commands.values() if isinstance(command, Group) else (command,)
        for option in [text for each in inner for param in each.params for text in param.opts if text.startswith("-")]:
            assert f"`{option}" in page or f" {option}" in page, f"{name} {option}"
