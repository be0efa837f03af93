"""What is left on a server when everything is over: nothing without an expiry but the keys of a named list."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
import redis

from stemflow import Canvas, Reject, Stemflow, TaskContext, TaskRegistry
from stemflow.store.redis.layout import PERMANENT, KeyFamily
from tests.spec.conftest import OpenApp

pytestmark = pytest.mark.parametrize("url", ["redis"], indirect=True)

A_WEEK_S, A_MONTH_S = 8 * 86_400, 31 * 86_400


class Keys:
    """All keys of a server, by their first letter behind the partition's prefix."""

    def __init__(self, url: str, prefix: bytes) -> None:
        self.redis, self.prefix = redis.Redis.from_url(url), prefix

    def permanent(self) -> set[bytes]:
        """Those that have no expiry."""
        return {key[len(self.prefix) :] for key in self._all() if self.redis.pttl(key) == -1}

    def _all(self) -> list[bytes]:
        keys: Any = self.redis.keys("*")
        assert all(key.startswith(self.prefix) for key in keys)
        return list(keys)

    def left(self) -> set[bytes]:
        return {key[len(self.prefix) :] for key in self._all()}


@pytest.fixture
def keys(url: str) -> Iterator[Keys]:
    found = Keys(url, b"{sf:0}")
    yield found
    found.redis.close()


async def close(app: Stemflow) -> None:
    """End an engine before the test does, so that years may pass without it."""
    await app.__aexit__(None, None, None)


def program(registry: TaskRegistry) -> dict[str, Any]:
    """Runs that end in every way, by what they are."""

    @registry.task("keep")
    async def keep(x: Any = None) -> Any:
        return x

    @registry.task("fails", max_retries=1)
    async def fails() -> None:
        raise ValueError("it fails")

    @registry.task("refuses")
    async def refuses() -> None:
        raise Reject("no")

    @registry.task("sleeps", hard_time_limit="2m")
    async def sleeps(seconds: float) -> None:
        await asyncio.sleep(seconds)

    @registry.task("tells")
    async def tells(context: TaskContext) -> None:
        await context.progress(50)
        await context.enqueue(keep.s(1))
        await context.replace(keep.s(1) | keep.s())

    @registry.task("adds")
    async def adds(context: TaskContext) -> None:
        await context.add_to_group(keep.s(2))

    @registry.task("total")
    async def total(numbers: list[Any]) -> int:
        return len(numbers)

    return {
        "lone": keep.s(1),
        "chain": keep.s(1) | keep.s() | keep.s(),
        "chord": Canvas.chord([keep.s(1), keep.s(2)], total.s()),
        "map": Canvas.map(keep.s(), list(range(1_500)), concurrency=100),
        "nested map": Canvas.group(Canvas.map(keep.s(), [1, 2]), keep.s(1) | Canvas.map(keep.si(), list(range(1_200)))),
        "failed": fails.s(),
        "failed in a chain": keep.s(1) | fails.si() | keep.s(),
        "refused": Canvas.group(refuses.s(), keep.s(1)),
        "hooks": (keep.s(1) | fails.si()).on_failure(keep.si(1)),
        "too long": sleeps.s(3_600),
        "tells": tells.s(),
        "adds": Canvas.group(adds.s()),
        "later": keep.with_options(countdown="3m").s(1),
        "expired": keep.with_options(countdown="3m", expires="1m").s(1),
        "unique": keep.with_options(unique=True, unique_by="u").s(1),
        "unique for a while": keep.with_options(unique=True, unique_by="w", unique_for="1h").s(1),
        "unique members": Canvas.group(*(keep.with_options(unique=True, unique_by="v").s(1) for _ in range(3))),
        "limited": Canvas.group(*(keep.with_options(rate_limit="2/m", queue="slow").s(i) for i in range(5))),
        "one at a time": Canvas.group(*(sleeps.with_options(concurrency={"key": "one"}).s(9) for _ in range(3))),
        "kept for no time": keep.with_options(result_ttl=0).s(1),
        "ignored": keep.with_options(ignore_result=True).s(1),
        "urgent": keep.with_options(priority=9).s(1),
        "stopped": Canvas.group(sleeps.s(500), sleeps.s(500)) | total.s(),
        "stopped before it began": keep.with_options(countdown="2h").s(1),
    }


async def all_of(app: Stemflow, registry: TaskRegistry) -> None:
    """Every one of them to its end."""
    handles = {name: await app.submit(sig) for name, sig in program(registry).items()}
    ends = asyncio.gather(*(handle.wait(timeout=3_600) for handle in handles.values()))
    await asyncio.sleep(5)
    for name, handle in handles.items():
        if name.startswith("stopped"):
            await handle.cancel()
    assert {"succeeded", "failed", "cancelled"} <= {result.status for result in await ends}
    failed = await app.rerun(handles["failed in a chain"].id, failed=True)
    assert (await failed.wait()).status == "failed"


async def test_nothing_is_left_without_an_expiry_once_all_is_past_its_time(
    open_app: OpenApp, registry: TaskRegistry, keys: Keys
) -> None:
    # Given runs that have ended in every way there is
    app = await open_app()
    await all_of(app, registry)
    await close(app)
    # A task that was stopped before its instant is forgotten by its queue when a worker meets it there
    assert keys.permanent() <= {*PERMANENT, b"ddefault\x1fkeep"}

    # When their results, windows and dead letters are expired and a worker has looked around
    await asyncio.sleep(A_WEEK_S)
    app = await open_app()
    await asyncio.sleep(120)
    assert await app.store.runs(10) == []
    await close(app)

    # Then what never expires is on the list and empty, and a month later one plan is kept, for a year: that of the lone
    # task that replaced itself, whose record names the plan of its replacement by then
    assert keys.permanent() == {b"m", b"b"}
    await asyncio.sleep(A_MONTH_S)
    app = await open_app(worker=False)
    assert await app.store.dead_letters() == []
    await close(app)
    left = sorted(key[:1] for key in keys.left())
    assert left == sorted([b"m", b"b", KeyFamily.plan.value, KeyFamily.plan_uses.value])


async def test_the_list_of_runs_shrinks_though_its_oldest_lives_on(
    open_app: OpenApp, registry: TaskRegistry, keys: Keys
) -> None:
    # Given runs that wait for long, before and between others that end
    @registry.task("keep", result_ttl="1m")
    async def keep(x: int) -> int:
        return x

    app = await open_app()
    alive = [await app.submit(keep.with_options(countdown="30d").s(i)) for i in range(2)]
    for i in range(60):
        await (await app.submit(keep.s(i))).wait()
        if i % 20 == 0:
            alive.append(await app.submit(keep.with_options(countdown="30d").s(i)))
    # When the others are expired
    await asyncio.sleep(180)
    while await app.store.prune(10):
        pass
    for _ in range(20):
        await app.store.prune(10)
    await close(app)
    # Then those that live on are listed, and no other
    listed: Any = keys.redis.lrange(keys.prefix + b"L", 0, -1)
    assert [name[1:].hex() for name in reversed(listed)] == [handle.id for handle in alive]


async def test_the_index_of_cancelled_runs_shrinks_with_them(
    open_app: OpenApp, registry: TaskRegistry, keys: Keys
) -> None:
    @registry.task("keep", result_ttl="1m")
    async def keep() -> None: ...

    # Given cancelled runs, and one that is kept longer
    app = await open_app(worker=False)
    kept = await app.submit(keep.with_options(result_ttl="30d").s())
    runs = [kept, *[await app.submit(keep.s()) for _ in range(30)]]
    for run in runs:
        await run.cancel()
    index = keys.prefix + KeyFamily.cancelled.value
    assert keys.redis.zcard(index) == 31
    # When the others have expired and are pruned, a few at a time
    await asyncio.sleep(180)
    for _ in range(20):
        await app.store.prune(10)
    await close(app)
    # Then the index has the one that is kept
    listed: Any = keys.redis.zrange(index, 0, -1)
    assert [name[1:].hex() for name in listed] == [kept.id]
