"""Tasks that were lost twice run alone in their worker, so that the next death blames nobody else."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from stemflow import RunHandle, Signature, Stemflow, TaskRegistry
from stemflow.model.facts import Ended, HandedBack, Lost
from stemflow.store.base import Request, Want
from tests.spec.conftest import OpenApp


class Floor:
    """Who works at the same time as whom: `work` is the body of a handler."""

    def __init__(self) -> None:
        self.present: list[str] = []
        self.met: dict[str, set[str]] = {}
        self.order: list[str] = []

    async def work(self, name: str, seconds: float) -> str:
        self.present.append(name)
        self.order.append(name)
        for one in self.present:
            self.met.setdefault(one, set()).update(other for other in self.present if other != one)
        await asyncio.sleep(seconds)
        self.present.remove(name)
        return name


@pytest.fixture
def floor(registry: TaskRegistry) -> Floor:
    floor = Floor()
    registry.task("work")(floor.work)
    return floor


async def lost(app: Stemflow, what: Signature[object, object], times: int) -> RunHandle:
    """Submit a task whose worker dies under it so many times."""
    handle = await app.submit(what)
    for number in range(times):
        request = Request(f"dying {handle.id}", number + 1)
        answer = await app.store.exchange(request, [], Want(owner="dying", limit=1, only_run=handle.id))
        (lease,) = answer.leases
        await asyncio.sleep(lease.node.lease_ms / 1_000 + 1)
        for taken in await app.store.take_expired("sweeper", 100):
            app.decider.remember_lease(taken)
            await app.parts.committer.commit([Lost(taken.node.key, taken.node.delivery)])
    return handle


async def put_off(app: Stemflow, ms: int) -> None:
    """Somebody leases what is next and hands it back for so long."""
    request, want = Request("in between", 1), Want(owner="in between", limit=1)
    (lease,) = (await app.store.exchange(request, [], want)).leases
    app.decider.remember_lease(lease)
    await app.parts.committer.commit([Ended(lease.node.key, lease.node.delivery, HandedBack(ms))])


async def test_a_task_that_was_lost_twice_runs_with_no_neighbours(
    open_app: OpenApp, registry: TaskRegistry, floor: Floor
) -> None:
    # Given a task that was lost twice, one that was lost once, and others that were not
    producer = await open_app(worker=False)
    work = registry.get("work")
    assert work is not None
    handles = [await producer.submit(work.si(f"before {n}", 10)) for n in range(3)]
    handles.append(await lost(producer, work.si("once", 10), 1))
    handles.append(await lost(producer, work.si("twice", 10), 2))
    handles += [await producer.submit(work.si(f"after {n}", 10)) for n in range(3)]

    # When a worker runs them, then all end, and the one that was lost twice has met nobody
    await open_app(concurrency=4)
    for handle in handles:
        assert (await handle.wait()).status == "succeeded"
    assert floor.met["twice"] == set()
    assert floor.met["once"]
    assert len(floor.met) == 8


async def test_a_worker_that_is_busy_makes_room_before_it_runs_one_that_was_lost_twice(
    open_app: OpenApp, registry: TaskRegistry, floor: Floor
) -> None:
    # Given a worker that is busy for 100 s when a task that was lost twice becomes ready, after 50 s
    producer = await open_app(worker=False)
    work = registry.get("work")
    assert work is not None
    twice = await lost(producer, work.si("twice", 10), 2)
    await put_off(producer, 50_000)
    busy = await producer.submit(work.si("busy", 100))
    app = await open_app(concurrency=4)

    # When more tasks come after it
    await asyncio.sleep(60)
    more = [await app.submit(work.si(f"more {n}", 10)) for n in range(3)]
    for handle in (busy, twice, *more):
        assert (await handle.wait()).status == "succeeded"

    # Then the worker has started nothing until it was free, then the one alone, then the others side by side
    assert floor.order[:2] == ["busy", "twice"]
    assert floor.met["twice"] == set()
    assert floor.met["more 0"] == {"more 1", "more 2"}
    assert [node.losses for node in await twice.records()] == [2]


async def test_what_a_submission_leases_while_one_that_was_lost_twice_starts_is_no_neighbour_of_it(
    open_app: OpenApp, registry: TaskRegistry, floor: Floor, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given one that was lost twice and is ready in 50 s, and a worker with two slots: in one a task until 55 s, the
    # other asked for by a submission that is answered at 65 s
    producer = await open_app(worker=False)
    work = registry.get("work")
    assert work is not None
    twice = await lost(producer, work.si("twice", 20), 2)
    await put_off(producer, 50_000)
    app = await open_app(concurrency=2)
    busy = await app.submit(work.si("busy", 55))
    await asyncio.sleep(45)
    exchange = app.store.exchange

    async def slow(*what: Any) -> Any:
        monkeypatch.setattr(app.store, "exchange", exchange)
        answer = await exchange(*what)
        await asyncio.sleep(20)
        return answer

    monkeypatch.setattr(app.store, "exchange", slow)
    beside = await app.submit(work.si("beside", 10))
    # When it is leased in between, then it runs alone
    for handle in (busy, twice, beside):
        assert (await handle.wait()).status == "succeeded"
    assert floor.order == ["busy", "twice", "beside"]
    assert floor.met["twice"] == set()
