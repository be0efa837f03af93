"""A worker whose slots are all taken by handlers that do not end cannot go on: the command ends with an error."""

from __future__ import annotations

import asyncio

import pytest

from stemflow import Stemflow, TaskRegistry
from stemflow.cli.worker import _cannot_go_on
from stemflow.errors import StemflowError
from stemflow.testing.simulation.virtual_loop import VirtualClock
from tests.conftest import VirtualRun


def test_a_worker_that_has_lost_all_its_slots_ends_with_an_error(vrun: VirtualRun) -> None:
    registry, release = TaskRegistry(), asyncio.Event()

    @registry.task("stubborn", hard_time_limit=1, max_retries=0)
    async def stubborn() -> None:
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue

    async def world() -> str:
        loop = asyncio.get_running_loop()
        clock = VirtualClock(loop)  # type: ignore[arg-type]
        async with Stemflow("memory:", registry, clock=clock, concurrency=2) as app:
            assert app.service is not None
            # Given a worker of two slots, of which a handler that does not end has taken one
            (await app.submit(stubborn.s()))
            watch = asyncio.create_task(_cannot_go_on(app.service))
            await asyncio.sleep(60)
            assert len(app.service.slots.leaked) == 1
            assert not watch.done()
            # When another takes the second
            (await app.submit(stubborn.s()))
            began = loop.time()
            with pytest.raises(StemflowError) as error:
                await watch
            # Then it ends soon after, with the name of the task
            assert 10 <= loop.time() - began < 20
            release.set()
            return str(error.value)

    assert vrun(world) == (
        "all 2 slots are taken by handlers that do not end (stubborn); give such tasks isolation='process'"
    )
