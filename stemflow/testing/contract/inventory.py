"""Promises about the inventory of a store: what is in it, and what is stuck."""

from __future__ import annotations

from msgspec import structs

from stemflow.model.effects import DeadLetter, Put, RunEnd
from stemflow.model.rates import Rate
from stemflow.model.records import Claim, Node
from stemflow.store.base import Store
from stemflow.store.health import Inventory
from stemflow.testing.contract.world import Promises, cancel, change, create, leaf, paths, scope, succeed


def _queues(stock: Inventory) -> dict[str, tuple[int, int, str | None, str | None]]:
    """By queue: the numbers of ready and delayed tasks, and the paths of the oldest and of the next one."""
    return {one.queue: (one.ready, one.delayed, _path(one.oldest), _path(one.next)) for one in stock.queues}


def _path(node: Node | None) -> str | None:
    return None if node is None else node.path


class StockPromises(Promises):
    """All instances report the same inventory."""

    async def test_a_store_with_nothing_in_it_says_so(self) -> None:
        async with self.world() as w:
            assert await w.one.store.inventory() == Inventory(
                queues=(), leased=0, late=0, late_since_ms=None, overdue_since_ms=None, letters=0, runs=0
            )

    async def test_waiting_leaves_are_counted_by_queue_and_the_oldest_is_named(self) -> None:
        async with self.world() as w:
            now_ms = w.clock.now_ms()
            later = leaf("later", at_ms=now_ms + 50, queue="slow")
            await w.one.begin(leaf("a", priority=-1), leaf("b", priority=1), later, leaf("d", queue="slow"))
            waiting = {"default": (2, 0, "a", None), "slow": (1, 1, "d", "later")}
            for user in (w.one, w.two):
                assert _queues(await user.store.inventory()) == waiting
            # When the delayed one is due, then it may be leased, and is the oldest of its queue
            w.clock.advance(50)
            assert _queues(await w.two.store.inventory())["slow"] == (2, 0, "later", None)

    async def test_what_is_leased_no_longer_waits_and_is_late_when_its_lease_is_over(self) -> None:
        async with self.world() as w:
            await w.one.begin(leaf("a", lease_ms=100), leaf("b", lease_ms=200))
            leases = await w.one.lease()
            stock = await w.two.store.inventory()
            assert (stock.queues, stock.leased, stock.late, stock.late_since_ms) == ((), 2, 0, None)
            end_ms = w.clock.advance(100)
            w.clock.advance(50)
            stock = await w.two.store.inventory()
            assert (stock.leased, stock.late, stock.late_since_ms) == (2, 1, end_ms)
            await w.one.commit(*map(succeed, leases))
            stock = await w.two.store.inventory()
            assert (stock.leased, stock.late) == (0, 0)

    async def test_timers_that_are_due_and_not_handled_are_counted(self) -> None:
        async with self.world() as w:
            due_ms = w.clock.now_ms() + 10
            await w.one.begin(scope("[0]", due_at_ms=due_ms))
            assert (await w.two.store.inventory()).overdue_since_ms is None
            w.clock.advance(30)
            assert (await w.two.store.inventory()).overdue_since_ms == due_ms
            await w.one.commit(cancel(await w.one.node("[0]")))
            assert (await w.two.store.inventory()).overdue_since_ms is None

    async def test_runs_and_dead_letters_that_are_kept_are_counted(self) -> None:
        async with self.world() as w:
            now_ms = w.clock.now_ms()
            await w.one.begin(leaf("a"))
            await w.one.begin(leaf("a", run="s"), run="s")
            short = DeadLetter("r", "a", "t", "final", now_ms, keep_ms=60)
            long = DeadLetter("r", "b", "t", "final", now_ms, keep_ms=90)
            root = await w.one.node("")
            await w.one.commit(change(root, state="failed"), dead=(short, long), ended=(RunEnd("r", 10_000),))
            stock = await w.two.store.inventory()
            assert (stock.runs, stock.letters) == (2, 2)
            w.clock.advance(60)
            assert (await w.two.store.inventory()).letters == 1

    async def test_looking_at_a_store_changes_nothing(self) -> None:
        async with self.world() as w:
            await w.one.begin(leaf("a"))
            before = await w.one.store.nodes("r")
            for _ in range(2):
                assert (await w.one.store.check_health()).usable
                await w.two.store.inventory()
            assert await w.one.store.nodes("r") == before
            assert len(await w.two.lease()) == 1

    async def test_a_store_can_be_examined_before_it_is_opened(self) -> None:
        async with self.world() as w:
            second: Store = self.second(w.one.store, w.clock)
            assert (await second.check_health()).findings

    # -- single leaves

    async def test_a_ready_leaf_has_a_place_in_its_queue(self) -> None:
        async with self.world() as w:
            leaves = (leaf("a"), leaf("b"), leaf("c", priority=1), leaf("x", queue="other"))
            await w.one.begin(*leaves, leaf("late", at_ms=w.clock.now_ms() + 50), scope("s"))
            found = await w.two.store.leaf_status([("r", one) for one in ("a", "b", "c", "x", "late", "none")])
            ahead = [None if one is None else one.ahead for one in found]
            assert ahead == [1, 2, 0, 0, None, None]
            assert found[5] is None
            # When another worker has leased the first, the others move up, and one that came back keeps its place
            (lease,) = await w.one.lease(1, queues=("default",))
            found = await w.two.store.leaf_status([("r", "c"), ("r", "a"), ("r", "b")])
            assert [one and (one.ahead, one.lease_until_ms) for one in found] == [
                (None, lease.until_ms), (0, None), (1, None),
            ]  # fmt: skip
            await w.one.commit(change(lease.node, state="ready"))
            found = await w.two.store.leaf_status([("r", "a"), ("r", "c")])
            assert [one and one.ahead for one in found] == [1, 0]

    async def test_a_leaf_that_its_rate_limit_delays_is_known_to_wait_for_an_instant(self) -> None:
        async with self.world() as w:
            window, pace = Rate(1, 1_000, "k"), Rate(2, 1_000, "p", burst=1)
            await w.one.begin(*[leaf(name, limits=(window,)) for name in "ab"], leaf("free"))
            await w.one.begin(*[leaf(name, run="s", limits=(window, pace)) for name in "cd"], run="s")
            (opened,) = await w.two.store.leaf_status([("r", "a")])
            assert opened is not None
            assert (opened.ahead, opened.limit, opened.admits_at_ms) == (0, None, None)
            start_ms = w.clock.now_ms()
            assert paths(await w.one.lease()) == ["a", "free"]
            keys = [("r", "b"), ("s", "c"), ("s", "d")]
            found = [one for one in await w.two.store.leaf_status(keys) if one is not None]
            assert [one.ahead for one in found] == [0, 0, 1]
            assert [(one.limit, one.admits_at_ms) for one in found] == [(window, start_ms + 1_000)] * 3
            w.clock.advance(1_000)
            found = [one for one in await w.two.store.leaf_status(keys) if one is not None]
            assert [one.limit for one in found] == [None, None, None]
            assert paths(await w.one.lease(queues=("default",))) == ["b"]

    async def test_leases_are_listed_with_their_end(self) -> None:
        async with self.world() as w:
            await w.one.begin(leaf("a", lease_ms=300), leaf("b", lease_ms=200), leaf("c"))
            now_ms = w.clock.now_ms()
            first, second = await w.one.lease(2)
            listed = await w.two.store.leased(10)
            assert [(one.node.path, one.until_ms) for one in listed] == [("b", now_ms + 200), ("a", now_ms + 300)]
            assert {one.node.delivery for one in listed} == {first.node.delivery}
            assert [one.node.path for one in await w.two.store.leased(1)] == ["b"]
            await w.one.commit(succeed(first), succeed(second))
            assert await w.two.store.leased(10) == []

    # -- keys

    async def test_ready_leaves_with_rate_limits_are_counted_by_their_limits(self) -> None:
        async with self.world() as w:
            rate, other = Rate(1, 1_000, "k"), Rate(5, 1_000, "o")
            limited = [leaf(name, limits=(rate,)) for name in "abc"]
            await w.one.begin(*limited, leaf("d", limits=(other,), queue="slow"), leaf("free"))
            start_ms = w.clock.now_ms()
            assert len(await w.one.lease(queues=("default",))) == 2
            default, slow = (await w.two.store.inventory()).queues
            assert (default.ready, default.limited) == (2, 2)
            (lane,) = default.lanes
            assert (lane.limits, lane.ready, lane.limit, lane.admits_at_ms) == ((rate,), 2, rate, start_ms + 1_000)
            assert (slow.ready, slow.limited, [one.limits for one in slow.lanes]) == (1, 0, [(other,)])
            w.clock.advance(1_000)
            assert [one.limited for one in (await w.two.store.inventory()).queues] == [0, 0]

    async def test_claims_in_use_are_listed_by_key(self) -> None:
        async with self.world() as w:
            await w.one.begin(leaf("a"), leaf("b"))
            held = [Claim(key=key, holders=(("r", "a"),), rev=1) for key in ("k3", "k1", "k2")]
            assert await w.one.commit(*map(create, held))
            assert [one.key for one in await w.two.store.claims(10)] == ["k1", "k2", "k3"]
            assert [one.key for one in await w.two.store.claims(1)] == ["k1"]
            assert [one.key for one in await w.two.store.claims(10, "k1")] == ["k2", "k3"]
            # When one is released, and another is only a window, they are not in use; one that is waited for is
            ends_ms = w.clock.now_ms() + 1_000
            window = structs.replace(held[1], finished=True, until_ms=ends_ms, rev=2)
            waited = structs.replace(held[2], finished=True, until_ms=ends_ms, rev=2, waiters=(("r", "b"),))
            puts = (Put(("", "k3"), 1, 0, None), Put(("", "k1"), 1, 0, window), Put(("", "k2"), 1, 0, waited))
            assert await w.one.commit(*puts)
            assert [one.key for one in await w.two.store.claims(10)] == ["k2"]
