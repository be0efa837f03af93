"""Promises about the inventory of a store: what is in it, and what is stuck."""

from __future__ import annotations

from stemflow.model.effects import DeadLetter, RunEnd
from stemflow.model.records import Node
from stemflow.store.base import Store
from stemflow.store.health import Inventory
from stemflow.testing.contract.world import Promises, cancel, change, leaf, scope, succeed


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
