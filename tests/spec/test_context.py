"""`TaskContext`: what a handler is told, and what it may ask for."""

import asyncio

from stemflow import Stemflow, TaskContext, TaskRegistry


async def test_the_id_is_the_same_over_all_attempts(app: Stemflow, registry: TaskRegistry) -> None:
    # Given a task that fails twice
    seen: list[tuple[str, int]] = []

    @registry.task("flaky", max_retries=2)
    async def flaky(context: TaskContext) -> None:
        seen.append((context.id, context.attempt))
        await asyncio.sleep(60)
        if context.attempt < 2:
            raise ValueError("not yet")

    # When it has run, then each attempt had one number, counted from 0, and all had one id
    handle = await app.submit(flaky.s())
    assert (await handle.wait()).status == "succeeded"
    assert seen == [(handle.id, 0), (handle.id, 1), (handle.id, 2)]
