"""Many processes end the members of one scope at once: how often they decide, in counts. Times are in `benchmarks/`."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from stemflow import Canvas, SigningKeys, Stemflow, TaskRegistry
from stemflow.model.effects import Decision
from stemflow.model.facts import End, Ended, Ok, Post, Stop
from stemflow.store.base import Request
from tests.spec.conftest import OpenApp

ENGINES, SLOTS = 4, 25
AT_ONCE = ENGINES * SLOTS


class Tries:
    """Decisions of all engines, those that were stale, and reports that were decided."""

    def __init__(self, apps: Sequence[Stemflow]) -> None:
        self.decisions = self.stale = self.reports = 0
        for app in apps:
            assert app.service is not None
            self._count(app.service.exchange_loop)

    def _count(self, exchange_loop: Any) -> None:
        settle = exchange_loop.settle

        def counted(batch: Any, decision: Any, committed: bool, answer: Any) -> None:
            self.decisions += 1
            self.stale += not committed
            self.reports += sum(isinstance(fact, Ended) for fact in batch)
            settle(batch, decision, committed, answer)

        exchange_loop.settle = counted

    @property
    def a_commit(self) -> float:
        return self.decisions / (self.decisions - self.stale)


@pytest.fixture
def one(registry: TaskRegistry) -> Any:
    @registry.task("one")
    async def one(x: int = 0) -> int:
        await asyncio.sleep(0.5)
        return x

    return one


@pytest.fixture
async def crowd(open_app: OpenApp) -> list[Stemflow]:
    """Workers that end what they have leased at the same instants."""
    return [await open_app(concurrency=SLOTS) for _ in range(ENGINES)]


async def test_workers_that_end_members_of_one_group_at_once_decide_hardly_anything_twice(
    crowd: list[Stemflow], open_app: OpenApp, one: Any
) -> None:
    # Given a wide group, and more workers than one
    tries, producer = Tries(crowd), await open_app(worker=False)
    # When all of them end members of it at the same instants
    handle = await producer.submit(Canvas.group([one.s(number) for number in range(8 * AT_ONCE)]))
    result = await handle.wait()
    # Then it ends, with every result in its place
    assert result.value == list(range(8 * AT_ONCE))
    assert tries.a_commit <= 1.2
    assert tries.reports <= 1.2 * 8 * AT_ONCE


async def test_a_map_opens_its_window_and_a_chord_its_body_when_ends_were_posted(
    crowd: list[Stemflow], open_app: OpenApp, registry: TaskRegistry, one: Any
) -> None:
    @registry.task("total")
    async def total(results: list[int]) -> int:
        return sum(results)

    producer, window = await open_app(worker=False), AT_ONCE // 2
    members = Canvas.map(one.s(), range(4 * AT_ONCE), concurrency=window)
    result = await (await producer.submit(Canvas.chain([members, total.s()]))).wait()
    assert result.value == sum(range(4 * AT_ONCE))
    header = [one.s(number) for number in range(4 * AT_ONCE)]
    result = await (await producer.submit(Canvas.chord(header, total.s()))).wait()
    assert result.value == sum(range(4 * AT_ONCE))
    assert sum(app.service.exchange_loop.stale_decisions for app in crowd if app.service) > 0


async def test_a_member_that_fails_under_contention_fails_its_group(
    crowd: list[Stemflow], open_app: OpenApp, registry: TaskRegistry, one: Any
) -> None:
    @registry.task("bad")
    async def bad() -> None:
        await asyncio.sleep(0.5)
        raise ValueError("bad")

    producer = await open_app(worker=False)
    members = [one.s(number) for number in range(3 * AT_ONCE)]
    members[2 * AT_ONCE : 2 * AT_ONCE + 2] = [bad.s(), bad.s()]
    handle = await producer.submit(Canvas.group(members))
    result = await handle.wait()
    assert (result.status, result.error.type) == ("failed", "ValueError")
    assert all(node.state != "ready" for node in await handle.records())


async def test_a_run_is_cancelled_while_its_inbox_holds_ends(
    crowd: list[Stemflow], open_app: OpenApp, one: Any
) -> None:
    producer = await open_app(worker=False)
    handle = await producer.submit(Canvas.group([one.s(number) for number in range(3 * AT_ONCE)]))
    await asyncio.sleep(1.2)
    for app in crowd:
        app.decider.inbox_facts = lambda inbox: []  # type: ignore[method-assign]
    await asyncio.sleep(0.5)
    # Given members that have all ended, and nobody who has received it
    nodes = {node.path: node.state for node in await handle.records()}
    assert nodes.pop("") == "running" and set(nodes.values()) == {"succeeded"}
    # When the run is cancelled, then it ends
    await handle.cancel()
    assert (await handle.root()).state == "cancelled"


async def test_the_inbox_of_a_worker_that_died_is_given_to_another(
    crowd: list[Stemflow], open_app: OpenApp, one: Any
) -> None:
    given = []
    for app in crowd:
        handed = app.decider.inbox_facts

        def dropped(inbox: Any, handed: Any = handed) -> Any:
            given.append(inbox)
            return [] if len(given) == 1 else handed(inbox)

        app.decider.inbox_facts = dropped  # type: ignore[method-assign]
    producer = await open_app(worker=False)
    handle = await producer.submit(Canvas.group([one.s(number) for number in range(3 * AT_ONCE)]))
    result = await handle.wait(timeout=60)
    assert result.value == list(range(3 * AT_ONCE))
    assert len(given) > 1


async def test_workers_that_leave_leave_nothing_in_the_inbox(
    crowd: list[Stemflow], open_app: OpenApp, one: Any
) -> None:
    # Given workers that have all leased their last tasks of a run
    producer = await open_app(worker=False)
    handle = await producer.submit(Canvas.group([one.s(number) for number in range(3 * AT_ONCE)]))
    await asyncio.sleep(1.2)
    # When all of them are asked to end, then the run has ended when they have
    await asyncio.gather(*(app.service.worker.drain(10_000) for app in crowd if app.service))
    for _ in range(100):
        await asyncio.sleep(0)
    assert (await handle.root()).state == "succeeded"


async def test_a_process_without_a_worker_posts_nothing(crowd: list[Stemflow], open_app: OpenApp, one: Any) -> None:
    # Given a producer whose decision on a wide scope was stale
    producer = await open_app(worker=False)
    handle = await producer.submit(Canvas.group([one.s(number) for number in range(4 * AT_ONCE)]))
    await asyncio.sleep(0.7)
    root = (handle.id, "")
    old = await producer.decider.decide([Stop(root)])
    await asyncio.sleep(0.5)
    newer = await producer.store.read([root])
    producer.decider.stale(old, [], [(root, newer[0])])
    # When it decides that a member has ended
    ready = next(node for node in await handle.records() if node.state == "running" and node.path)
    ended = await producer.decider.decide([Ended(ready.key, ready.delivery, Ok())])
    # Then its scope learns in the same commit
    assert not ended.posts and root in {put.key for put in ended.puts}


async def test_a_worker_that_is_alone_again_posts_no_more(open_app: OpenApp, one: Any) -> None:
    app, other = await open_app(concurrency=SLOTS), await open_app(concurrency=SLOTS)
    producer = await open_app(worker=False)
    posts = []
    settle = app.service.exchange_loop.settle  # type: ignore[union-attr]

    def seen(batch: Any, decision: Any, *more: Any) -> None:
        posts.append(bool(decision.posts))
        settle(batch, decision, *more)

    app.service.exchange_loop.settle = seen  # type: ignore[union-attr, method-assign]
    handle = await producer.submit(Canvas.group([one.s(number) for number in range(20 * SLOTS)]))
    await asyncio.sleep(2.2)
    await other.service.worker.drain(10_000)  # type: ignore[union-attr]
    assert (await handle.wait()).status == "succeeded"
    assert any(posts) and not any(posts[-4:])


async def test_a_post_that_nobody_with_a_key_has_made_moves_nothing(open_app: OpenApp, one: Any) -> None:
    signing = SigningKeys({"k": b"0123456789abcdef"}, active="k", mode="required")
    app = await open_app(signing=signing)
    handle = await app.submit(Canvas.group([one.s(number) for number in range(20)]))
    await asyncio.sleep(0.1)
    # Given members that run, when somebody without a key posts that they have ended
    forged = Post(handle.id, "", tuple(End(number, "ok") for number in range(20)))
    await app.store.exchange(Request("intruder", 1), [Decision(posts=(forged,))], None)
    result = await handle.wait()
    # Then the run fails and says why
    assert (result.status, result.error.type) == ("failed", "SignatureInvalid")


async def test_posts_of_workers_with_a_signing_key_are_applied(open_app: OpenApp, one: Any) -> None:
    signing = SigningKeys({"k": b"0123456789abcdef"}, active="k", mode="required")
    apps = [await open_app(concurrency=SLOTS, signing=signing) for _ in range(ENGINES)]
    result = await apps[0].run(Canvas.group([one.s(number) for number in range(4 * AT_ONCE)]))
    assert result == list(range(4 * AT_ONCE))
    assert Tries(apps).stale == 0 and sum(app.service.exchange_loop.stale_decisions for app in apps if app.service) > 0
