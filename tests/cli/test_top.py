"""`stemflow top`: one picture of a store, as wide and high as the terminal, whatever is in it."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest

from stemflow import Canvas, Stemflow, TaskRegistry
from stemflow.cli.main import main
from stemflow.cli.top import MOST_RUNS, draw, look, picture
from tests.cli.world import Cli

MANY = 450
"""Runs that wait: more than two pages."""


def test_a_picture_has_queues_workers_and_runs(project: Path, cli: Cli) -> None:
    cli("run", "flaky.yaml")
    cli("submit", "hello.yaml")
    ran = cli("top", "--once")
    head, *lines = ran.out.splitlines()
    assert head.startswith("stemflow top  sqlite:") and "1 ready, 0 of 0 slots busy, 0 workers" in head
    assert [line for line in lines if line in ("queues", "workers", "failed last", "newest runs")] == [
        "queues", "workers", "failed last", "newest runs",
    ]  # fmt: skip
    assert lines[lines.index("workers") + 1] == "none"
    assert "second: Reject: not mended yet" in lines[lines.index("failed last") + 2]
    assert sum("  hello" in line for line in lines) == 1
    refused = cli("top")
    assert (refused.code, refused.err) == (
        3,
        "error: top: expected a terminal, found none; --once prints one picture\n",
    )


async def test_it_fits_the_terminal_and_reads_no_more_when_there_are_more_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    registry = TaskRegistry()

    async def waits() -> None: ...

    registry.task("waits", queue="q")(waits)
    task = registry.get("waits")
    assert task is not None
    async with Stemflow("memory:", registry, worker=False) as app:
        await app.submit_many(Canvas.chain(task.s()) for _ in range(MANY))
        await app.control.pause("queue:q", reason="an \x1b[2J incident")
        read = 0
        runs = app.store.runs

        async def counted(*given: Any, **named: Any) -> Any:
            nonlocal read
            found = await runs(*given, **named)
            read += len(found)
            return found

        monkeypatch.setattr(app.store, "runs", counted)
        seen = await look(app)
    assert read == MOST_RUNS
    for width, height in ((80, 24), (200, 50), (20, 5)):
        lines = picture(seen, width, height)
        assert len(lines) <= height and max(map(len, lines)) <= width
        assert "\x1b" not in "".join(lines)
    assert "an \\x1b[2J incident" in "".join(picture(seen, 200, 50))
    assert picture(seen, 200, 50)[-1].endswith(" more")
    # And a frame is one write that begins at the top and clears what is left of the one before
    out = io.StringIO()
    draw(out, ["a", "b"])
    assert out.getvalue() == "\x1b[Ha\x1b[K\nb\x1b[K\x1b[J"


def test_the_terminal_is_restored(project: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    cli("submit", "hello.yaml")

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

        def fileno(self) -> int:
            raise KeyboardInterrupt  # instead of a first picture

    out = Terminal()
    monkeypatch.setattr("sys.stdout", out)
    assert main(["top"]) == 130
    assert out.getvalue().startswith("\x1b[?1049h") and out.getvalue().endswith("\x1b[?1049l")
