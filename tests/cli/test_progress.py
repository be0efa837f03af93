"""What `show` tells of a run that another process works on: progress, and who started it."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

from stemflow import Stemflow, TaskContext, TaskRegistry
from tests.cli.world import Cli, Ran


async def test_show_prints_the_progress_of_running_tasks_and_what_started_the_run(cli: Cli, tmp_path: Path) -> None:
    # Given a run that a task has started, with a task that has reported its progress and is still at work
    registry, url = TaskRegistry(), f"sqlite:{tmp_path / 'progress.db'}"
    reported, let_go = asyncio.Event(), asyncio.Event()

    @registry.task("works")
    async def works(context: TaskContext) -> None:
        await context.progress(40, "halfway")
        reported.set()
        await let_go.wait()

    @registry.task("starts")
    async def starts(context: TaskContext) -> str:
        return await context.enqueue(works.s())

    async with Stemflow(url, registry) as app:
        parent = await app.submit(starts.s())
        child = (await parent.wait()).value
        await reported.wait()

        # When it is shown
        def show(*more: str) -> Ran:
            return cli("show", child, "--store", url, *more)

        text = await asyncio.to_thread(show)
        data = json.loads((await asyncio.to_thread(show, "--json")).out)
        let_go.set()
        await (await app.handle(child)).wait()
        after = json.loads((await asyncio.to_thread(show, "--json")).out)

    # Then both are notified, and once it has ended there is no progress any more
    assert f"started by task {parent.id}" in text.out
    assert "40%  halfway" in text.out
    assert data["started_by"] == parent.id
    assert data["nodes"][0]["progress"] == {"percent": 40, "data": "halfway"}
    assert after["nodes"][0]["progress"] is None
