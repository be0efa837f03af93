"""The tasks of the programs beside this file."""

from __future__ import annotations

from stemflow import TaskContext, TaskRegistry

registry = TaskRegistry()


@registry.task("add")
async def add(x: int, y: int) -> int:
    return x + y


@registry.task("label")
def label(context: TaskContext, number: int, prefix: str = "") -> str:
    return f"{prefix}{number} by {context.id}"


@registry.task("shout")
def shout(text: str) -> str:
    return text.upper()


@registry.task("count")
def count(text: str) -> int:
    return len(text)


@registry.task("total")
async def total(numbers: list[int]) -> int:
    return sum(numbers)


@registry.task("now", max_retries=2)
async def now() -> int:
    return 1
