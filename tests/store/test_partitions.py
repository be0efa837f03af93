"""Runs over several partitions: which of them lie together, and what is the same for all."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator

import pytest
from msgspec import structs

from stemflow import Canvas, RetryPolicy, RunFailed, Stemflow, TaskContext, TaskRegistry
from stemflow.errors import OptionError
from stemflow.model.records import NO_RUN
from stemflow.runtime.clock import SystemClock
from stemflow.store.base import Request, StoreError, Want
from stemflow.store.open import open_store
from stemflow.store.redis.partitioned_exchange import part_of
from stemflow.testing.contract.world import User, begun, leaf
from stemflow.testing.servers.server import Server
from stemflow.testing.simulation.virtual_loop import SeededIds

PARTS = 4


@pytest.fixture
def url(one_server: Server) -> str:
    one_server.flush()
    return f"{one_server.url}?partitions={PARTS}"


@pytest.fixture
def registry() -> TaskRegistry:
    return TaskRegistry()


@pytest.fixture
async def app(url: str, registry: TaskRegistry) -> AsyncIterator[Stemflow]:
    async with Stemflow(url, registry) as opened:
        yield opened


def elsewhere() -> str:
    """An id as the engine makes them, of a partition without keys."""
    ids = SeededIds(random.Random(7))
    return next(run for run in iter(ids.run_id, "") if part_of(run, PARTS) != 0)


def test_ids_of_the_engine_are_spread_and_others_are_stored_with_the_keys() -> None:
    ids = SeededIds(random.Random(1))
    found = Counter(part_of(ids.run_id(), PARTS) for _ in range(1_000))
    assert set(found) == set(range(PARTS))
    assert max(found.values()) < 2 * min(found.values())
    assert {part_of(run, PARTS) for run in ("order-1", NO_RUN, "0" * 32, "f" * 32)} == {0}


async def test_runs_are_spread_and_one_worker_serves_all_partitions(app: Stemflow, registry: TaskRegistry) -> None:
    @registry.task("double")
    async def double(x: int) -> int:
        return 2 * x

    handles = await app.submit_many([Canvas.chord([double.s(n), double.s(n)], double.s()) for n in range(3)])
    handles += await app.submit_many([double.s(n) for n in range(200)])
    results = await asyncio.wait_for(asyncio.gather(*(handle.wait() for handle in handles[3:])), 20)
    assert [result.value for result in results] == [2 * n for n in range(200)]
    assert {part_of(handle.id, PARTS) for handle in handles} == set(range(PARTS))
    assert {info.header.run for info in await app.store.runs(500)} == {handle.id for handle in handles}


@pytest.mark.parametrize(
    "options", [{"unique": True}, {"concurrency": 1}, {"rate_limit": "1000/s"}, {"group_rate_limit": "1000/s"}]
)
async def test_runs_whose_tasks_share_keys_are_stored_with_the_keys(
    options: dict[str, object], app: Stemflow, registry: TaskRegistry
) -> None:
    if "group_rate_limit" in options:
        options = {**options, "group_rate_key": "shop"}

    @registry.task("one", **options)
    async def one(x: int) -> int:
        return x

    @registry.task("plain")
    async def plain(x: int) -> int:
        return x

    handles = [await app.submit(one.s(n)) for n in range(8)] + [await app.submit(plain.s(n) | one.s()) for n in (9, 10)]
    assert {part_of(handle.id, PARTS) for handle in handles} == {0}
    for handle in handles:
        assert (await handle.wait(timeout=20)).status == "succeeded"
    with pytest.raises(OptionError, match="expected an id of the partition of the keys"):
        await app.submit(one.s(1), run_id=elsewhere())
    assert await app.submit(plain.s(1), run_id=elsewhere()) is not None


async def test_a_unique_key_is_unique_over_all_partitions(app: Stemflow, registry: TaskRegistry) -> None:
    go_on = asyncio.Event()

    @registry.task("once", unique=True)
    async def once(x: int) -> int:
        await go_on.wait()
        return x

    handles = await asyncio.gather(*(app.submit(once.s(1)) for _ in range(20)))
    assert len({handle.id for handle in handles}) == 1
    go_on.set()
    assert (await handles[0].wait(timeout=20)).value == 1


async def test_a_rerun_and_a_replay_are_in_the_partition_of_the_run_that_they_repeat(
    app: Stemflow, registry: TaskRegistry
) -> None:
    broken = True

    @registry.task("first")
    async def first(x: int) -> int:
        return x

    @registry.task("second", retry=RetryPolicy.of(initial="1ms"), max_retries=0)
    async def second(x: int) -> int:
        if broken:
            raise ValueError("broken")
        return x + 1

    handles = [await app.submit(first.s(n) | second.s()) for n in range(8)]
    for handle in handles:
        assert (await handle.wait(timeout=20)).status == "failed"
    assert len(await app.dead_letters()) == 8
    broken = False
    again = [await app.rerun(handle.id, failed=True) for handle in handles[:4]]
    replayed = await app.replay(await app.dead_letters())
    assert [part_of(one.id, PARTS) for one in again] == [part_of(one.id, PARTS) for one in handles[:4]]
    assert {one.run for one in replayed} == {one.id for one in handles[4:]}
    for one in replayed:
        assert one.run_id is not None and part_of(one.run_id, PARTS) == part_of(one.run, PARTS)
        again.append(await app.handle(one.run_id))
    assert [(await one.wait(timeout=20)).status for one in again] == ["succeeded"] * 8


async def test_letters_of_several_partitions_are_purged_together(app: Stemflow, registry: TaskRegistry) -> None:
    @registry.task("bad", max_retries=0)
    async def bad(x: int) -> None:
        raise ValueError(x)

    for handle in await app.submit_many([bad.s(n) for n in range(10)]):
        await handle.wait(timeout=20)
    assert len(await app.purge(await app.dead_letters())) == 10
    assert await app.dead_letters() == []


async def test_what_joins_a_run_of_another_partition_may_share_no_keys(app: Stemflow, registry: TaskRegistry) -> None:
    @registry.task("single", concurrency=1)
    async def single(x: int) -> int:
        return x

    @registry.task("swap")
    async def swap(context: TaskContext) -> None:
        await context.replace(single.s(3))

    with pytest.raises(RunFailed, match="shares no keys"):
        await _run(app, swap.s(), elsewhere())
    assert (await _run(app, swap.s(), "chosen")) == 3


async def _run(app: Stemflow, what: object, run: str) -> object:
    handle = await app.submit(what, run_id=run)  # type: ignore[call-overload]
    result = await handle.wait(timeout=20)
    if result.status != "succeeded":
        raise RunFailed(result)
    return result.value


@pytest.mark.parametrize("other", ["", "?partitions=3", "?partitions=5"])
async def test_another_number_of_partitions_than_the_store_was_made_with_is_refused(url: str, other: str) -> None:
    store = open_store(url, SystemClock())
    await store.open()
    await store.close()
    wrong = open_store(url.partition("?")[0] + other, SystemClock())
    with pytest.raises(StoreError, match=rf"expected \?partitions={PARTS}, with which this store was made"):
        await wrong.open()
    await wrong.close()


async def test_a_store_that_was_made_without_partitions_stays_so(one_server: Server) -> None:
    one_server.flush()
    async with Stemflow(one_server.url, TaskRegistry()):
        pass
    store = open_store(f"{one_server.url}?partitions=2", SystemClock())
    with pytest.raises(StoreError, match=r"expected \?partitions=1"):
        await store.open()
    assert b"{sf:1}m" not in one_server.ask("KEYS", "*")


async def test_a_busy_worker_asks_one_partition_alone_and_another_one_each_time(url: str, one_server: Server) -> None:
    store = open_store(url, SystemClock())
    await store.open()
    user = User(store, "one")
    ids = SeededIds(random.Random(3))
    for _ in range(60):
        run = ids.run_id()
        await user.begin(leaf("a", run), run=run)
    await store.exchange(Request("w", 1), [], Want(owner="w", limit=0))
    seen = []
    for turn in range(2, 2 + PARTS):
        before = _scripts(one_server)
        (lease,) = (await store.exchange(Request("w", turn), [], Want(owner="w", limit=1))).leases
        seen.append(part_of(lease.node.run, PARTS))
        assert _scripts(one_server) - before == 1
        # The same request again asks the same partition and gets the same lease.
        (again,) = (await store.exchange(Request("w", turn), [], Want(owner="w", limit=1))).leases
        assert again.node.key == lease.node.key
    assert sorted(seen) == list(range(PARTS))
    await store.close()


def _scripts(server: Server) -> int:
    line = next(
        (x for x in server.ask("INFO", "commandstats").splitlines() if x.startswith(b"cmdstat_evalsha:")), b"=0,"
    )
    return int(line.partition(b"=")[2].partition(b",")[0])


async def test_a_decision_that_rests_on_one_of_another_partition_is_made_again(url: str) -> None:
    store = open_store(url, SystemClock())
    await store.open()
    user = User(store, "one")
    far, second = begun(elsewhere()), begun("b", after=(1,))
    made = await user.exchange(far, begun("a"), structs.replace(far, after=(1,)), second)
    assert made.committed == (True, True, False, True)
    await store.close()
