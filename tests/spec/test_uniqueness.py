"""Unique keys: which calls are the same, and what becomes of one that comes while another holds its key."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from stemflow import Canvas, Stemflow, TaskRegistry

Log = list[Any]


@pytest.fixture
def log() -> Log:
    return []


@pytest.fixture
def index(registry: TaskRegistry, log: Log) -> Any:
    """Takes 10 s, and gives back the version that it was called with; its key is the page alone."""

    @registry.task("index", unique=True, unique_by="${{ args.page }}")
    async def index(page: str, version: int) -> int:
        log.append((page, version))
        await asyncio.sleep(10)
        return version

    return index


# -- the key


async def test_a_key_over_the_arguments_reads_them_by_name_however_they_were_given(
    app: Stemflow, index: Any, log: Log
) -> None:
    # Given the same page in calls by position, by name, and within a canvas after another step
    one = await app.submit(index.s("home", 1))
    two = await app.submit(index.s(version=2, page="home"))
    value = await app.run(Canvas.chain(index.si("home", version=3), index.si("home", 4)))

    # Then one call of them ran at a time, and those that came meanwhile share its result
    assert two.id == one.id and two.existing
    assert value == 4
    assert log == [("home", 1), ("home", 4)]
