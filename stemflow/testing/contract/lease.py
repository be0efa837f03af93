"""Promises about leases: which task is leased when and to whom, and what happens to a lost lease."""

from __future__ import annotations

import copy
import random
from itertools import pairwise

from stemflow.core import leaf as actions
from stemflow.core.table import TABLE
from stemflow.core.work import View, Work
from stemflow.model.effects import Decision
from stemflow.model.facts import Due
from stemflow.model.rates import Rate
from stemflow.model.records import HELD, READY, RUNNING, STOPPING, ErrorInfo, Header, Tally, turn_of
from stemflow.store.base import LOSS_LEASE_MS, TIMER_PAGE
from stemflow.testing.contract.world import RUN, Promises, cancel, change, create, leaf, paths, scope, succeed


class LeasePromises(Promises):
    """The transition READY x leased, timers, rate limits, and lost leases."""

    async def test_a_lease_changes_state_and_token_and_nothing_else(self) -> None:
        async with self.world() as w:
            await w.one.begin(leaf("a", delivery=4, lease_ms=700))
            (lease,) = await w.one.lease()
            assert lease.node == leaf("a", delivery=5, lease_ms=700, state=RUNNING)
            assert lease.until_ms == w.clock.at_ms + 700
            assert await w.two.node("a") == lease.node

    async def test_a_lease_is_what_the_table_says(self) -> None:
        async with self.world() as w:
            before = leaf(
                "a", attempt=2, losses=1, delivery=4, at_ms=5, due_at_ms=w.clock.at_ms + 9, error=ErrorInfo("E", "m")
            )
            await w.one.begin(before)
            (lease,) = await w.two.lease()
            cell = TABLE["leaf", READY, "leased"]
            expected = copy.copy(before)
            assert cell.action == actions.lease.__name__
            actions.lease(Work(View({}, {}, {}, {}), w.clock.at_ms), expected, None)
            assert lease.node == expected == await w.one.node("a")
            assert lease.node.state in cell.to

    async def test_the_root_of_a_run_is_leased_with_the_header(self) -> None:
        async with self.world() as w:
            big = Header(run="big", plan="p", inputs=b'{"args":["' + b"x" * 5_000 + b'"]}')
            small = Header(run="0123456789abcdef0123456789abcdef", plan="p", name="n", meta={"a": [1]})
            for header in (big, small):
                assert await w.one.commit(create(leaf("", header.run)), headers=(header,))
            leases = await w.two.lease()
            assert [lease.header for lease in leases] == [big, small]
            assert await w.two.store.header("big") == big
            await w.one.begin(leaf("a"))
            assert [lease.header for lease in await w.two.lease()] == [None]

    async def test_a_leaf_is_leased_once(self) -> None:
        async with self.world() as w:
            await w.one.begin(leaf("a"), leaf("b"))
            assert paths(await w.one.lease(1)) == ["a"]
            assert paths(await w.two.lease()) == ["b"]
            assert await w.one.lease() == ()

    async def test_what_an_exchange_commits_it_may_lease(self) -> None:
        async with self.world() as w:
            await w.one.begin(leaf("a"))
            (lease,) = await w.one.lease()
            put = change(lease.node, state=READY)
            answer = await w.one.exchange(Decision(puts=(put,)), want=w.one.want())
            assert [(one.node.path, one.node.delivery) for one in answer.leases] == [("a", 2)]

    async def test_only_ready_leaves_are_leased(self) -> None:
        async with self.world() as w:
            await w.one.begin(leaf("a", state=HELD), leaf("b"), scope("c"))
            await w.one.commit(cancel(leaf("b")))
            assert await w.two.lease() == ()

    async def test_without_a_want_nothing_is_leased(self) -> None:
        async with self.world() as w:
            await w.one.begin(leaf("a"), leaf("b", state=HELD, due_at_ms=1))
            answer = await w.one.exchange()
            assert (answer.leases, answer.timers) == ((), ())

    async def test_the_highest_priority_is_leased_first_then_the_oldest(self) -> None:
        async with self.world() as w:
            await w.one.begin(leaf("a"), leaf("b", priority=9), leaf("c"), leaf("d", priority=9))
            assert paths(await w.two.lease(3)) == ["b", "d", "a"]

    async def test_within_a_priority_leaves_are_leased_by_turn(self) -> None:
        async with self.world() as w:
            await w.one.begin(*[leaf(f"a{n}", turn=turn_of(n)) for n in range(8)])
            await w.one.commit(create(leaf("b0")), create(leaf("b1", turn=turn_of(1))))
            await w.one.commit(create(leaf("c", priority=1, turn=5)))
            assert paths(await w.two.lease(4)) == ["c", "a0", "b0", "a1"]
            assert paths(await w.two.lease()) == ["b1", "a2", "a3", "a4", "a5", "a6", "a7"]

    async def test_what_is_asked_for_by_age_is_what_became_ready_first(self) -> None:
        async with self.world() as w:
            await w.one.begin(leaf("a", turn=3), leaf("b"), leaf("c", priority=9), leaf("d", due_at_ms=1))
            await w.one.commit(*[create(leaf(f"e{n}", priority=9)) for n in range(4)])
            assert paths(await w.two.lease(3, oldest=2)) == ["a", "b", "c"]
            assert paths(await w.two.lease(2, oldest=9)) == ["e0", "e1"]
            assert paths(await w.two.lease(oldest=1)) == ["e2", "e3"]

    async def test_a_leaf_that_comes_back_keeps_its_place(self) -> None:
        async with self.world() as w:
            await w.one.begin(leaf("a"), leaf("b"))
            (lease,) = await w.one.lease(1)
            await w.one.commit(change(lease.node, state=READY))
            assert paths(await w.two.lease()) == ["a", "b"]

    async def test_only_the_wanted_queues_are_served(self) -> None:
        async with self.world() as w:
            await w.one.begin(leaf("a", queue="slow"), leaf("b"), leaf("c", queue="fast", priority=1))
            assert paths(await w.one.lease(queues=("default",))) == ["b"]
            assert paths(await w.two.lease(queues=("slow", "fast"))) == ["c", "a"]

    async def test_every_queue_is_served_where_none_is_named(self) -> None:
        async with self.world() as w:
            later = w.clock.at_ms + 500
            await w.one.begin(leaf("a", queue="slow"), leaf("b"), leaf("c", queue="fast", priority=1))
            await w.one.begin(leaf("d", run="r2", queue="late", at_ms=later), run="r2")
            answer = await w.two.ask()
            assert (paths(answer.leases), answer.next_at_ms) == (["c", "a", "b"], later)
            w.clock.advance(500)
            assert paths(await w.two.lease()) == ["d"]

    async def test_a_worker_of_one_run_leases_only_from_it(self) -> None:
        async with self.world() as w:
            await w.one.begin(leaf("a"))
            await w.one.begin(leaf("b", "other"), run="other")
            assert paths(await w.one.lease(only_run="other")) == ["b"]
            assert paths(await w.one.lease()) == ["a"]

    async def test_a_delayed_leaf_is_leased_at_its_instant_and_not_before(self) -> None:
        async with self.world() as w:
            at_ms = w.clock.at_ms + 50
            await w.one.begin(leaf("late", at_ms=at_ms + 9), leaf("a", at_ms=at_ms))
            w.clock.advance(49)
            answer = await w.two.ask()
            assert (answer.leases, answer.next_at_ms) == ((), at_ms)
            w.clock.advance(1)
            answer = await w.two.ask()
            assert (paths(answer.leases), answer.next_at_ms) == (["a"], at_ms + 9)

    async def test_with_nothing_to_wait_for_there_is_no_next_instant(self) -> None:
        async with self.world() as w:
            await w.one.begin(leaf("a"))
            assert (await w.one.ask()).next_at_ms is None

    # -- timers

    async def test_a_timer_is_returned_when_due_and_again_until_it_is_moved(self) -> None:
        async with self.world() as w:
            due = Due((RUN, "a"), w.clock.at_ms + 5)
            await w.one.begin(leaf("a", state=HELD, due_at_ms=due.due_at_ms))
            answer = await w.two.ask(0)
            assert (answer.timers, answer.next_at_ms) == ((), due.due_at_ms)
            w.clock.advance(5)
            for user in (w.one, w.two, w.one):
                assert (await user.ask(0)).timers == (due,)
            moved = change(await w.one.node("a"), due_at_ms=w.clock.at_ms + 1)
            assert await w.one.commit(moved)
            assert (await w.two.ask(0)).timers == ()

    async def test_timers_end_with_what_they_were_set_for(self) -> None:
        async with self.world() as w:
            now_ms = w.clock.at_ms
            await w.one.begin(leaf("a", due_at_ms=now_ms + 5), leaf("b", due_at_ms=now_ms), leaf("c", due_at_ms=now_ms))
            await w.one.commit(cancel(leaf("b", due_at_ms=now_ms)))
            # A leaf that has expired is not leased, and one that was leased does not expire; a scope that runs does.
            assert [lease.node.path for lease in await w.one.lease()] == ["a"]
            w.clock.advance(5)
            assert [due.key[1] for due in (await w.two.ask(0)).timers] == ["c"]
            await w.one.commit(cancel(leaf("c", due_at_ms=now_ms)))
            await w.one.begin(scope("s", due_at_ms=now_ms), run="other")
            await w.one.commit(create(scope("s", due_at_ms=now_ms)))
            assert [due.key[1] for due in (await w.two.ask(0, only_run=RUN)).timers] == ["s"]

    async def test_a_timer_that_was_set_and_dropped_in_one_exchange_is_dropped(self) -> None:
        async with self.world() as w:
            await w.one.begin()
            timed = scope("s", due_at_ms=w.clock.at_ms)
            set_it, drop_it = Decision(puts=(create(timed),)), Decision(puts=(change(timed, due_at_ms=None),))
            assert (await w.one.exchange(set_it, drop_it)).committed == (True, True)
            w.clock.advance(1)
            assert (await w.two.ask(0)).timers == ()

    async def test_many_timers_come_in_pages(self) -> None:
        async with self.world() as w:
            now_ms = w.clock.at_ms
            await w.one.begin(*(leaf(f"[{i}]", state=HELD, due_at_ms=now_ms) for i in range(TIMER_PAGE + 1)))
            answer = await w.two.ask(0)
            assert (len(answer.timers), answer.next_at_ms) == (TIMER_PAGE, now_ms)

    # -- rate limits

    async def test_no_window_holds_more_starts_than_its_limit(self) -> None:
        async with self.world() as w:
            limits = (Rate(3, 100, "api"), Rate(5, 1_000, "api"))
            await w.one.begin(*(leaf(f"[{i}]", limits=limits) for i in range(60)))
            steps, starts = random.Random(7), list[int]()
            while len(starts) < 20:
                for user in (w.one, w.two):
                    starts += [w.clock.at_ms] * len(await user.lease(2))
                w.clock.advance(steps.randint(1, 80))
            for limit in limits:
                for first, beyond in zip(starts, starts[limit.limit :], strict=False):
                    assert beyond - first >= limit.per_ms
            assert all(before <= after for before, after in pairwise(starts))

    async def test_a_limited_leaf_starts_as_soon_as_its_window_admits_it(self) -> None:
        async with self.world() as w:
            await w.one.begin(*(leaf(f"[{i}]", limits=(Rate(2, 100, "k"),)) for i in range(5)))
            first = await w.one.ask()
            assert (paths(first.leases), first.next_at_ms) == (["[0]", "[1]"], w.clock.at_ms + 100)
            w.clock.advance(99)
            assert (await w.two.ask()).leases == ()
            w.clock.advance(1)
            assert paths(await w.two.lease()) == ["[2]", "[3]"]

    async def test_tasks_that_share_a_key_share_its_window(self) -> None:
        async with self.world() as w:
            strict, loose = (Rate(1, 100, "k"),), (Rate(1, 100, "k"), Rate(9, 1_000, "other"))
            await w.one.begin(leaf("a", limits=strict), leaf("b", limits=loose))
            assert paths(await w.one.lease()) == ["a"]
            w.clock.advance(100)
            assert paths(await w.two.lease()) == ["b"]

    async def test_a_start_counts_for_every_limit_of_its_key_at_once(self) -> None:
        async with self.world() as w:
            one, two = (Rate(1, 100, "k"),), (Rate(2, 100, "k"),)
            await w.one.begin(leaf("a", limits=one), leaf("b", limits=two), leaf("c", limits=two))
            assert paths(await w.one.lease()) == ["a", "b"]

    async def test_a_limited_lane_holds_nobody_else_up(self) -> None:
        async with self.world() as w:
            limited = (Rate(1, 100, "k"),)
            await w.one.begin(leaf("a", limits=limited, priority=9), leaf("b", limits=limited, priority=9), leaf("c"))
            assert paths(await w.two.lease()) == ["a", "c"]

    # -- loss

    async def test_a_lease_is_lost_at_its_end_and_not_before(self) -> None:
        async with self.world() as w:
            await w.one.begin(leaf("a", lease_ms=100))
            await w.one.lease()
            w.clock.advance(99)
            assert await w.two.store.take_expired("two", 10) == []
            now_ms = w.clock.advance(1)
            (lost,) = await w.two.store.take_expired("two", 10)
            assert (lost.node.state, lost.node.delivery, lost.until_ms) == (RUNNING, 2, now_ms + LOSS_LEASE_MS)
            assert await w.one.node("a") == lost.node

    async def test_the_old_worker_is_refused_from_the_loss_on(self) -> None:
        async with self.world() as w:
            await w.one.begin(leaf("a", lease_ms=100))
            (lease,) = await w.one.lease()
            w.clock.advance(100)
            (lost,) = await w.two.store.take_expired("two", 10)
            assert not await w.one.commit(succeed(lease))
            assert await w.two.commit(change(lost.node, state=READY, losses=1))
            assert not await w.one.commit(succeed(lease))
            assert [lease.node.delivery for lease in await w.two.lease()] == [3]

    async def test_a_worker_that_is_late_but_not_yet_replaced_may_still_report(self) -> None:
        async with self.world() as w:
            await w.one.begin(leaf("a", lease_ms=100))
            (lease,) = await w.one.lease()
            w.clock.advance(5_000)
            assert await w.one.commit(succeed(lease))
            assert await w.two.store.take_expired("two", 10) == []

    async def test_the_lease_of_a_sweeper_that_dies_is_lost_in_turn(self) -> None:
        async with self.world() as w:
            await w.one.begin(leaf("a", lease_ms=100))
            await w.one.lease()
            w.clock.advance(100)
            await w.two.store.take_expired("two", 10)
            assert await w.one.store.take_expired("one", 10) == []
            w.clock.advance(LOSS_LEASE_MS)
            assert [lease.node.delivery for lease in await w.one.store.take_expired("one", 10)] == [3]

    async def test_lost_leases_come_in_pages(self) -> None:
        async with self.world() as w:
            await w.one.begin(*(leaf(f"[{i}]", lease_ms=100) for i in range(5)))
            await w.one.lease()
            w.clock.advance(100)
            pages = [len(await w.two.store.take_expired("two", 2)) for _ in range(3)]
            assert pages == [2, 2, 1]

    async def test_lost_leases_of_one_run_are_taken_over_alone(self) -> None:
        async with self.world() as w:
            await w.one.begin(leaf("a", lease_ms=100), leaf("b", lease_ms=100))
            await w.one.begin(leaf("c", run="other", lease_ms=100), run="other")
            await w.one.lease()
            w.clock.advance(100)
            assert await w.two.store.take_expired("two", 10, "another") == []
            assert paths(await w.two.store.take_expired("two", 10, "other")) == ["c"]
            assert paths(await w.two.store.take_expired("two", 1, RUN)) == ["a"]
            assert paths(await w.two.store.take_expired("two", 10)) == ["b"]

    async def test_a_leaf_that_became_a_scope_holds_no_lease(self) -> None:
        async with self.world() as w:
            await w.one.begin(leaf("a", lease_ms=100))
            (lease,) = await w.one.lease()
            assert await w.one.commit(change(lease.node, tally=Tally(1)))
            w.clock.advance(100)
            assert await w.two.store.take_expired("two", 10) == []

    async def test_a_renewed_lease_is_not_lost(self) -> None:
        async with self.world() as w:
            await w.one.begin(leaf("a", lease_ms=100))
            (lease,) = await w.one.lease()
            w.clock.advance(90)
            renewer = w.one.store.renewer()
            try:
                for _ in range(2):
                    renewed = renewer.renew([(lease.node.key, 1, 100)])
                    assert (renewed.gone, renewed.stopping) == ((), ())
            finally:
                renewer.close()
            w.clock.advance(99)
            assert await w.two.store.take_expired("two", 10) == []
            w.clock.advance(1)
            assert paths(await w.two.store.take_expired("two", 10)) == ["a"]

    async def test_a_renewal_returns_lost_leases_and_nodes_that_must_stop(self) -> None:
        async with self.world() as w:
            await w.one.begin(*(leaf(path) for path in "abc"))
            a, b, c = await w.one.lease()
            await w.two.commit(succeed(a))
            await w.two.commit(change(b.node, state=STOPPING, kill=True))
            await w.two.commit(change(c.node, state=STOPPING))
            renewer = w.one.store.renewer()
            try:
                keys = [(RUN, path) for path in "abc"]
                found = renewer.renew([*((key, 1, 100) for key in keys), (keys[1], 7, 100)])
            finally:
                renewer.close()
            assert found.gone == ((keys[0], 1), (keys[1], 7))
            assert found.stopping == ((keys[1], True), (keys[2], False))
