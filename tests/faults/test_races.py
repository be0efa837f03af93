"""F-41 to F-43, F-47 to F-50, F-64 to F-66, on a server: messages that come twice, sweepers that meet owners, and many
who ask for one thing at once."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from stemflow import Canvas, DuplicateRun, OptionError, Stemflow, TaskContext, TaskRegistry
from stemflow.model.effects import Decision
from stemflow.model.facts import Ended, Fact
from stemflow.runtime.clock import SystemClock
from stemflow.runtime.runs.handle import RunHandle
from stemflow.runtime.tasks.task import Task
from stemflow.runtime.worker.worker import Worker
from stemflow.store.base import Exchange, Request, Store, StoreError, Want
from stemflow.store.open import open_store
from stemflow.testing.contract.world import User, leaf
from stemflow.testing.servers.proxy import Answer
from stemflow.testing.servers.server import Server
from tests.faults.net_worker import registry_of
from tests.faults.net_world import Net, every, net_on
from tests.faults.table import record

pytestmark = [pytest.mark.faults, pytest.mark.serial]


@pytest.fixture
def empty(one_server: Server) -> Server:
    one_server.flush()
    return one_server


@asynccontextmanager
async def processes(net: Net, count: int, engines: int, concurrency: int) -> AsyncIterator[list[int]]:
    """Processes with workers, by their pids; they end with the block."""
    command = ["-m", "tests.faults.net_worker", net.server.url, str(net.witness.path), str(engines), str(concurrency)]
    pipe = asyncio.subprocess.PIPE
    started = [
        await asyncio.create_subprocess_exec(sys.executable, *command, stdin=pipe, stdout=pipe) for _ in range(count)
    ]
    try:
        for one in started:
            assert one.stdout is not None
            assert await asyncio.wait_for(one.stdout.readline(), 30) == b"ready\n"
        yield [one.pid for one in started]
    finally:
        for one in started:
            if one.returncode is None:
                one.kill()
            await one.wait()


def task_of(registry: TaskRegistry, name: str) -> Task[..., Any]:
    found = registry.get(name)
    assert found is not None
    return found


def holder(net: Net, registry: TaskRegistry) -> Callable[[Stemflow, float, str], Awaitable[RunHandle[Any] | None]]:
    """Submits a task that holds a unique key for some seconds."""
    task = task_of(registry, "hold")
    return lambda app, seconds, run: net.clients.submit(run, app.submit(task.s(seconds), run_id=run))


# -- F-41


class Doubling:
    """A store to which every request comes one to five times, and once more after the next one."""

    def __init__(self, store: Store, net: Net, rng: random.Random) -> None:
        self._store, self._net, self._rng = store, net, rng
        self._before: dict[str, tuple[Request, Sequence[Decision], Want | None]] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def exchange(self, request: Request, decisions: Sequence[Decision], want: Want | None) -> Exchange:
        answer = await self._store.exchange(request, decisions, want)
        for _ in range(self._rng.randrange(5) if decisions or answer.leases else 0):
            again = await self._store.exchange(request, decisions, want)
            assert again.committed == answer.committed
            self._net.tries += 1
        before = self._before.get(request.channel)
        if before is not None and (decisions or answer.leases):
            with pytest.raises(StoreError, match="later"):
                await self._store.exchange(*before)
            self._net.tries += 1
        if decisions or answer.leases:
            self._before[request.channel] = (request, decisions, want)
        return answer


async def test_requests_that_come_several_times_and_late_change_nothing(empty: Server, tmp_path: Path) -> None:
    async with net_on(empty, tmp_path) as net:
        rng = random.Random(41)
        engines = []
        for _ in range(3):
            store: Any = Doubling(open_store(empty.url, SystemClock()), net, rng)
            engines.append(
                await net._opened.enter_async_context(
                    Stemflow(empty.url, net.registry, store=net.witness.watching(store))
                )
            )
        for app in engines:
            await net.orders(app, 20)
        assert (await net.judge("F-41")).doubled == 0


# -- F-42


async def test_reports_that_come_twice_late_or_of_nobody_release_a_callback_once(
    empty: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with net_on(empty, tmp_path) as net:
        # Given workers that report each end twice, a third time later, and one of a member that does not exist
        report = Worker.report

        def thrice(self: Worker, running: Any, outcome: Any) -> None:
            report(self, running, outcome)
            fact = self.slots.facts[-1]
            self.slots.facts.append(fact)
            net.tries += 3

            def later(fact: Fact = fact) -> None:
                self.slots.facts.append(fact)
                if isinstance(fact, Ended) and fact.key[1].startswith("[0]["):
                    self.slots.facts.append(Ended((fact.key[0], "[0][7]"), fact.token, fact.outcome))
                self.slots.wake()

            asyncio.get_running_loop().call_later(0.05, later)

        monkeypatch.setattr(Worker, "report", thrice)
        engines = [await net.engine(empty.url) for _ in range(2)]
        handles = [await net.submit(app) for app in engines for _ in range(20)]
        await net.finish(handles)
        await asyncio.sleep(0.5)
        # Then each callback began once, with the results in order
        verdict = await net.judge("F-42")
        assert verdict.doubled == 0
        for handle in handles:
            assert handle is not None
            assert (await handle.wait()).value == [1, 2]


# -- F-43


async def test_a_thousand_members_that_end_at_once_on_sixteen_workers_release_one_callback(
    empty: Server, tmp_path: Path
) -> None:
    async with net_on(empty, tmp_path) as net:
        registry = registry_of(net.witness)
        async with processes(net, 4, 4, 63), Stemflow(empty.url, registry, worker=False) as producer:
            at_ns = time.monotonic_ns() + 6_000_000_000
            group = Canvas.group(*(task_of(registry, "until").s(n, at_ns) for n in range(1_000)))
            handle = await net.clients.submit(
                "wide", producer.submit(Canvas.chord(group, task_of(registry, "total").s()), run_id="wide")
            )
            assert handle is not None
            result = await handle.wait(60)
            assert result.value == sum(range(1_000))
            took_ms = (time.monotonic_ns() - at_ns) // 1_000_000
        sights = net.witness.sights()
        begun = [s for s in sights if s.event == "begin"]
        late = sum(s.at_ns > at_ns for s in begun if s.node != "then")
        assert sum(s.node == "then" for s in begun) == 1
        net.tries = 1_000
        assert (await net.judge("F-43", {})).doubled == 0
        print(f"F-43: the run ended {took_ms} ms after its members; {late} of them had begun later")


# -- F-47, F-48


async def test_a_retry_and_a_lost_lease_of_one_task_make_one_next_attempt(empty: Server, tmp_path: Path) -> None:
    async with net_on(empty, tmp_path) as net:
        # Given tasks that fail once, at about the time at which their leases are lost, since no renewal gets through
        rng = random.Random(47)

        @net.registry.task("flaky", max_retries=1, visibility_timeout="400ms")
        async def flaky(context: TaskContext, seconds: float) -> int:
            with net.witness.sees(context):
                await asyncio.sleep(seconds)
                if context.attempt == 0:
                    raise ValueError("once")
                return context.attempt

        for _ in range(3):
            proxy = await net.proxy()
            proxy.fate = every(1, ("renew",), Answer("BUSY for a while"))
            await net.engine(proxy.url, concurrency=30)
        producer = await net.engine(empty.url, worker=False)
        signature = flaky.with_options(retry_delay=0.1) if False else flaky
        handles = await asyncio.gather(
            *(
                net.submit(producer, signature.s(rng.uniform(0.1, 0.3) if n % 2 else rng.uniform(0.3, 1.3)))
                for n in range(60)
            )
        )
        results = await asyncio.wait_for(asyncio.gather(*(h.wait() for h in handles if h is not None)), 60)
        # Then each ends, with one retry and no more deliveries than it was lost and tried
        net.tries = sum([(await h.root()).losses for h in handles if h is not None])
        begun = [s for s in net.witness.sights() if s.event == "begin"]
        for handle in handles:
            assert handle is not None
            root = await handle.root()
            starts = [s for s in begun if s.run == handle.id]
            assert len({s.token for s in starts}) == len(starts)
            assert len(starts) <= 2 + root.losses
        assert {result.status for result in results} <= {"succeeded", "failed"}
        await net.judge("F-47", {})


async def test_sweepers_that_race_take_each_lost_lease_once(empty: Server, tmp_path: Path) -> None:
    stores = [open_store(empty.url, SystemClock()) for _ in range(8)]
    for store in stores:
        await store.open()
    try:
        owner = User(stores[0], "owner")
        await owner.begin(*(leaf(f"[{i}]", lease_ms=1) for i in range(1_000)))
        leased = await owner.lease(1_000)
        await asyncio.sleep(0.01)
        found = await asyncio.gather(
            *(store.take_expired(f"sweeper {i % 8}", 20) for i in range(20) for store in stores)
        )
        taken = [(lease.node.path, lease.node.delivery) for some in found for lease in some]
        assert len(taken) == len(set(taken)) == len(leased)
        assert {lease.node.delivery for lease in leased} == {token - 1 for _, token in taken}
        record("F-48", runs=1, tries=len(taken), lost=0, doubled=0, stuck=0)
    finally:
        for store in stores:
            await store.close()


# -- F-49


async def test_a_delay_of_many_leases_waits_outside_of_any_lease(empty: Server, tmp_path: Path) -> None:
    async with net_on(empty, tmp_path) as net:
        engines = [await net.engine(empty.url) for _ in range(2)]
        signature = net.step.with_options(countdown=3, visibility_timeout="300ms").s(1)
        began = time.monotonic_ns()
        handles = await asyncio.gather(*(net.submit(app, signature) for app in engines for _ in range(10)))
        await net.finish(handles)
        net.tries = len(handles)
        assert min(s.at_ns for s in net.witness.sights()) - began > 2_900_000_000
        assert (await net.judge("F-49", {})).doubled == 0


# -- F-50


async def test_one_run_id_submitted_by_eight_producers_is_one_run(empty: Server, tmp_path: Path) -> None:
    async with net_on(empty, tmp_path) as net:
        producers = [await net.engine(empty.url, worker=False) for _ in range(8)]
        await net.engine(empty.url)
        for turn in range(20):
            run = f"same-{turn}"
            asked = [net.clients.submit(run, app.submit(net.order(), run_id=run)) for app in producers]
            handles = await asyncio.gather(*asked)
            assert {handle.id for handle in handles if handle is not None} == {run}
            await net.finish(handles)
            net.tries += 8
        assert (await net.judge("F-50")).doubled == 0
        with pytest.raises(OptionError, match="empty"):
            await producers[0].submit(net.order(), run_id="")
        assert len(await producers[0].store.runs(100)) == 20


# -- F-64, F-65


async def test_a_holder_of_a_unique_key_that_is_killed_frees_it_when_another_has_ended_its_task(
    empty: Server, tmp_path: Path
) -> None:
    async with net_on(empty, tmp_path) as net:
        registry = registry_of(net.witness)
        hold = holder(net, registry)
        async with Stemflow(empty.url, registry, worker=False) as producer:
            async with processes(net, 1, 1, 4) as (pid,):
                first = await hold(producer, 2.0, "first")
                while not net.witness.sights():
                    await asyncio.sleep(0.02)
                os.kill(pid, signal.SIGKILL)
                net.tries += 1
            assert first is not None
            assert (await producer.submit(task_of(registry, "hold").s(0.0))).existing
            async with processes(net, 1, 1, 4):
                assert (await first.wait(15)).status == "succeeded"
                second = await hold(producer, 0.1, "second")
                assert second is not None
                assert not second.existing
                assert (await second.wait(15)).status == "succeeded"
        assert (await net.judge("F-64", {})).doubled == 1


async def test_a_zombie_does_not_free_the_key_of_the_next_holder(empty: Server, tmp_path: Path) -> None:
    async with net_on(empty, tmp_path) as net:
        registry = registry_of(net.witness)
        hold = holder(net, registry)
        async with (
            processes(net, 1, 1, 1) as (zombie,),
            Stemflow(empty.url, registry, worker=False) as producer,
        ):
            # Given a holder that is paused past its lease, and another who ends its task
            first = await hold(producer, 1.0, "first")
            while not net.witness.sights():
                await asyncio.sleep(0.02)
            os.kill(zombie, signal.SIGSTOP)
            net.tries += 1
            async with processes(net, 1, 1, 4):
                assert first is not None
                assert (await first.wait(15)).status == "succeeded"
                # When the key has a new holder and the zombie comes back with its report
                second = await hold(producer, 4.0, "second")
                assert second is not None
                os.kill(zombie, signal.SIGCONT)
                await asyncio.sleep(2)
                # Then the key is still the new holder's
                third = await producer.submit(task_of(registry, "hold").s(0.0))
                assert (third.existing, third.id) == (True, "second")
                assert (await second.wait(15)).status == "succeeded"
        await net.judge("F-65", {})


# -- F-66


@pytest.mark.parametrize("mode", ["return_existing", "reject"])
async def test_of_sixty_four_submissions_of_one_key_one_is_accepted_and_all_learn_its_id(
    mode: str, empty: Server, tmp_path: Path
) -> None:
    async with net_on(empty, tmp_path) as net:
        producers = [await net.engine(empty.url, worker=False) for _ in range(8)]
        net.pause_s = 0.2
        accepted = 0
        for turn in range(5):
            only = net.step.with_options(unique=True, unique_by=f"key {turn}", unique_mode=mode)
            told = await asyncio.gather(
                *(app.submit(only.s(n)) for app in producers for n in range(8)), return_exceptions=True
            )
            new = [one.id for one in told if not isinstance(one, BaseException) and not one.existing]
            others = [one.run_id if isinstance(one, DuplicateRun) else one.id for one in told if not _is_new(one)]
            assert (len(new), len(others)) == (1, 63)
            assert set(others) == set(new)
            accepted += 1
            net.tries += 64
        worker = await net.engine(empty.url)
        infos = await producers[0].store.runs(100)
        assert len(infos) == accepted
        for info in infos:
            assert (await (await worker.handle(info.header.run)).wait(10)).status == "succeeded"
        record(f"F-66 {mode}", runs=accepted, tries=net.tries, lost=0, doubled=0, stuck=0)


def _is_new(one: Any) -> bool:
    return not isinstance(one, BaseException) and not one.existing
