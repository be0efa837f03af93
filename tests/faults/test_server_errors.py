"""F-26 to F-29: a server that is short of memory, forgets its scripts, or answers with errors that pass."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from stemflow import Stemflow, TaskContext
from stemflow.model.effects import Decision
from stemflow.runtime.clock import SystemClock
from stemflow.store.base import BackpressureError, StoreError, StoreUnavailable
from stemflow.store.open import open_store
from stemflow.store.redis import client
from stemflow.store.redis import loss_detection as standing
from stemflow.testing.contract.world import RUN, User, begun, leaf, succeed
from stemflow.testing.servers.executables import version_of
from stemflow.testing.servers.proxy import Answer
from stemflow.testing.servers.server import Server
from tests.faults.net_world import every, net_on
from tests.faults.table import record

pytestmark = pytest.mark.faults


@pytest.fixture
def own(one_server: Server, tmp_path: Path) -> Iterator[Server]:
    with debugged(one_server, tmp_path) as server:
        yield server


@pytest.fixture
def of_each(server: Server, tmp_path: Path) -> Iterator[Server]:
    """As `own`, of every version that is here."""
    with debugged(server, tmp_path) as started:
        yield started


def debugged(server: Server, folder: Path) -> Server:
    """A server that takes DEBUG, by which data is compared. Before 7.0 it needs not be allowed."""
    settings = ["enable-debug-command yes"] if version_of(server.binary) >= (7, 0) else []
    return Server(server.binary, folder / "own", settings)


def fill(server: Server, full: bool = True) -> None:
    """From now on the server is (not) short of memory."""
    assert server.ask("CONFIG", "SET", "maxmemory", "1" if full else "0") == b"+OK\r\n"


# -- F-26

@pytest.fixture(params=["scripts for 7 and later", "scripts for 6.2"])
def scripts(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The scripts as a server of that version is given them; a newer one treats those as the old one did."""
    if request.param == "scripts for 6.2":
        monkeypatch.setattr(standing, "version_of", lambda about: (6, 2))
    return str(request.param)


async def test_in_want_of_memory_work_is_refused_whole_and_whatever_ends_work_goes_on(
    of_each: Server, scripts: str
) -> None:
    store = open_store(of_each.url, SystemClock())
    await store.open()
    user = User(store, "one")
    try:
        # Given a task that is leased, another whose lease is expired, and dead letters to be pruned
        await user.begin(leaf("a"), leaf("b", lease_ms=1), leaf("c"))
        a, b = await user.lease(2)
        await asyncio.sleep(0.01)
        fill(of_each)
        # When somebody submits, then nothing at all is changed
        before = of_each.ask("DEBUG", "DIGEST")
        with pytest.raises(BackpressureError, match="short of memory"):
            await User(store, "two").exchange(begun("other", leaf("x", run="other")))
        assert of_each.ask("DEBUG", "DIGEST") == before
        # And every other script does its work
        renewer = store.renewer()
        assert renewer.renew([(a.node.key, a.node.delivery, 30_000)]).gone == ()
        renewer.close()
        (lost,) = await store.take_expired("one", 10)
        assert lost.node.path == b.node.path
        answer = await user.exchange(Decision(puts=(succeed(a), succeed(lost))), want=user.want(1))
        assert answer.committed == (True,)
        assert [lease.node.path for lease in answer.leases] == ["c"]
        await store.put_hint("t", "n", b"{}", 1_000)
        await store.prune(10)
        assert (await user.node("a")).state == "succeeded"
        # A new connection is greeted, too, and one who follows is served
        other = open_store(of_each.url, SystemClock())
        await other.open()
        await other.wait_for_change(0, 10, RUN)
        await other.close()
        # And when there is memory again, work is taken
        fill(of_each, False)
        assert (await User(store, "two").exchange(begun("other", leaf("x", run="other")))).committed == (True,)
    finally:
        await store.close()


async def test_in_want_of_memory_runs_end_and_cancels_do_not_suffer_from_submissions(
    of_each: Server, scripts: str, tmp_path: Path
) -> None:
    async with net_on(of_each, tmp_path) as net:
        net.pause_s = 0.1
        net.registry.task("child", max_retries=0)(net.step.function)

        @net.registry.task("parent", max_retries=0)
        async def parent(context: TaskContext) -> str:
            return await context.enqueue(net.step.s(1))

        app = await net.engine(of_each.url)
        handles = await asyncio.gather(*(net.submit(app) for _ in range(10)))
        begetting = await app.submit(parent.with_options(countdown=0.3).s())
        doomed = await app.submit(net.step.with_options(countdown=600).s(1))
        # When memory runs out under them
        fill(of_each)
        asked = [app.submit(net.order()) for _ in range(3)]
        told = await asyncio.gather(*asked, doomed.cancel(), return_exceptions=True)
        net.tries += 3
        # Then who submits is notified, a cancel that came along is carried out, and what goes on ends
        assert [type(one) for one in told] == [BackpressureError] * 3 + [str]
        assert (await doomed.wait(10)).status == "cancelled"
        await net.finish(handles)
        # A task that wants to submit waits for memory, and has not failed
        await asyncio.sleep(1)
        assert (await begetting.wait(0)).timed_out
        fill(of_each, False)
        result = await begetting.wait(20)
        assert result.status == "succeeded", result.error
        assert (await begetting.root()).attempt == 0
        record(f"F-26 {scripts}", runs=12, tries=net.tries, lost=0, doubled=0, stuck=0)


# -- F-27


async def test_a_server_that_evicts_is_refused_at_the_start(own: Server) -> None:
    own.ask("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    own.ask("CONFIG", "SET", "maxmemory", "100mb")
    with pytest.raises(StoreError, match="noeviction"):
        async with Stemflow(own.url):
            pass
    record("F-27", runs=0, tries=1, lost=0, doubled=0, stuck=0)


# -- F-28


async def test_scripts_that_the_server_forgets_all_the_time_are_given_to_it_again(own: Server, tmp_path: Path) -> None:
    async with net_on(own, tmp_path) as net:
        engines = [await net.engine(own.url) for _ in range(2)]

        async def flush() -> None:
            while True:
                await asyncio.to_thread(own.ask, "SCRIPT", "FLUSH")
                net.tries += 1

        flushing = asyncio.create_task(flush())
        try:
            # Tasks that are renewed, and quick ones
            order = net.order(visibility_timeout="4s")
            for net.pause_s in (2.0, 0.05, 0.0):
                await net.finish(await asyncio.gather(*(net.submit(app, order) for app in engines for _ in range(10))))
        finally:
            flushing.cancel()
        assert (await net.judge("F-28")).doubled == 0
        assert net.tries > 100


# -- F-29

PASSING = (
    "READONLY You can't write against a read only replica.",
    "LOADING Redis is loading the dataset in memory",
    "BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.",
    "MISCONF Redis is configured to save RDB snapshots, but it's currently unable to persist to disk.",
    "MISCONF Errors writing to the AOF file: No space left on device",
    "NOREPLICAS Not enough good replicas to write.",
    "CLUSTERDOWN The cluster is down",
    "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
    "TRYAGAIN Multiple keys request during rehashing of slot",
    "MOVED 3999 127.0.0.1:6381",
)
LASTING = (
    "NOPERM this user has no permissions to run the 'evalsha' command",
    "ERR unknown command 'EVALSHA'",
)


@pytest.mark.parametrize("error", PASSING, ids=[error.partition(" ")[0] for error in PASSING])
async def test_an_error_that_passes_is_tried_again_and_is_no_failure_of_a_task(
    error: str, own: Server, tmp_path: Path
) -> None:
    async with net_on(own, tmp_path) as net:
        net.pause_s = 0.02
        proxy = await net.proxy()
        app = await net.engine(proxy.url)
        names = ("submit", "exchange", "take_expired", "renew", "read", "put_hint", "prune", "hgetall", "get")
        proxy.fate = every(3, names, Answer(error))
        await net.orders(app, 15)
        net.tries = proxy.struck
        verdict = await net.judge(f"F-29 {error.partition(' ')[0]}")
        assert verdict.doubled == 0
        nodes = [node for handle in await _handles(app) for node in await handle.records()]
        assert {(node.attempt, node.losses) for node in nodes} == {(0, 0)}


async def _handles(app: Stemflow) -> list[Any]:
    return [await app.handle(info.header.run) for info in await app.store.runs(100)]


@pytest.mark.parametrize("error", PASSING[:1], ids=["READONLY"])
async def test_a_transient_error_that_lasts_is_reported_and_a_worker_keeps_trying(
    error: str, own: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "PATIENCE_S", 0.3)
    async with net_on(own, tmp_path) as net:
        net.pause_s = 0.3
        proxy = await net.proxy()
        app = await net.engine(proxy.url)
        handles = [await net.submit(app) for _ in range(3)]
        proxy.fate = every(1, ("submit", "exchange"), Answer(error))
        with pytest.raises(StoreUnavailable, match="not ready"):
            await app.submit(net.order())
        await asyncio.sleep(2)
        proxy.fate = lambda call: None
        await net.finish(handles)
        net.tries = proxy.struck
        assert (await net.judge("F-29 for 2 s")).doubled == 0


@pytest.mark.parametrize("error", LASTING, ids=[error.partition(" ")[0] for error in LASTING])
async def test_a_permanent_error_is_reported_at_once(error: str, own: Server, tmp_path: Path) -> None:
    async with net_on(own, tmp_path) as net:
        proxy = await net.proxy()
        producer = await net.engine(proxy.url, worker=False)
        proxy.fate = every(1, ("submit",), Answer(error))
        before = asyncio.get_running_loop().time()
        with pytest.raises(StoreError) as told:
            await producer.submit(net.order())
        assert not isinstance(told.value, StoreUnavailable)
        assert asyncio.get_running_loop().time() - before < 1
        assert proxy.struck == 1


async def test_a_worker_that_meets_an_error_that_lasts_stops_and_its_tasks_are_not_charged(
    own: Server, tmp_path: Path
) -> None:
    async with net_on(own, tmp_path) as net:
        net.pause_s = 3.0
        proxy = await net.proxy()
        app = await net.engine(proxy.url)
        producer = await net.engine(own.url, worker=False)
        order = net.step.with_options(visibility_timeout="1s").s(1)
        handles = [await net.submit(producer, order) for _ in range(5)]
        while len(net.witness.sights()) < 5:
            await asyncio.sleep(0.01)
        # When the worker may not call its script any more
        proxy.fate = every(1, ("exchange",), Answer(LASTING[0]))
        assert app.service is not None
        with pytest.raises(StoreError, match="no permissions"):
            await asyncio.wait_for(app.service.ended(), 10)
        net.tries = proxy.struck
        # Then another takes its tasks over, as of one that has died
        net.pause_s = 0.0
        await net.engine(own.url)
        await net.finish(handles)
        verdict = await net.judge("F-29 NOPERM", {})
        assert verdict.doubled == 5
