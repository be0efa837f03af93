"""Two things at one instant, in many orders: a cancel against everything, a time limit against the result, a retry
against a lost lease, sweepers against one another."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from stemflow import Canvas, Stemflow, TaskContext, TaskRegistry
from stemflow.model.effects import Decision
from stemflow.model.records import FINAL, Key, Node
from stemflow.model.signature import WaitSig
from stemflow.store.base import Renewed, Request, Want
from stemflow.store.memory.renewer import MemoryRenewer
from stemflow.testing.simulation.checked_store import CheckedStore
from stemflow.testing.simulation.virtual_loop import SeededIds, VirtualClock, VirtualLoop, run

SEEDS = range(8)


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


class Store(CheckedStore):
    """An event is set right after commit `after`, before the next lease, and leases may be kept by nobody."""

    after = 0
    told: asyncio.Event
    renews = True

    def _commit(self, decision: Decision, now_ms: int) -> bool:
        done = super()._commit(decision, now_ms)
        if done and self.commits == self.after:
            self.told.set()
        return done

    def renewer(self) -> MemoryRenewer:
        renewer = super().renewer()
        return renewer if self.renews else Careless({}, {}, self.now_ms)


class Careless(MemoryRenewer):
    def renew(self, held: Sequence[tuple[Key, int, int]]) -> Renewed:
        return Renewed((), ())


class World:
    def __init__(self, loop: VirtualLoop) -> None:
        self.clock, self.ids = VirtualClock(loop), SeededIds(loop.rng)
        self.store = Store("memory:", self.clock, loop.observe)
        self.store.told = asyncio.Event()
        self.registry = TaskRegistry()
        self.starts: list[tuple[str, int]] = []
        self.seconds: dict[str, float] = {}

        async def work(context: TaskContext, *_: Any) -> str:
            self.starts.append((context.node, context.attempt))
            first = sum(path == context.node for path, _ in self.starts) == 1
            await asyncio.sleep(self.seconds.get(context.name, 0.3) if first else 0.1)
            if context.name == "flaky" and first:
                raise ValueError("the first time")
            return context.node

        retry = {"backoff": "fixed", "initial": "300ms", "jitter": 0}
        for name, options in {
            "work": {}, "hook": {}, "rated": {"rate_limit": "1/s"}, "alone": {"concurrency": 1},
            "only": {"unique": True, "unique_by": "k"}, "flaky": {"max_retries": 1, "retry": retry},
            "limited": {"hard_time_limit": "1s"}, "leased": {"visibility_timeout": "3s"},
        }.items():  # fmt: skip
            self.registry.task(name, **options)(work)  # type: ignore[call-overload]

    def app(self, worker: bool = True) -> Stemflow:
        return Stemflow(registry=self.registry, worker=worker, clock=self.clock, ids=self.ids, store=self.store)


def tree() -> Any:
    """Whatever a cancel can race with: a retry, a rate, a place, a key, the release of a chord, a timer."""
    header = [Canvas.task(name) for name in ("flaky", "rated", "rated", "alone", "alone", "only", "only")]
    chord = Canvas.chord(header, Canvas.task("work"))
    return Canvas.chain(chord, WaitSig(for_ms=300), Canvas.task("work")).on_cancel(Canvas.task("hook"))


async def cancelled_after(loop: VirtualLoop, commit: int, force: bool) -> bool:
    """Two workers, and a cancel right after that commit or a little later; answers whether the run had ended before."""
    world = World(loop)
    world.store.after = commit
    world.seconds = {"flaky": 0.2, "rated": 0.35, "alone": 0.25, "only": 0.4}
    async with world.app() as one, world.app():
        handle = await one.submit(tree())
        waiting = asyncio.ensure_future(handle.wait())
        told = asyncio.ensure_future(world.store.told.wait())
        await asyncio.wait((waiting, told), return_when=asyncio.FIRST_COMPLETED)
        await asyncio.sleep(loop.rng.choice((0.0, loop.rng.uniform(0, 0.3))))
        was = await handle.cancel(force=force)
        starts = len(world.starts)
        result = await asyncio.wait_for(waiting, 30)
        told.cancel()
        await asyncio.sleep(5)
        nodes = await handle.records()
        assert all(node.state in FINAL for node in nodes)
        assert not world.store.leaked_claims()
        hooks = [node for node in nodes if "!" in node.path]
        if was in FINAL:
            assert result.status == was
            return True
        assert result.status == "cancelled"
        assert len(hooks) == (0 if force else 1)
        # What a worker had leased before the cancel may begin after it, but nothing beyond that
        late = [path for path, _ in world.starts[starts:] if "!" not in path]
        leased = {node.path for node in nodes if node.delivery > node.base}
        assert set(late) <= leased
        return False


@pytest.mark.parametrize("force", [False, True], ids=["plain", "force"])
def test_a_cancel_after_each_commit_of_a_run_ends_it_and_nothing_is_leased_any_more(force: bool) -> None:
    for seed in SEEDS:
        for commit in range(1, 60):
            ended, _ = run(lambda loop: cancelled_after(loop, commit, force), seed, 600)  # noqa: B023
            if ended:
                break
        assert 7 < commit < 59


def test_a_hard_limit_at_the_instant_of_the_result_commits_one_of_them() -> None:
    async def main(loop: VirtualLoop) -> str:
        world = World(loop)
        world.seconds["limited"] = loop.rng.choice((0.999, 1.0, 1.001))
        async with world.app() as app:
            handle = await app.submit(Canvas.task("limited"))
            result = await handle.wait()
            await asyncio.sleep(5)
            letters = await world.store.dead_letters()
            assert len(letters) == (result.status == "failed")
            assert result.status == "succeeded" or result.error.type == "TaskTimeout"
            assert (await handle.wait()).status == result.status
            return str(result.status)

    assert {run(main, seed, 60)[0] for seed in range(30)} == {"succeeded", "failed"}


def test_a_failure_at_the_instant_at_which_its_lease_is_lost_leads_to_one_next_attempt() -> None:
    async def main(loop: VirtualLoop) -> tuple[int, int]:
        world = World(loop)
        world.store.renews = False
        task = world.registry.get("flaky")
        assert task is not None
        world.seconds["flaky"] = loop.rng.choice((2.999, 3.0))
        async with world.app() as app, world.app():
            handle = await app.submit(task.with_options(visibility_timeout="3s").s())
            result = await handle.wait(60)
            (node,) = await handle.records()
            assert (result.status, len(world.starts)) == ("succeeded", 2)
            return node.attempt, node.losses

    assert {run(main, seed, 300)[0] for seed in range(30)} == {(1, 0), (0, 1)}


def test_sweepers_that_find_one_lost_lease_at_once_make_one_loss_of_it() -> None:
    async def main(loop: VirtualLoop) -> None:
        world = World(loop)
        async with world.app(worker=False) as app:
            handle = await app.submit(Canvas.task("leased"))
            await app.store.exchange(Request("dying", 1), [], Want(owner="dying", limit=1))
            async with world.app(), world.app(), world.app():
                assert (await handle.wait(60)).status == "succeeded"
            (node,) = await handle.records()
            assert isinstance(node, Node) and (node.losses, node.attempt, len(world.starts)) == (1, 0, 1)

    for seed in range(20):
        run(main, seed, 300)
