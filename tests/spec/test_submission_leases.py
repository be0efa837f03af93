"""What is submitted next to an embedded worker begins with the commit that stores it: one exchange leases it, too."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import pytest

from stemflow import Stemflow, TaskRegistry
from stemflow.model.effects import Decision
from stemflow.model.facts import Stop
from stemflow.runtime.commit.committer import Committer, Piggyback
from stemflow.store.base import Exchange, Request, StoreUnavailable, Want
from stemflow.store.memory.store import MemoryStore
from stemflow.testing.simulation.virtual_loop import VirtualClock

registry = TaskRegistry()
at_once: list[int] = []


@registry.task("same")
async def same(value: int) -> int:
    return value


@registry.task("slow")
async def slow(value: int) -> int:
    at_once.append(at_once[-1] + 1)
    await asyncio.sleep(1)
    at_once.append(at_once[-1] - 1)
    return value


class Counting(MemoryStore):
    """Notes what each exchange asked for; `after` comes between the commit and its answer."""

    def __init__(self, clock: VirtualClock) -> None:
        super().__init__("memory:rides", clock)
        self.wants: list[Want | None] = []
        self.made: list[tuple[int, int]] = []
        """(decisions, leases) of each exchange."""
        self.after: Callable[[], Any] | None = None

    async def exchange(self, request: Request, decisions: Sequence[Decision], want: Want | None) -> Exchange:
        self.wants.append(want)
        answer = await super().exchange(request, decisions, want)
        self.made.append((len(decisions), len(answer.leases)))
        after, self.after = self.after, None
        if after is not None:
            await after()
        return answer


@pytest.fixture
async def app(clock: VirtualClock) -> AsyncIterator[Stemflow]:
    at_once[:] = [0]
    async with Stemflow("memory:", registry, store=Counting(clock), clock=clock, concurrency=2) as opened:
        await asyncio.sleep(0.1)
        yield opened


def store_of(app: Stemflow) -> Counting:
    assert isinstance(app.store, Counting)
    return app.store


async def test_a_task_on_an_idle_worker_is_leased_by_the_exchange_that_submits_it(app: Stemflow) -> None:
    store_of(app).made.clear()
    assert await app.run(same.s(7)) == 7
    # An idle worker may look between the two, depending on the order of callbacks; it then finds nothing.
    assert store_of(app).made[0] == (1, 1)
    assert [made for made in store_of(app).made if made != (0, 0)] == [(1, 1), (1, 0)]


async def test_no_more_tasks_run_at_once_than_the_worker_has_slots(app: Stemflow) -> None:
    handles = [await app.submit(slow.s(i)) for i in range(3)]
    handles += await app.submit_many([slow.s(i) for i in range(3, 6)])
    assert [(await handle.wait()).value for handle in handles] == [0, 1, 2, 3, 4, 5]
    assert max(at_once) == 2


async def test_a_task_whose_submitter_is_cancelled_before_the_answer_still_runs_at_once(app: Stemflow) -> None:
    # Given a store whose answer to the submission takes a second
    store_of(app).after = lambda: asyncio.sleep(1)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(app.submit(same.s(7), run_id="once"), 0.5)
    # Then what it leased is started all the same, and not lost until the lease runs out
    result = await app.wait_for_task("once", timeout=2)
    assert result.value == 7


async def test_slots_that_a_submission_has_asked_for_are_free_again_when_it_fails(app: Stemflow) -> None:
    async def broken() -> None:
        raise StoreUnavailable("the store is gone")

    store_of(app).after = broken
    with pytest.raises(StoreUnavailable):
        await app.submit(slow.s(0))
    handles = [await app.submit(slow.s(i)) for i in range(2)]
    await asyncio.sleep(0.5)
    assert at_once[-1] == 2
    assert [(await handle.wait()).value for handle in handles] == [0, 1]


async def test_slots_that_a_submission_did_not_need_serve_what_came_meanwhile(
    app: Stemflow, clock: VirtualClock
) -> None:
    # Given a submission that has asked for both slots and waits for its answer, and another task that is ready
    store_of(app).after = lambda: asyncio.sleep(1)
    submitted = asyncio.create_task(app.submit(slow.s(0)))
    async with Stemflow("memory:", registry, store=app.store, clock=clock, worker=False) as other:
        await asyncio.sleep(0.5)
        await other.submit(slow.s(1))
        await asyncio.sleep(0.4)
        assert at_once[-1] == 0
        # Then both run as soon as it has come
        await submitted
        await asyncio.sleep(0.01)
        assert at_once[-1] == 2


async def test_an_exchange_that_asks_for_no_leases_says_when_it_fails(app: Stemflow) -> None:
    answers: list[Exchange | None] = []

    async def refuse(*asked: Any) -> Exchange:
        raise StoreUnavailable("gone")

    app.store.exchange = refuse  # type: ignore[method-assign]
    committer = Committer(app.store, app.decider, "other", lambda *_: None, lambda: Piggyback(None, answers.append))
    with pytest.raises(StoreUnavailable):
        await committer.commit([Stop(("no such run", ""))])
    assert answers == [None]
