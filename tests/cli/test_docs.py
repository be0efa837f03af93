"""The page about the command line is true: each of its examples is run, in order, in one folder.

`STEMFLOW_GOLDEN=write pytest tests/cli/test_docs.py` writes the outputs again.
"""

from __future__ import annotations

import io
import os
import platform
import re
import shlex
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest
from click import Group

from stemflow.cli.grammar.program import PROGRAM
from stemflow.cli.main import main
from tests.cli.world import plain

PAGE = Path(__file__).parents[2] / "docs" / "cli.md"
BLOCK = re.compile(r"^(`{3,})(\w+)(?: title=(\S+))?\n(.*?)^\1$", re.DOTALL | re.MULTILINE)
RUN_ID = re.compile(r"\b0[0-9a-f]{31}\b")
EXIT = "# exit code "
WORKER = re.compile(rf"{re.escape(platform.node())}-\d+")
"""The name of a worker that was given none."""


class Example:
    """One command of a console block and what the page says that it prints."""

    def __init__(self, command: str, told: str) -> None:
        self.command = command
        self.told = told


def examples(block: str) -> Iterator[Example]:
    for part in re.split(r"(?m)^\$ ", block)[1:]:
        command, _, told = part.partition("\n")
        yield Example(command, told)


def perform(command: str) -> str:
    """What a command prints, standard output and error as they come; an exit code other than 0 is added."""
    words = shlex.split(command)
    if words[0] != "stemflow":
        assert words[0] in ("touch", "rm"), f"the page may not run {words[0]}"
        (Path(words[1]).touch if words[0] == "touch" else Path(words[1]).unlink)()
        return ""
    said = io.StringIO()
    with redirect_stdout(said), redirect_stderr(said):
        try:
            code = main(words[1:])
        except SystemExit as left:
            code = left.code if isinstance(left.code, int) else 1
    return said.getvalue() + (f"{EXIT}{code}\n" if code else "")


def test_every_example_prints_what_the_page_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given the files that the page shows
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    page = PAGE.read_text("utf-8")
    ids: dict[str, str] = {}
    anew = page
    for _, kind, title, text in BLOCK.findall(page):
        if title:
            (tmp_path / title).write_text(text)
        if kind != "console":
            continue
        block = ""
        for example in examples(text):
            # When a command is given, with the ids of this time
            done = perform(RUN_ID.sub(lambda found: ids.get(found[0], found[0]), example.command))
            told_anew = [one for one in dict.fromkeys(RUN_ID.findall(example.told)) if one not in ids]
            done_anew = [one for one in dict.fromkeys(RUN_ID.findall(done)) if one not in ids.values()]
            ids.update(zip(told_anew, done_anew, strict=False))
            back = {new: old for old, new in ids.items()}
            done_as_told = RUN_ID.sub(lambda found: back.get(found[0], found[0]), done)  # noqa: B023
            done_as_told = WORKER.sub("shop-4711", done_as_told)
            block += f"$ {example.command}\n{done_as_told.replace(str(tmp_path), '/home/ann/shop')}"
            # Then it prints what the page says
            if os.environ.get("STEMFLOW_GOLDEN") != "write":
                told = plain(example.told.replace("/home/ann/shop", str(tmp_path)), tmp_path)
                assert plain(done, tmp_path) == told, example.command
        anew = anew.replace(text, block)
    if os.environ.get("STEMFLOW_GOLDEN") == "write":
        PAGE.write_text(anew)


def test_every_command_and_option_is_on_the_page() -> None:
    page = PAGE.read_text("utf-8")
    for name, command in PROGRAM.commands.items():
        assert f"`stemflow {name}" in page, name
        inner = command.commands.values() if isinstance(command, Group) else (command,)
        for option in [text for each in inner for param in each.params for text in param.opts if text.startswith("-")]:
            assert f"`{option}" in page or f" {option}" in page, f"{name} {option}"
