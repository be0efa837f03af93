"""An engine that runs for long keeps no more of what has ended than it needs."""

import asyncio
import gc
import tracemalloc

import pytest

from stemflow import Canvas, Stemflow, TaskRegistry
from stemflow.runtime.values.library import PLANS


async def test_more_canvases_can_wait_to_be_stored_than_plans_are_kept(
    app: Stemflow, registry: TaskRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    @registry.task("same")
    async def same(value: int) -> int:
        return value

    monkeypatch.setattr(app.library.shapes, "limit", 3)
    handles = await asyncio.gather(*(app.submit(same.s(n) | same.s()) for n in range(20)))
    assert [(await handle.wait()).value for handle in handles] == list(range(20))
    assert len(app.library.shapes) <= 3


@pytest.mark.long
@pytest.mark.parametrize("url", ["memory:"])  # what stays on a server is audited in test_keys.py
async def test_five_thousand_runs_leave_an_engine_and_its_store_as_they_were(
    app: Stemflow, registry: TaskRegistry
) -> None:
    # Given canvases of which each has a plan of its own, and runs that are not kept for long
    @registry.task("same", result_ttl="1s")
    async def same(value: int) -> int:
        return value

    @registry.task("gathered", result_ttl="1s")
    async def gathered(values: list[int]) -> list[int]:
        return values

    sizes = []
    tracemalloc.start()
    try:
        for turn in range(5):
            canvases = [Canvas.chord([same.s(turn), same.s(n)], gathered.s())
                        for n in range(1_000)]  # fmt: skip
            handles = await app.submit_many(canvases)
            results = [await handle.wait() for handle in handles]
            assert [result.value for result in results] == [[turn, n] for n in range(1_000)]
            del handles, canvases, results
            await asyncio.sleep(200)
            gc.collect()
            sizes.append(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
    # Then nothing is left of them in the store, and the memory of this process has stopped growing
    assert await app.store.runs(10) == []
    assert len(app.library.shapes) <= PLANS
    assert sizes[4] < sizes[3] * 1.1, sizes
