"""The live tree and Ctrl-C on a real terminal: the program runs under a pseudo-terminal of 24 lines and 100 columns."""

# ruff: noqa: TID251 (waiting for another process is bounded by real time)

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.faults

ROOT = Path(__file__).parents[2]
PATIENCE_S = 30
TASKS = '''
import asyncio
import threading
import time
from pathlib import Path
from stemflow import TaskContext, TaskRegistry

registry = TaskRegistry()


@registry.task("quick")
async def quick(word: str) -> str:
    with open("witness", "a") as file:
        file.write(word + "\\n")
    return word


@registry.task("long")
async def long(context: TaskContext, n: int = 0) -> str:
    """Goes on until there is a file called `go`."""
    await context.progress(40)
    while not Path("go").exists():
        await asyncio.sleep(0.02)
    return "done"


@registry.task("thread")
def thread() -> None:
    threading.Event().wait(60)


@registry.task("blocks")
async def blocks() -> None:
    Path("blocked").touch()
    end = time.monotonic() + 60
    while time.monotonic() < end:
        pass
'''
HEAD = 'stemflow: "1"\nname: demo\nsteps:\n'


class Terminal:
    """A process on a pseudo-terminal: what it wrote, and keys for it. Standard output is a file of its own."""

    def __init__(self, folder: Path, *words: str) -> None:
        self.folder = folder
        self.fd, inner = pty.openpty()
        fcntl.ioctl(inner, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
        environment = {**os.environ, "TERM": "xterm", "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8"}
        environment.pop("NO_COLOR", None)
        with (folder / "stdout").open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "stemflow.cli.main", *words],
                cwd=folder, stdin=inner, stdout=output, stderr=inner, env=environment, start_new_session=True,
                preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509 (no thread runs here)
            )  # fmt: skip
        os.close(inner)
        self.written = ""

    def read(self) -> bool:
        """Wait a little for more; False once the process has closed the terminal."""
        if select.select([self.fd], [], [], 0.05)[0]:
            try:
                data = os.read(self.fd, 65_536)
            except OSError:
                return False
            self.written += data.decode(errors="replace")
            return bool(data)
        return True

    def until(self, pattern: str) -> None:
        """Read until what was written holds `pattern`."""
        end = time.monotonic() + PATIENCE_S
        while not re.search(pattern, self.written):
            assert self.read() and time.monotonic() < end, f"expected {pattern!r} in:\n{self.written}"

    def press_ctrl_c(self) -> None:
        os.write(self.fd, b"\x03")

    def ends(self) -> int:
        """The exit code."""
        end = time.monotonic() + PATIENCE_S
        while self.read() and self.process.poll() is None:
            assert time.monotonic() < end, f"expected an end after:\n{self.written}"
        while self.read() and time.monotonic() < end:
            pass
        return self.process.wait(PATIENCE_S)

    @property
    def stdout(self) -> str:
        return (self.folder / "stdout").read_text("utf-8")

    def screen(self) -> list[str]:
        """The lines that the terminal shows, without colours."""
        lines, row, column = [""], 0, 0
        for part in re.split(r"(\x1b\[[0-9;?]*[A-Za-z]|\n|\r)", self.written):
            if part == "\n":
                row += 1
                lines += [""] * (row + 1 - len(lines))
            elif part == "\r":
                column = 0
            elif part.startswith("\x1b[") and part.endswith("A"):
                row -= int(part[2:-1])
            elif part == "\x1b[K":
                lines[row] = lines[row][:column]
            elif part == "\x1b[J":
                lines[row:] = [lines[row][:column]]
            elif not part.startswith("\x1b"):
                lines[row] = lines[row][:column].ljust(column) + part + lines[row][column + len(part) :]
                column += len(part)
        return [line.rstrip() for line in lines]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "tasks.py").write_text(TASKS)
    return tmp_path


@pytest.fixture
def terminals(folder: Path) -> Iterator[list[Terminal]]:
    """Whatever a test starts is ended with it."""
    started: list[Terminal] = []
    yield started
    for one in started:
        if one.process.poll() is None:
            one.process.send_signal(signal.SIGKILL)
            one.process.wait(PATIENCE_S)
        os.close(one.fd)


def start(terminals: list[Terminal], folder: Path, text: str, *words: str) -> Terminal:
    (folder / "demo.yaml").write_text(HEAD + text)
    terminals.append(Terminal(folder, *(words or ("run", "demo.yaml"))))
    return terminals[-1]


def newest(folder: Path) -> dict[str, str]:
    command = [sys.executable, "-m", "stemflow.cli.main", "runs", "--json"]
    told = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        check=True,
        timeout=PATIENCE_S,
    )
    found: dict[str, str] = json.loads(told.stdout)[0]
    return found


def test_the_tree_is_drawn_in_place_and_the_outputs_alone_go_to_standard_output(
    folder: Path, terminals: list[Terminal]
) -> None:
    # Given a run that waits in the middle
    steps = (
        "  first: {task: quick, args: {word: one}}\n"
        "  wide: {needs: [first], group: [" + ", ".join("{task: quick, args: {word: w}}" for _ in range(12)) + "]}\n"
        "  middle: {needs: [wide], task: long}\n"
        "  last: {needs: [middle], task: quick, args: {word: two}}\n"
        "outputs: {last: '${{ steps.last.output }}'}\n"
    )
    terminal = start(terminals, folder, steps)
    # When its progress is on the screen
    terminal.until("middle .*40%")
    # Then each step has a line with its state, and wide ones one with counts
    assert re.search(r"✓\x1b\[0m   first +succeeded +[\d.]+m?s", terminal.written)
    assert re.search(r"wide +succeeded +[\d.]+m?s +12 succeeded", terminal.written)
    assert re.search(r"·\x1b\[0m   last +waiting", terminal.written)
    # And when it may go on, it ends with the whole tree, drawn over the old one
    (folder / "go").touch()
    assert terminal.ends() == 0
    screen = terminal.screen()
    assert [line.split()[1] for line in screen[:5]] == ["demo", "first", "wide", "middle", "last"]
    assert {line.split()[2] for line in screen[:5]} == {"succeeded"}
    assert "succeeded after" in screen[5]
    # And the cursor is visible again, and only the outputs are on standard output
    assert terminal.written.rindex("\x1b[?25h") > terminal.written.rindex("\x1b[?25l")
    assert terminal.stdout == 'last: "two"\n'


def test_ctrl_c_returns_running_tasks_and_resume_ends_the_run(folder: Path, terminals: list[Terminal]) -> None:
    # Given a run whose first step has ended and whose second runs
    steps = "  first: {task: quick, args: {word: one}}\n  second: {needs: [first], task: long}\n"
    terminal = start(terminals, folder, steps)
    terminal.until("second .*40%")
    # When Ctrl-C is pressed
    terminal.press_ctrl_c()
    # Then it leaves with 130, says how to go on, and the run is active
    assert terminal.ends() == 130
    run = newest(folder)
    assert run["state"] == "active"
    assert f"`stemflow resume {run['id']}` continues it" in terminal.written
    # And resume ends it at once, without running the first step again or counting an attempt
    (folder / "go").touch()
    resumed = start(terminals, folder, steps, "resume", run["id"])
    assert resumed.ends() == 0
    assert (folder / "witness").read_text() == "one\n"
    assert "attempt" not in resumed.written


def test_ctrl_c_does_not_wait_for_a_thread(folder: Path, terminals: list[Terminal]) -> None:
    terminal = start(terminals, folder, "  a: {task: thread}\n")
    terminal.until("a +running")
    terminal.press_ctrl_c()
    assert terminal.ends() == 130
    assert newest(folder)["state"] == "active"


def test_a_second_ctrl_c_leaves_at_once_although_a_task_blocks_the_loop(
    folder: Path, terminals: list[Terminal]
) -> None:
    # Given a task that never gives the event loop back
    terminal = start(terminals, folder, "  a: {task: blocks}\n")
    end = time.monotonic() + PATIENCE_S
    while not (folder / "blocked").exists():
        assert terminal.read() and time.monotonic() < end
    # When Ctrl-C is pressed twice
    terminal.press_ctrl_c()
    terminal.until("Ctrl-C again to exit at once")
    terminal.press_ctrl_c()
    # Then the process has gone, and the cursor is visible
    assert terminal.ends() == 130
    assert terminal.written.endswith("left at once\x1b[K\r\n\x1b[?7h\x1b[?25h")


def test_a_dumb_terminal_gets_lines(folder: Path, terminals: list[Terminal], monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a terminal that cannot move its cursor, as a pipe is none
    (folder / "demo.yaml").write_text(HEAD + "  a: {task: quick, args: {word: one}}\n")
    command = [sys.executable, "-m", "stemflow.cli.main", "run", "demo.yaml"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    ran = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=PATIENCE_S, check=True
    )
    # Then there is one line an event and no escape sequence
    assert "a  succeeded" in ran.stderr
    assert "\x1b" not in ran.stderr
