"""Two displays of a run on standard error: a tree that redraws itself, and one line per event."""

from __future__ import annotations

import asyncio
import io
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import Any, Protocol, TextIO

from stemflow.cli.render import Look, error_text, fit, lines, progress_texts
from stemflow.cli.text import short_duration, shown
from stemflow.cli.tree import COLLAPSE_ABOVE, Row, Tree
from stemflow.model.records import FINAL, Node
from stemflow.runtime.engine import Stemflow
from stemflow.runtime.runs.handle import RunHandle
from stemflow.runtime.runs.progress import Progress

FRAME_MS = 100
"""The shortest time between two frames."""
SHARE = 20
"""Reading the run may take at most 1/SHARE of the time, so that watching a large run does not slow it down."""

_HIDE, _SHOW = "\x1b[?25l", "\x1b[?25h"
_NO_WRAP, _WRAP = "\x1b[?7l", "\x1b[?7h"


class Watch(Protocol):
    """Shows a run until it has ended."""

    async def follow(self, app: Stemflow, handle: RunHandle[Any]) -> None: ...

    def say(self, text: str) -> None:
        """Print a line of the command above the display."""
        ...

    def say_at_once(self, text: str) -> None:
        """The same from a signal handler; the cursor is left visible."""
        ...

    def close(self) -> None:
        """Restore the terminal."""
        ...


def choose_watch(stream: TextIO) -> Watch:
    """The tree on a terminal that can move its cursor, else lines."""
    if stream.isatty() and os.environ.get("TERM", "dumb") != "dumb":
        return LiveTree(stream)
    return EventLines(stream)


def look_of(stream: TextIO) -> Look:
    """What `stream` can show: colours unless NO_COLOR is set, marks beyond ASCII where its encoding has them."""
    tty = stream.isatty()
    encoding = (stream.encoding or "").lower()
    width = os.get_terminal_size(stream.fileno()).columns if tty else 100
    return Look(tty and "NO_COLOR" not in os.environ, encoding.startswith("utf"), width or 80)


async def tree_rows(app: Stemflow, handle: RunHandle[Any], nodes: list[Node], collapse: bool = True) -> list[Row]:
    """The rows of a run from its current records."""
    header = await app.library.header(handle.id)
    shapes = {digest: await app.library.shape(digest) for digest in {node.plan for node in nodes}}
    return Tree(header.name or "run", nodes, shapes, COLLAPSE_ABOVE if collapse else None).rows()


class EventLines:
    """One line per event, with the time since the run was created."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    async def follow(self, app: Stemflow, handle: RunHandle[Any]) -> None:
        header, latest_ms = await app.library.header(handle.id), 0
        async for event in handle.events():
            if event.state == "waiting" or (event.state == "ready" and not event.attempt):
                continue
            said = [shown(event.path or header.name), event.state if event.state != "ready" else "to be tried again"]
            if event.attempt:
                said.append(f"attempt {event.attempt + 1}")
            said += progress_texts(event.progress)
            if event.error is not None and event.state != "succeeded":
                said.append(error_text(event.error))
            # What is seen late happened before the line above; its own end tells when.
            latest_ms = max(latest_ms, event.at_ms - header.created_at_ms)
            self.say(f"{short_duration(latest_ms):>7}  {'  '.join(said)}")

    def say(self, text: str) -> None:
        print(text, file=self.stream, flush=True)

    def say_at_once(self, text: str) -> None:
        os.write(self.stream.fileno(), f"{text}\n".encode())

    def close(self) -> None:
        """Nothing was changed."""


class LiveTree:
    """Redraws the tree in place. Lines printed by tasks appear above it."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self.above: list[str] = []
        self._drawn = 0
        self._hidden = False

    async def follow(self, app: Stemflow, handle: RunHandle[Any]) -> None:
        clock = app.clock
        while True:
            before = clock.monotonic_ms()
            reports = await handle.progress()
            nodes = await handle.records()
            rows = await tree_rows(app, handle, nodes)
            over = any(not node.path and node.state in FINAL for node in nodes)
            self._frame(rows, app, reports, over)
            if over:
                return
            took = clock.monotonic_ms() - before
            await asyncio.sleep(max(FRAME_MS, took * SHARE) / 1_000)

    def _frame(self, rows: list[Row], app: Stemflow, reports: Mapping[str, Progress], whole: bool) -> None:
        height = os.get_terminal_size(self.stream.fileno()).lines or 24
        kept, left_out = (rows, 0) if whole else fit(rows, max(height - 2, 3))
        drawn = lines(kept, app.store.now_ms(), look_of(self.stream), latest(reports))
        if left_out:
            drawn.append(f"  and {left_out:,} more")
        self._draw(drawn)

    def _draw(self, drawn: list[str]) -> None:
        """Write one frame in one call: cursor to the first line, printed lines, the tree, then clear the rest."""
        out = [_HIDE, _NO_WRAP, f"\x1b[{self._drawn}A" if self._drawn else "", "\r"]
        printed, self.above[:] = self.above[:], []
        out += [f"{line}\x1b[K\n" for line in (*printed, *drawn)]
        out += ["\x1b[J", _WRAP]
        self._hidden = True
        self._drawn = len(drawn)
        self.stream.write("".join(out))
        self.stream.flush()

    def say(self, text: str) -> None:
        self.close()
        self._drawn = 0
        print(text, file=self.stream, flush=True)

    def say_at_once(self, text: str) -> None:
        self._drawn = 0
        os.write(self.stream.fileno(), f"\r{text}\x1b[K\n{_WRAP}{_SHOW}".encode())

    def close(self) -> None:
        for line in self.above:
            print(line, file=self.stream)
        self.above.clear()
        if self._hidden:
            self._hidden = False
            self.stream.write(_WRAP + _SHOW)
            self.stream.flush()


def latest(reports: Mapping[str, Progress]) -> Callable[[Node], Progress | None]:
    """What the handler of a node last reported, while it runs."""

    def of(node: Node) -> Progress | None:
        found = reports.get(node.path)
        return found if found is not None and found.of(node) else None

    return of


class _Aside(io.TextIOBase):
    """Replaces a standard stream while tasks run: whole lines go to `keep`."""

    encoding = "utf-8"

    def __init__(self, keep: list[str]) -> None:
        self.keep = keep
        self._part = ""

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        *whole, self._part = (self._part + text).split("\n")
        self.keep += [line.expandtabs().replace("\x1b", "\\x1b").replace("\r", "") for line in whole]
        return len(text)


@contextmanager
def prints_aside(watch: Watch) -> Iterator[None]:
    """Redirect what tasks print, so that it neither mixes with the outputs on standard output nor breaks the tree."""
    if not isinstance(watch, LiveTree):
        with redirect_stdout(sys.stderr):
            yield
        return
    aside: Any = _Aside(watch.above)
    with redirect_stdout(aside), redirect_stderr(aside):
        yield
