"""Promises about waiting: for the end of a run, for any change, and about the store's clock."""

from __future__ import annotations

import asyncio

from stemflow.model.effects import Decision, RunEnd
from stemflow.model.records import HELD, SUCCEEDED
from stemflow.testing.contract.world import RUN, Promises, User, change, leaf

_PATIENCE_S = 10


async def end(user: User, run: str = RUN) -> None:
    """End a run."""
    root = await user.node("", run)
    assert await user.commit(change(root, state=SUCCEEDED), ended=(RunEnd(run, 60_000),))


class WaitPromises(Promises):
    """Waiting callers are woken, and no others."""

    async def test_a_watch_is_resolved_when_the_run_ends(self) -> None:
        async with self.world() as w:
            await w.one.begin(leaf("a"))
            await w.one.begin(run="other")
            ended, other = w.one.store.watch(RUN), w.one.store.watch("other")
            await w.one.lease()
            assert not ended.done()
            await end(w.one)
            notified = await asyncio.wait_for(ended, _PATIENCE_S)
            assert notified is None or notified == await w.two.node("")
            assert not other.done()
            w.one.store.unwatch("other", other)

    async def test_a_watch_is_resolved_by_an_end_that_another_user_commits(self) -> None:
        async with self.world() as w:
            await w.one.begin(reply_to=w.one.store.address)
            ended = w.one.store.watch(RUN)
            await end(w.two)
            await asyncio.wait_for(ended, _PATIENCE_S)

    async def test_watching_a_run_that_has_ended_is_answered_at_once(self) -> None:
        async with self.world() as w:
            await w.one.begin()
            await end(w.one)
            await asyncio.wait_for(w.two.store.watch(RUN), _PATIENCE_S)
            assert w.two.store.watching == 0

    async def test_a_run_may_be_watched_before_it_begins(self) -> None:
        async with self.world() as w:
            ended = w.one.store.watch(RUN)
            await w.two.begin()
            assert not ended.done()
            await end(w.two)
            await asyncio.wait_for(ended, _PATIENCE_S)

    async def test_watches_that_are_dropped_or_resolved_are_forgotten(self) -> None:
        async with self.world() as w:
            await w.one.begin()
            first, second = w.one.store.watch(RUN), w.one.store.watch(RUN)
            assert w.one.store.watching == 2
            w.one.store.unwatch(RUN, first)
            assert w.one.store.watching == 1
            await end(w.one)
            await asyncio.wait_for(second, _PATIENCE_S)
            w.one.store.unwatch(RUN, second)
            assert w.one.store.watching == 0
            assert not first.done()

    async def test_a_waiting_caller_is_woken_by_a_commit_of_another_user(self) -> None:
        async with self.world() as w:
            await w.one.begin()
            seen = await w.one.store.wait_for_change(0, 0)
            waiting = asyncio.ensure_future(w.one.store.wait_for_change(seen, None))
            await asyncio.sleep(0)
            assert not waiting.done()
            await w.two.begin(run="other")
            await asyncio.wait_for(waiting, _PATIENCE_S)

    async def test_a_commit_between_two_waits_ends_the_second_at_once(self) -> None:
        async with self.world() as w:
            seen = await w.one.store.wait_for_change(0, 0)
            await w.two.begin()
            await asyncio.wait_for(w.one.store.wait_for_change(seen, None), _PATIENCE_S)

    async def test_a_caller_that_wanted_more_is_woken_by_work_that_another_adds(self) -> None:
        async with self.world() as w:
            assert (await w.one.ask()).leases == ()
            seen = await w.one.store.wait_for_work(w.one.name, 0, 0)
            waiting = asyncio.ensure_future(w.one.store.wait_for_work(w.one.name, seen, None))
            await asyncio.sleep(0)
            assert not waiting.done()
            await w.two.begin(leaf("a"))
            await asyncio.wait_for(waiting, _PATIENCE_S)
            assert [lease.node.path for lease in await w.one.lease()] == ["a"]

    async def test_a_caller_that_wanted_more_is_woken_by_what_becomes_due_sooner(self) -> None:
        async with self.world() as w:
            for delayed in (leaf("a", at_ms=w.clock.at_ms + 50), leaf("b", state=HELD, due_at_ms=w.clock.at_ms + 40)):
                assert (await w.one.ask()).next_at_ms in (None, w.clock.at_ms + 50)
                seen = await w.one.store.wait_for_work(w.one.name, 0, 0)
                waiting = asyncio.ensure_future(w.one.store.wait_for_work(w.one.name, seen, None))
                await w.two.begin(delayed, run=f"run-{delayed.state}")
                await asyncio.wait_for(waiting, _PATIENCE_S)

    async def test_work_that_is_added_between_exchange_and_wait_ends_the_wait(self) -> None:
        async with self.world() as w:
            seen = await w.one.store.wait_for_work(w.one.name, 0, 0)
            assert (await w.one.ask(queues=("default", "slow"))).leases == ()
            await w.two.begin(leaf("a"))
            await asyncio.wait_for(w.one.store.wait_for_work(w.one.name, seen, None), _PATIENCE_S)

    async def test_a_follower_of_one_run_is_woken_by_its_changes(self) -> None:
        async with self.world() as w:
            await w.one.begin(leaf("a"))
            seen = await w.one.store.wait_for_change(0, 0, RUN)
            waiting = asyncio.ensure_future(w.one.store.wait_for_change(seen, None, RUN))
            await asyncio.sleep(0)
            await w.two.lease()
            await end(w.two)
            await asyncio.wait_for(waiting, _PATIENCE_S)

    async def test_waiting_ends_with_its_time(self) -> None:
        async with self.world() as w:
            await w.one.begin()
            seen = await w.one.store.wait_for_change(0, 0)
            await asyncio.wait_for(w.one.store.wait_for_change(seen, 1), _PATIENCE_S)

    async def test_asking_in_vain_is_not_a_change(self) -> None:
        async with self.world() as w:
            await w.one.begin()
            seen = await w.one.store.wait_for_change(0, 0)
            waiting = asyncio.ensure_future(w.one.store.wait_for_change(seen, None))
            for user in (w.one, w.two):
                assert (await user.ask()).leases == ()
                assert (await user.exchange(Decision())).committed == (True,)
                await user.store.take_expired(user.name, 10)
            # Longer than a store may take to notify of a change.
            await w.two.store.wait_for_change(await w.two.store.wait_for_change(0, 0), 40)
            assert not waiting.done()
            waiting.cancel()

    async def test_the_clock_never_runs_backwards(self) -> None:
        async with self.world() as w:
            before = w.one.store.now_ms()
            w.clock.advance(-1_000)
            assert w.one.store.now_ms() == before
            assert (await w.one.ask()).now_ms == before
