"""Lists of failed runs read what they show, however many other runs there are."""

from __future__ import annotations

from typing import Any

import pytest

from stemflow import Stemflow, TaskRegistry
from stemflow.runtime.client.run_list import RunQuery, list_runs
from stemflow.store.base import RunInfo

OTHERS = 450
"""Runs that are not asked for: more than two pages."""


async def test_failed_runs_are_listed_by_an_index(
    app: Stemflow, registry: TaskRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    @registry.task("works")
    async def works() -> None: ...

    @registry.task("fails", max_retries=0)
    async def fails() -> None:
        raise ValueError("no")

    # Given three failed runs, the oldest of all
    failed = [await app.submit(fails.s()) for _ in range(3)]
    for handle in (*failed, *await app.submit_many(works.s() for _ in range(OTHERS))):
        await handle.wait()
    read: list[RunInfo] = []
    runs = app.store.runs

    async def counted(*given: Any, **named: Any) -> list[RunInfo]:
        found = await runs(*given, **named)
        read.extend(found)
        return found

    monkeypatch.setattr(app.store, "runs", counted)

    # Then they are listed, newest first, and no other run is read
    listed = await list_runs(app.store, RunQuery(states=frozenset(("failed",))), 50)
    assert [one.info.header.run for one in listed.runs] == [one.id for one in reversed(failed)]
    assert len(read) == 3

    # And a page reads one more than it shows, and goes on behind what was shown
    read.clear()
    page = await list_runs(app.store, RunQuery(states=frozenset(("failed",))), 2)
    assert len(read) == 3
    rest = await list_runs(app.store, RunQuery(states=frozenset(("failed",))), 2, page.after or "")
    assert [one.info.header.run for one in (*page.runs, *rest.runs)] == [one.id for one in reversed(failed)]
    assert await list_runs(app.store, RunQuery(states=frozenset(("cancelled",))), 2) == listed.__class__(runs=())
