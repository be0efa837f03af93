"""Promises about tasks: a worker leases only those that it has, and is notified only of those."""

from __future__ import annotations

import asyncio
from typing import Any, Final

from msgspec import structs

from stemflow.model.effects import Decision
from stemflow.model.facts import Due
from stemflow.model.rates import Rate
from stemflow.model.records import READY, RUNNING, Header
from stemflow.testing.contract.world import RUN, Promises, User, change, create, leaf, paths, scope

_PATIENCE_S: Final = 10.0


async def begin(user: User, run: str = RUN, **tasks: Any) -> None:
    """Create a run with a leaf for each keyword: its path, and its task or (task, fields)."""
    puts = [create(scope(run=run))]
    for path, given in tasks.items():
        task, fields = given if isinstance(given, tuple) else (given, {})
        puts.append(structs.replace(create(leaf(path, run, **fields)), task=task))
    answer = await user.exchange(Decision(puts=tuple(puts), headers=(Header(run=run, plan="p"),)))
    assert answer.committed == (True,)


class TaskPromises(Promises):
    """`Want.tasks` and `Put.task`."""

    async def test_a_worker_leases_only_tasks_that_it_has(self) -> None:
        async with self.world() as w:
            await begin(w.one, a="mail", b="pay", c="", d="mail", e="pay:card")
            assert paths(await w.two.lease(tasks=frozenset({"pay"}))) == ["b", "c"]
            assert paths(await w.two.lease(tasks=frozenset())) == []
            assert paths(await w.two.lease(1, tasks=frozenset({"mail", "pay"}))) == ["a"]
            assert paths(await w.one.lease()) == ["d", "e"]  # without `tasks`: all

    async def test_queues_and_tasks_are_both_asked(self) -> None:
        async with self.world() as w:
            await begin(w.one, a=("mail", {"queue": "slow"}), b="mail", c=("pay", {"queue": "slow"}))
            wanted = frozenset({"mail"})
            assert paths(await w.two.lease(queues=("slow",), tasks=wanted)) == ["a"]
            assert paths(await w.two.lease(queues=("other",), tasks=wanted)) == []
            assert paths(await w.two.lease(queues=("default",))) == ["b"]

    async def test_priority_and_order_hold_over_tasks(self) -> None:
        async with self.world() as w:
            await begin(w.one, a="x", b="y", c=("y", {"priority": 5}), d=("x", {"priority": 5}), e="x")
            leases = await w.two.lease(tasks=frozenset({"x", "y"}))
            assert sorted(paths(leases)[:2]) == ["c", "d"]
            assert paths(leases)[2:] == ["a", "b", "e"]

    async def test_delayed_and_limited_leaves_keep_their_task(self) -> None:
        async with self.world() as w:
            rate = Rate(limit=1, per_ms=100, key="k")
            soon, later = w.clock.at_ms + 50, w.clock.at_ms + 90
            await begin(
                w.one, a=("mail", {"at_ms": later}), b=("pay", {"at_ms": soon}), c=("mail", {"limits": (rate,)}),
                d=("mail", {"limits": (rate,)}),
            )  # fmt: skip
            answer = await w.two.ask(tasks=frozenset({"pay"}))
            assert (answer.leases, answer.next_at_ms) == ((), soon)
            assert paths(await w.two.lease(tasks=frozenset({"mail"}))) == ["c"]
            w.clock.advance(50)
            assert paths(await w.two.lease(tasks=frozenset({"mail"}))) == []
            assert paths(await w.two.lease(tasks=frozenset({"pay"}))) == ["b"]
            w.clock.advance(100)
            assert sorted(paths(await w.two.lease(tasks=frozenset({"mail"})))) == ["a", "d"]

    async def test_nothing_is_leased_of_queues_that_a_caller_leaves_out(self) -> None:
        async with self.world() as w:
            later = w.clock.at_ms + 100
            limits = (Rate(limit=9, per_ms=100, key="k"),)
            await begin(
                w.one, a=("mail", {"queue": "slow"}), b=("mail", {"queue": "slow", "limits": limits}), c="mail", d="",
                e=("mail", {"queue": "slow", "at_ms": later}),
            )  # fmt: skip
            for wanted in ({}, {"queues": ("default", "slow")}, {"tasks": frozenset({"mail"})}):
                answer = await w.two.ask(limit=10, without=("slow", "other"), **wanted)
                assert "slow" not in [one.node.queue for one in answer.leases]
                assert answer.next_at_ms is None
            assert paths(await w.two.lease(without=("default",))) == ["a", "b"]

    async def test_a_leaf_that_comes_back_keeps_its_task(self) -> None:
        async with self.world() as w:
            await begin(w.one, a="mail")
            (lease,) = await w.one.lease()
            assert await w.one.commit(structs.replace(change(lease.node, state=READY), task="mail"))
            assert paths(await w.two.lease(tasks=frozenset({"pay"}))) == []
            assert paths(await w.two.lease(tasks=frozenset({"mail"}))) == ["a"]

    async def test_a_submission_leases_for_its_own_worker_only_what_that_has(self) -> None:
        async with self.world() as w:
            for number, (tasks, leased) in enumerate((("pay", []), ("mail", ["a"]))):
                run = f"run-{number}"
                puts = (create(scope(run=run)), structs.replace(create(leaf("a", run)), task="mail"))
                decision = Decision(puts=puts, headers=(Header(run=run, plan="p"),))
                answer = await w.one.exchange(decision, want=w.one.want(1, tasks=frozenset({tasks})))
                assert paths(answer.leases) == leased

    async def test_timers_are_for_every_worker(self) -> None:
        async with self.world() as w:
            await begin(w.one, a=("mail", {"due_at_ms": w.clock.at_ms + 10}))
            w.clock.advance(10)
            assert (await w.two.ask(tasks=frozenset({"pay"}))).timers == (Due((RUN, "a"), w.clock.at_ms),)

    async def test_a_worker_of_the_task_is_woken_though_others_wait_longer(self) -> None:
        async with self.world() as w:
            # Given a worker that lacks the task and waits, and after it one that has it
            assert (await w.two.ask(tasks=frozenset({"pay"}))).leases == ()
            w.clock.advance(5)
            assert (await w.one.ask(tasks=frozenset({"mail"}))).leases == ()
            seen = await w.one.store.wait_for_work(w.one.name, 0, 0)
            waiting = asyncio.ensure_future(w.one.store.wait_for_work(w.one.name, seen, None))
            await asyncio.sleep(0)
            await begin(User(w.two.store, "three"), a="mail")
            await asyncio.wait_for(waiting, _PATIENCE_S)
            assert paths(await w.one.lease(tasks=frozenset({"mail"}))) == ["a"]

    async def test_tasks_that_wait_are_named_and_counted_by_their_queue(self) -> None:
        async with self.world() as w:
            at_ms = w.clock.at_ms + 50
            limits = (Rate(limit=1, per_ms=100, key="k"),)
            await begin(
                w.one, a="mail", b=("pay", {"queue": "slow"}), c=("pay", {"at_ms": at_ms}), d="",
                e=("call", {"limits": limits}),
            )  # fmt: skip
            for user in (w.one, w.two):
                assert sorted(await user.store.waiting_tasks()) == [
                    ("default", "call"), ("default", "mail"), ("default", "pay"), ("slow", "pay"),
                ]  # fmt: skip
                counted = {one.queue: (one.ready, one.delayed) for one in (await user.store.inventory()).queues}
                assert counted == {"default": (3, 1), "slow": (1, 0)}
            (lease, *_) = await w.one.lease(1)
            assert (lease.node.path, lease.node.state) == ("a", RUNNING)
