"""What one task leaves behind must be nothing: counts are the same after many failing tasks as before."""

from __future__ import annotations

import asyncio
from collections import Counter

from stemflow import Stemflow, TaskRegistry
from stemflow.store.redis.store import RedisStore
from tests.spec.conftest import OpenApp

ROUNDS, AT_ONCE = 1, 12


def counts(*apps: Stemflow) -> Counter[str]:
    """Asyncio tasks by their coroutine, awaited runs, and channels that are subscribed to."""
    found = Counter(getattr(task.get_coro(), "__qualname__", "") for task in asyncio.all_tasks())
    for app in apps:
        found["watching"] += app.store.watching
        if isinstance(app.store, RedisStore):
            listener = app.store._notifications.listener
            found["channels"] += len(listener._channels)
            found["pending"] += len(app.store._notifications._tasks)
    return found


async def test_failing_tasks_leave_no_tasks_watches_or_subscriptions(open_app: OpenApp, registry: TaskRegistry) -> None:
    @registry.task("fails", max_retries=1)
    async def fails(n: int) -> None:
        raise ValueError(n)

    worker, producer, onlooker = await open_app(), await open_app(worker=False), await open_app(worker=False)

    async def one_round() -> None:
        handles = [await producer.submit(fails.s(n)) for n in range(AT_ONCE)]
        others = [await onlooker.handle(handle.id) for handle in handles]
        ends = await asyncio.gather(*(one.wait(600) for one in (*handles, *others)))
        assert {end.status for end in ends} == {"failed"}
        await asyncio.sleep(8)

    await one_round()
    before = counts(worker, producer, onlooker)
    for _ in range(ROUNDS):
        await one_round()
    assert counts(worker, producer, onlooker) == before
