"""What the programs here share: the no-op tasks, a store in a new folder, and how a series is printed."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from stemflow import TaskRegistry

registry = TaskRegistry()


@registry.task("noop")
async def noop() -> None:
    return None


@registry.task("same")
async def same(value: int) -> int:
    return value


@contextmanager
def store_url(kind: str) -> Iterator[str]:
    """The URL of an empty store of this kind."""
    with tempfile.TemporaryDirectory() as folder:
        yield "memory:" if kind == "memory" else f"sqlite:{Path(folder) / 'runs.db'}"


def series(label: str, values: Sequence[float], unit: str, base: float | None = None) -> str:
    """One line: median, range and, with `base`, the ratio to it."""
    middle = statistics.median(values)
    ratio = f"   {middle / base:7.3f} x the bare one" if base else ""
    return f"{label:<34}{middle:>12,.0f} {unit}  ({min(values):,.0f} to {max(values):,.0f}){ratio}"
