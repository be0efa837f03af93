"""F-30: the primary dies before it has passed on what it acknowledged, and a replica takes over."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from stemflow.runtime.runs.handle import RunHandle
from stemflow.testing.history.checker import check
from stemflow.testing.servers.replicas import Watched, copied, cut_off
from stemflow.testing.servers.server import Server
from tests.faults.net_world import Net, net_on
from tests.faults.proc_tasks import first_slow, step
from tests.faults.proc_world import place_on, until
from tests.faults.table import record

pytestmark = [pytest.mark.faults, pytest.mark.serial]

PATIENCE_S = 30


@pytest.fixture
def watched(one_server: Server, tmp_path: Path) -> Iterator[Watched]:
    with Watched(one_server.binary, tmp_path / "servers") as started:
        yield started


async def test_writes_that_a_replica_had_not_received_are_reported_lost_and_work_goes_on(
    watched: Watched, tmp_path: Path
) -> None:
    async with net_on(watched.replica, tmp_path) as net:
        # Given two workers, one who submits, and one who only looks
        for _ in range(2):
            await net.engine(watched.url)
        producer, looker = [await net.engine(watched.url, worker=False) for _ in range(2)]

        async def submit(count: int, pause_s: float) -> list[RunHandle[Any] | None]:
            net.pause_s = pause_s
            return [await net.submit(producer, net.order(visibility_timeout="1s")) for _ in range(count)]

        # with orders that have ended, and others at work; all of it has reached the replica
        ended = await submit(5, 0.0)
        await net.finish(ended)
        working = await submit(5, 1.5)
        await until(lambda: net.count("begin", working) == 10)
        copied_ns = time.monotonic_ns()
        await asyncio.to_thread(copied, watched.primary, watched.replica)
        # When the replica is cut off, and the primary acknowledges still more: ends, and whole orders
        await asyncio.to_thread(cut_off, watched.primary, watched.replica)
        unheard = await submit(5, 0.0)
        await net.finish(unheard)
        waited_for = await submit(5, 30.0)
        await until(lambda: net.count("begin", waited_for) == 10 and net.count("end", working) >= 10)
        seen = [await looker.handle(handle.id) for handle in waited_for if handle is not None]
        waiting = asyncio.create_task(net.told([*working, *waited_for, *seen]))
        await asyncio.sleep(0.1)
        # and dies
        net.pause_s = 0.0
        killed_ns = time.monotonic_ns()
        await asyncio.to_thread(watched.primary.kill)
        net.tries += 1
        # Then what the replica knew ends, and a waiter for what it did not know is notified
        assert await waiting == ["succeeded"] * 5 + ["lost"] * 10
        # and work goes on
        await net.finish(await submit(20, 0.0))
        assert net.epochs == [1] * 4
        # Of the orders those alone are gone,
        verdict = await net.verdict()
        assert verdict.lost == tuple(sorted(handle.id for handle in (*unheard, *waited_for) if handle is not None))
        assert verdict.stuck == verdict.unexpected == verdict.out_of_order == ()
        # what was committed before the cut is kept, and what is committed since the end is committed once.
        await judge_sides(net, copied_ns, killed_ns)
        record("F-30", runs=verdict.runs, tries=net.tries, lost=len(verdict.lost), doubled=verdict.doubled, stuck=0)


async def judge_sides(net: Net, copied_ns: int, killed_ns: int) -> None:
    """No outcome is committed twice, and no token leased twice, on either side of the time that was lost."""
    sights = net.witness.sights()
    before = [one for one in sights if one.at_ns < copied_ns]
    after = [one for one in sights if one.at_ns > killed_ns]
    final = await net.final()
    for some in (before, after):
        verdict = check(net.clients.said, some, final)
        assert verdict.double_commits == verdict.double_leases == ()


async def test_a_report_under_a_token_that_two_workers_were_given_is_refused(watched: Watched, tmp_path: Path) -> None:
    async with place_on(watched.replica, tmp_path) as place:
        place.url = watched.url
        # Given a task that the replica knows, and has not been notified is leased
        producer = await place.producer()
        handle = await place.submit(producer, first_slow.s(3.0, 4.0))
        assert handle is not None
        await asyncio.to_thread(copied, watched.primary, watched.replica)
        await asyncio.to_thread(cut_off, watched.primary, watched.replica)
        first = place.worker()
        await place.seen("begin")
        first.signal(signal.SIGSTOP)
        # When its worker is suspended, the primary dies, and another worker is given it by the replica
        await asyncio.to_thread(watched.primary.kill)
        place.tries += 1
        place.worker()
        one, two = await place.seen("begin", 2, PATIENCE_S)
        assert one.pid != two.pid
        assert one.token == two.token
        # Then the first one, when it comes back to report, learns what it has lost,
        first.signal(signal.SIGCONT)
        await until(lambda: "went back to an earlier state" in first.said, PATIENCE_S, lambda: first.said)
        # and what the second one returns is what counts
        async with asyncio.timeout(PATIENCE_S):
            assert (await handle.wait()).value == "again"
        # The end is received sooner than the worker writes down that its report was taken.
        assert {sight.pid for sight in await place.seen("commit")} == {two.pid}
        # and both work on
        await place.finish([await place.submit(producer, step.s(n)) for n in range(10)], 20)
        assert first.popen.poll() is None
        verdict = await place.verdict({})
        assert verdict.lost == verdict.stuck == verdict.unexpected == verdict.double_commits == ()
        record("F-30 one token twice", runs=verdict.runs, tries=1, lost=0, doubled=verdict.doubled, stuck=0)
