"""Rows as text: one line a row, in columns, and a frame that fits a terminal."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from stemflow.cli.text import clip, short_duration, shown
from stemflow.cli.tree import Row
from stemflow.model.records import ErrorInfo, Node
from stemflow.runtime.runs.progress import Progress

_MARKS = {
    "succeeded": ("✓", "+", "32"), "failed": ("✗", "x", "31"), "skipped": ("-", "-", "2"),
    "cancelled": ("■", "#", "33"), "running": ("●", "*", "36"), "stopping": ("◌", "o", "33"),
    "held": ("◇", "o", "2"), "ready": ("○", "o", "2"), "waiting": ("·", ".", "2"),
}  # fmt: skip
_WIDEST_NAME = 36

ProgressOf = Callable[[Node], Progress | None]


class Look(NamedTuple):
    """What the terminal can show."""

    colour: bool = False
    unicode: bool = True
    width: int = 100


def error_text(error: ErrorInfo) -> str:
    """`PspUnavailable: no answer`, on one line and without control characters."""
    message = shown(error.message)
    return f"{shown(error.type)}: {message}" if message else shown(error.type)


def counts_text(counts: Mapping[str, int]) -> str:
    """`2 succeeded, 1 failed`."""
    return ", ".join(f"{count:,} {state}" for state, count in counts.items())


def lines(rows: Sequence[Row], now_ms: int, look: Look, progress_of: ProgressOf) -> list[str]:
    """One line a row: mark, name, state, time, and what else there is to say of it."""
    names = [f"{'  ' * row.depth}{shown(row.name)}" for row in rows]
    widest = min(max(map(len, names), default=0), _WIDEST_NAME)
    shortened = [clip(name, widest) for name in names]
    return [_line(row, name, widest, now_ms, look, progress_of) for row, name in zip(rows, shortened, strict=True)]


def _line(row: Row, name: str, widest: int, now_ms: int, look: Look, progress_of: ProgressOf) -> str:
    fancy, plain, colour = _MARKS[row.state]
    mark = fancy if look.unicode else plain
    lasted = row.lasted_ms(now_ms)
    time = short_duration(lasted) if lasted is not None else ""
    detail = "  ".join(_details(row, now_ms, progress_of))
    text = clip(f"{name:<{widest}}  {row.state:<9}  {time:>6}  {detail}".rstrip(), max(look.width - 2, 20))
    if not look.unicode:
        text = text.replace("…", "~")
    return f"\x1b[{colour}m{mark}\x1b[0m {text}" if look.colour else f"{mark} {text}"


def _details(row: Row, now_ms: int, progress_of: ProgressOf) -> list[str]:
    said: list[str] = []
    node = row.node
    if row.counts:
        said.append(counts_text(row.counts))
    if row.state == "skipped" and row.cause is not None:
        said.append(_why_skipped(row))
    if node is None:
        return said
    if row.task is not None and node.attempt:
        said.append(f"attempt {node.attempt + 1} of {max(row.attempts, node.attempt + 1)}")
    if row.state == "ready" and node.at_ms > now_ms:
        said.append(f"next in {short_duration(node.at_ms - now_ms)}")
    if row.state == "running" and row.task is not None:
        said += progress_texts(progress_of(node))
    if node.error is not None and row.state not in ("succeeded", "skipped"):
        said.append(error_text(node.error))
    return said


def _why_skipped(row: Row) -> str:
    if row.cause != "condition":
        return "because of what it waited for"
    if row.blamed is None:
        return "by its condition"
    if not row.blamed:
        return "because nothing before it failed"  # `run_on: failure`
    names = " and ".join(map(shown, row.blamed[:3])) if len(row.blamed) <= 3 else f"{len(row.blamed)} steps before it"
    return f"because {names} {'was' if len(row.blamed) == 1 else 'were'} skipped"


def progress_texts(progress: Progress | None) -> list[str]:
    """`40%`, and the text that a handler gave with it."""
    if progress is None:
        return []
    return [f"{progress.percent:g}%", *([shown(progress.data)] if isinstance(progress.data, str) else [])]


def fit(rows: Sequence[Row], most: int) -> tuple[list[Row], int]:
    """At most `most` rows in their order, and how many were left out; what runs or failed is kept longest."""
    if len(rows) <= most:
        return list(rows), 0
    by_need = sorted(range(len(rows)), key=lambda i: (_need(rows[i]), i))
    kept = sorted(by_need[: max(most - 1, 1)])
    return [rows[i] for i in kept], len(rows) - len(kept)


def _need(row: Row) -> int:
    if row.depth == 0:
        return 0
    if row.state in ("failed", "running", "stopping"):
        return 1 if row.task is not None or row.state == "failed" else 2
    if row.state in ("ready", "held"):
        return 3
    return (4 if row.is_final else 5) + 2 * (row.depth > 1)
