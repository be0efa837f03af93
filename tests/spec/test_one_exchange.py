"""Decisions that are made for one exchange: a later one may rest on an earlier one, and ends with it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from msgspec import structs

from stemflow import Canvas, Stemflow, TaskRegistry
from stemflow.model.effects import Decision
from stemflow.model.facts import Ended, Fact, Ok
from stemflow.model.signature import StepsSig
from stemflow.runtime.commit.ahead import Ahead
from stemflow.runtime.commit.batching import batches_of
from stemflow.runtime.worker.batch_decider import BatchDecider
from stemflow.store.base import Exchange, Lease, Request, Want
from tests.spec.conftest import OpenApp


class Process:
    """A worker process of which every step is taken by hand."""

    def __init__(self, app: Stemflow, name: str) -> None:
        self.app, self.name, self.decider, self.sequence = app, name, app.decider, 0

    async def exchange(self, decisions: Sequence[Decision] = (), limit: int | None = None) -> Exchange:
        self.sequence += 1
        want = None if limit is None else Want(owner=self.name, limit=limit)
        return await self.app.store.exchange(Request(self.name, self.sequence), decisions, want)

    async def decided(self, facts: Sequence[Fact]) -> list[tuple[list[Fact], Decision]]:
        """Decide as the exchange loop does for one exchange."""
        ahead, batches = Ahead(), BatchDecider(self.decider, list, list, _fail)
        groups = batches_of(facts, self.decider.records, self.decider.contention.runs())
        return [one for _, batch in groups for one in await batches.decide(batch, ahead)]

    async def commit(self, facts: Sequence[Fact]) -> None:
        """Decide and commit, again as long as it is stale."""
        for _ in range(5):
            decided = await self.decided(facts)
            if all(await self.send(decided)):
                return
        raise AssertionError("stale again and again")

    async def send(self, decided: Sequence[tuple[list[Fact], Decision]]) -> tuple[bool, ...]:
        answer = await self.exchange([decision for _, decision in decided])
        for (batch, decision), committed in zip(decided, answer.committed, strict=True):
            if committed:
                self.decider.committed(decision)
            else:
                self.decider.stale(decision, batch, answer.current)
        return answer.committed


def _fail(error: BaseException) -> None:
    raise error


def ended(lease: Lease) -> Ended:
    return Ended(lease.node.key, lease.node.delivery, Ok(b"1"), 1, "w")


def in_room(work: Any) -> list[Any]:
    """Members of a group whose ends change the record of a key."""
    return [work.s(n).with_concurrency("room", limit=50) for n in range(20)]


async def in_one_exchange(
    open_app: OpenApp, members: Any, ended_before: int = 0
) -> tuple[Any, Process, Process, list[Lease], list[Fact]]:
    """A run whose scope has just stopped being hot for `one`, which has an inbox of it to decide, and all leases."""
    one, two = [Process(await open_app(worker=False), name) for name in ("one", "two")]
    run = await one.app.submit(members)
    leases = list((await one.exchange(limit=40)).leases)
    for lease in leases:
        one.decider.remember_lease(lease)
    two.decider.contention._has_worker = one.decider.contention._has_worker = True
    two.decider.contention._seen([(run.id, "")])
    await two.commit([ended(leases[1])])
    two.decider.contention._until_ms.clear()
    for lease in leases[2 : 2 + ended_before]:
        await two.commit([ended(lease)])
    inbox = [fact for found in (await one.exchange(limit=0)).inbox for fact in one.decider.inbox_facts(found)]
    assert inbox
    one.decider.contention._until_ms = {(run.id, ""): one.app.store.now_ms() - 1}
    return run, one, two, leases, inbox


@pytest.fixture
def work(registry: TaskRegistry) -> Any:
    @registry.task("work")
    async def work(n: int) -> int:
        return n

    return work


async def test_no_end_of_a_member_is_lost_when_the_decision_before_it_is_refused(open_app: OpenApp, work: Any) -> None:
    # Given an inbox that is decided after an end of the same group, which changes the record of a key, too
    run, one, two, leases, inbox = await in_one_exchange(open_app, Canvas.group(*in_room(work)))
    decided = await one.decided([ended(leases[0]), *inbox])
    assert len(decided) == 2
    # When another process ends a third member before they are committed
    await two.commit([ended(leases[2])])
    assert await one.send(decided) == (False, False)
    one.decider.contention._has_worker = two.decider.contention._has_worker = False  # nothing is posted any more
    for facts, _ in decided:
        await one.commit(facts)
    for lease in leases[3:]:
        await two.commit([ended(lease)])
    # Then every end has counted
    assert (await run.root()).state == "succeeded"


async def test_a_gate_sees_what_the_decision_before_it_leaves(open_app: OpenApp, work: Any) -> None:
    # Given an inbox whose decision closes the run and evaluates its outputs, after the end of the last other member
    steps = [structs.replace(one, name=f"m{n}") for n, one in enumerate(in_room(work))]
    outputs = {"first": "${{ steps.m0.output }}", "second": "${{ steps.m1.output }}"}
    whole = StepsSig(steps=tuple(steps), outputs=outputs)
    run, one, _, leases, inbox = await in_one_exchange(open_app, whole, ended_before=18)
    # When both are committed by one exchange
    assert await one.send(await one.decided([ended(leases[0]), *inbox])) == (True, True)
    # Then the outputs have the result that was not stored yet when they were evaluated
    assert (await run.wait()).value == {"first": 1, "second": 1}
