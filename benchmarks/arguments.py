"""What it costs to convert and check the arguments of a call, by what the handler is annotated with."""

from __future__ import annotations

import dataclasses
import datetime as dt
import time
import timeit
from typing import Any

from stemflow import TaskRegistry

CALLS = 50_000
registry = TaskRegistry()


@dataclasses.dataclass
class Line:
    sku: str
    qty: int = 1
    at: dt.date | None = None


@registry.task("nothing")
async def nothing() -> None: ...


@registry.task("plain")
async def plain(a: int, b: str) -> None: ...


@registry.task("line")
async def line(one: Line) -> None: ...


@registry.task("numbers")
async def numbers(many: list[int]) -> None: ...


GIVEN: list[tuple[str, str, tuple[Any, ...], dict[str, Any]]] = [
    ("no argument", "nothing", (), {}),
    ("int, str", "plain", (1, "a"), {}),
    ("int, str by name", "plain", (), {"a": 1, "b": "a"}),
    ("a dataclass with a date", "line", ({"sku": "a", "at": "2026-11-24"},), {}),
    ("a list of 100 int", "numbers", (list(range(100)),), {}),
]


def main() -> None:
    for label, name, args, kwargs in GIVEN:
        task = registry.get(name)
        assert task is not None
        convert = task.parameters.convert
        spent = timeit.repeat(lambda: convert(args, kwargs), number=CALLS, repeat=5, timer=time.process_time)  # noqa: B023
        print(f"{label:<26}{min(spent) / CALLS * 1e9:>8,.0f} ns a call", flush=True)


if __name__ == "__main__":
    main()
