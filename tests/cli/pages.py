"""Pages of documentation whose console examples are run, in order, in one folder."""

from __future__ import annotations

import io
import os
import platform
import re
import shlex
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import NamedTuple

from stemflow.cli.main import main
from tests.cli.world import plain

BLOCK = re.compile(r"^(`{3,})(\w+)(?: title=(\S+))?\n(.*?)^\1$", re.DOTALL | re.MULTILINE)
RUN_ID = re.compile(r"\b0[0-9a-f]{31}\b")
EXIT = "# exit code "
WORKER = re.compile(rf"{re.escape(platform.node())}-\d+")
"""The name of a worker that was given none."""


class Example(NamedTuple):
    """One command of a console block and what the page says that it prints."""

    command: str
    told: str


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


class Page:
    """A page, and the ids that stand for those on the page this time.

    `STEMFLOW_GOLDEN=write` writes the outputs again.
    """

    def __init__(self, path: Path, folder: Path, form: Callable[[str, Path], str] = plain) -> None:
        self.path, self.folder, self.form = path, folder, form
        self.text = self.anew = path.read_text("utf-8")
        self.ids: dict[str, str] = {}

    def check(self, text: str) -> None:
        """Run the examples of a block, and compare what they print with the page."""
        block = ""
        for example in examples(text):
            done = perform(RUN_ID.sub(lambda found: self.ids.get(found[0], found[0]), example.command))
            told_anew = [one for one in dict.fromkeys(RUN_ID.findall(example.told)) if one not in self.ids]
            done_anew = [one for one in dict.fromkeys(RUN_ID.findall(done)) if one not in self.ids.values()]
            self.ids.update(zip(told_anew, done_anew, strict=False))
            back = {new: old for old, new in self.ids.items()}
            as_told = RUN_ID.sub(lambda found: back.get(found[0], found[0]), done)  # noqa: B023
            as_told = WORKER.sub("shop-4711", as_told)
            block += f"$ {example.command}\n{as_told.replace(str(self.folder), '/home/ann/shop')}"
            if os.environ.get("STEMFLOW_GOLDEN") != "write":
                told = self.form(example.told.replace("/home/ann/shop", str(self.folder)), self.folder)
                assert self.form(done, self.folder) == told, example.command
        self.anew = self.anew.replace(text, block)

    def close(self) -> None:
        if os.environ.get("STEMFLOW_GOLDEN") == "write":
            self.path.write_text(self.anew)
