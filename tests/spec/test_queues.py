"""Queues: which worker takes what."""

from __future__ import annotations

from typing import Any

from stemflow import Canvas, Stemflow, TaskRegistry


async def test_a_worker_serves_every_queue_unless_queues_are_given(app: Stemflow, registry: TaskRegistry) -> None:
    # Given
    @registry.task("slow", queue="slow")
    async def slow(value: int) -> int:
        return value

    # When
    values = await app.run(Canvas.group(slow.s(1), slow.with_options(queue="other", countdown=5).s(2)))
    # Then
    assert values == [1, 2]


async def test_a_worker_leaves_other_queues_alone(open_app: Any, registry: TaskRegistry) -> None:
    # Given
    @registry.task("anywhere")
    async def anywhere(queue: str) -> str:
        return queue

    few = await open_app(queues=("fast",))
    # When
    fast = await few.submit(anywhere.with_options(queue="fast").s("fast"))
    slow = await few.submit(anywhere.with_options(queue="slow").s("slow"))
    # Then
    assert (await fast.wait(10)).value == "fast"
    assert (await slow.wait(10)).timed_out
    await open_app()
    assert (await slow.wait(10)).value == "slow"
