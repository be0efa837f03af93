"""An idle worker is pushed a lease by the worker that makes a leaf ready."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from stemflow.store.base import Lease
from stemflow.store.redis.open import open_redis
from stemflow.testing.contract.world import ManualClock, User, begun, leaf
from stemflow.testing.servers.server import Server


class Idle(User):
    """A worker that has asked and got nothing, and has received nothing yet."""

    async def waits(self, **fields: Any) -> None:
        assert (await self.ask(1, pushes=0, **fields)).leases == ()
        self.seen = await self.store.wait_for_work(self.name, 0, 0)

    async def handed(self) -> list[Lease]:
        """What it is given within a moment."""
        for _ in range(3):
            self.seen = await self.store.wait_for_work(self.name, self.seen, 100)
            if found := self.store.pushed_leases(self.name):
                return found
        return []


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def two(server: Server, clock: ManualClock) -> AsyncIterator[tuple[Idle, User]]:
    server.flush()
    stores = [open_redis(server.url, clock, test_time=True) for _ in range(2)]
    for store in stores:
        await store.open()
    yield Idle(stores[0], "idle"), User(stores[1], "busy")
    for store in stores:
        await store.close()


async def test_a_leaf_that_becomes_ready_is_leased_to_one_that_waits(two: tuple[Idle, User]) -> None:
    idle, busy = two
    await idle.waits()
    await busy.begin(leaf("a"))
    (lease,) = await idle.handed()
    # It is a lease like any other, told of once
    assert (lease.node, lease.until_ms) == (await busy.node("a"), busy.store.now_ms() + lease.node.lease_ms)
    assert (lease.node.state, lease.node.delivery) == ("running", 1)
    assert idle.store.pushed_leases("idle") == []
    assert await busy.lease() == ()


async def test_the_root_of_a_run_comes_with_its_header(two: tuple[Idle, User]) -> None:
    idle, busy = two
    await idle.waits()
    await busy.begin(leaf("a"))
    (lease,) = await idle.handed()
    assert lease.header is None and await busy.store.header(lease.node.run) is not None


async def test_an_offer_is_good_for_one(two: tuple[Idle, User]) -> None:
    idle, busy = two
    await idle.waits()
    await busy.begin(leaf("a"))
    await busy.begin(leaf("b"), run="other")
    assert [lease.node.path for lease in await idle.handed()] == ["a"]
    assert [lease.node.path for lease in await busy.lease()] == ["b"]


async def test_many_ready_tasks_are_fetched_not_pushed(two: tuple[Idle, User]) -> None:
    idle, busy = two
    await idle.waits()
    await busy.begin(leaf("a"), leaf("b"))
    assert await idle.handed() == []
    assert len(await idle.lease()) == 2


@pytest.mark.parametrize(
    "fields", [{"queues": ("slow",)}, {"pushes": None}, {"only_run": "none"}], ids=["queue", "unasked", "run"]
)
async def test_nothing_is_pushed_that_was_not_wanted(fields: dict[str, Any], two: tuple[Idle, User]) -> None:
    idle, busy = two
    assert (await idle.ask(1, **{"pushes": 0, **fields})).leases == ()
    idle.seen = await idle.store.wait_for_work(idle.name, 0, 0)
    if "only_run" in fields:
        # Who serves one run alone does not offer itself
        await idle.ask(1, only_run="none")
    await busy.begin(leaf("a"))
    assert await idle.handed() == []
    assert len(await busy.lease()) == 1


async def test_an_offer_that_is_old_is_not_taken_up(two: tuple[Idle, User], clock: ManualClock) -> None:
    idle, busy = two
    await idle.waits()
    clock.advance(1_501)
    await busy.begin(leaf("a"))
    assert await idle.handed() == []
    assert len(await busy.lease()) == 1


async def test_nothing_is_pushed_to_a_worker_that_is_not_subscribed(two: tuple[Idle, User]) -> None:
    idle, busy = two
    await idle.waits()
    await idle.store.close()
    await asyncio.sleep(0.05)
    await busy.begin(leaf("a"))
    assert len(await busy.lease()) == 1


async def test_a_worker_that_has_not_received_the_last_lease_is_pushed_no_other(two: tuple[Idle, User]) -> None:
    idle, busy = two
    await idle.waits()
    await busy.begin(leaf("a"))
    # Given a worker that goes on as if nothing had come
    await idle.ask(1, pushes=0)
    await busy.begin(leaf("b"), run="other")
    assert [lease.node.path for lease in await busy.lease()] == ["b"]
    # When it has heard, it may be handed the next
    assert len(await idle.handed()) == 1
    await idle.ask(1, pushes=1)
    await busy.begin(leaf("c"), run="third")
    assert [lease.node.path for lease in await idle.handed()] == ["c"]


async def test_a_repeated_request_pushes_nothing_again(two: tuple[Idle, User]) -> None:
    idle, busy = two
    await idle.waits()
    made = begun("r", leaf("a", "r"))
    await busy.exchange(made)
    assert len(await idle.handed()) == 1
    await idle.ask(1, pushes=1)
    assert (await busy.repeat(made)).committed == (True,)
    assert await idle.handed() == []


async def test_an_older_leaf_goes_first_and_the_new_one_is_notified(two: tuple[Idle, User], clock: ManualClock) -> None:
    idle, busy = two
    await busy.begin(leaf("late", at_ms=clock.now_ms() + 50))
    await idle.waits()
    clock.advance(60)
    await busy.begin(leaf("new"), run="other")
    assert [lease.node.path for lease in await idle.handed()] == ["late"]
    assert [lease.node.path for lease in await idle.lease()] == ["new"]
