"""F-05 to F-09, F-13, F-14, F-36, F-58, F-59: processes that stand still and come back, sweepers and producers that are
killed between any two calls, and handlers that take their worker along."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import pytest

from stemflow.store.base import Request, Want
from stemflow.testing.servers.server import Server
from tests.faults.proc_tasks import big_order, first_slow, order, step
from tests.faults.proc_world import Place, place_on, until
from tests.faults.table import record

pytestmark = pytest.mark.faults


@pytest.fixture
def empty(one_server: Server) -> Server:
    one_server.flush()
    return one_server


@pytest.mark.parametrize("fault", ["F-07", "F-08"])
async def test_late_reports_of_a_worker_that_was_suspended_past_its_leases_are_refused(
    fault: str, empty: Server, tmp_path: Path
) -> None:
    async with place_on(empty, tmp_path) as place:
        producer = await place.producer()
        zombie = await place.worker().ready()
        for turn in range(3):
            # Given handlers at work, the first of a chain each
            before = sum(one.event == "begin" for one in place.witness.sights())
            handles = [await place.submit(producer, first_slow.s(0.8) | step.s()) for _ in range(4)]
            await place.seen("begin", before + 4)
            # When their worker is suspended past their leases, and (F-07) another is there
            zombie.signal(signal.SIGSTOP)
            place.tries += 1
            if fault == "F-07":
                other = await place.worker().ready()
                # Then the other ends the runs
                await place.finish(handles, 20)
                zombie.signal(signal.SIGCONT)
                other.signal(signal.SIGTERM)
                assert await other.ends() == 0
            else:
                await asyncio.sleep(2.5)
                # Then, when it comes back first, it ends them itself, once
                zombie.signal(signal.SIGCONT)
                await place.finish(handles, 20)
            # And the worker that was suspended works on
            await place.finish([await place.submit(producer, step.s(turn))], 20)
        await place.judge(fault, {"[1]": ("[0]",)})


async def test_a_worker_that_was_suspended_cancels_handlers_whose_leases_others_have(
    empty: Server, tmp_path: Path
) -> None:
    async with place_on(empty, tmp_path) as place:
        producer = await place.producer()
        zombie = await place.worker().ready()
        # Given handlers that would work for a minute
        handles = [await place.submit(producer, first_slow.s(60)) for _ in range(4)]
        await place.seen("begin", 4)
        zombie.signal(signal.SIGSTOP)
        place.tries += 1
        await place.worker().ready()
        await place.finish(handles, 20)
        # When it comes back, its next renewal finds the leases gone
        zombie.signal(signal.SIGCONT)
        zombie.signal(signal.SIGTERM)
        # Then it ends long before a minute, since it waits for nobody
        assert await zombie.ends(10) == 0
        assert (await place.judge("F-09", {})).doubled == 4


def _ended(place: Place) -> bool:
    return any(one.event == "commit" and one.node == "" for one in place.witness.sights())


async def test_a_sweeper_that_is_killed_between_any_two_calls_leaves_nothing_stuck(
    one_server: Server, tmp_path: Path
) -> None:
    one_server.flush()
    runs, died, doubled = 0, 0, 0

    async def one(at: int) -> bool:
        """A run whose worker is gone, and a sweeper that dies at this point; whether it did before the run's end."""
        nonlocal runs, died, doubled
        async with place_on(one_server, tmp_path / str(at), f"sweep{at}") as place:
            producer = await place.producer()
            handle = await place.submit(producer, order())
            # Given leases of an owner who is gone
            gone = Want(owner="gone", limit=10)
            answer = await producer.store.exchange(Request("gone", 1), [], gone)
            assert len(answer.leases) == 2
            await asyncio.sleep(1.2)
            # When a worker that takes them over is killed
            dying = place.worker(DIE_AT=f"call/{at}")
            await until(lambda: dying.popen.poll() is not None or _ended(place), 40, lambda: dying.said)
            early = not _ended(place)
            killed = dying.popen.poll() == -signal.SIGKILL
            # Then two others end the run, whichever of them sweeps first
            for _ in range(2):
                await place.engine(place.url)
            await place.finish([handle], 40)
            verdict = await place.verdict()
            assert verdict.fatal == {}
            runs += 1
            died += killed
            doubled += verdict.doubled
            return killed and early

    # Points 1, 3, 5 are before the first, second, third call, and so after the one before; until one is beyond the run.
    some = range(1, 15, 2)
    while all(await asyncio.gather(*(one(at) for at in some))):
        some = range(some.stop, some.stop + 14, 2)
        assert some.stop < 100
    # It died before and after it had taken the lost leases, and while tasks ran in it.
    assert doubled > 0
    record("F-05", runs=runs, tries=died, lost=0, doubled=doubled, stuck=0)


async def test_a_producer_that_is_killed_between_any_two_calls_has_submitted_all_or_nothing_and_may_repeat(
    one_server: Server, tmp_path: Path
) -> None:
    one_server.flush()
    async with place_on(one_server, tmp_path) as place:
        producer = await place.producer()
        handles, there = [], 0
        for at in range(1, 30):
            run = f"killed-{at}"
            dying = place.launch("produce", place.url, run, DIE_AT=f"call/{at}")
            code = await dying.ends(60)
            if code == 0:
                break
            assert code == -signal.SIGKILL, dying.said
            place.tries += 1
            # Then the run is not there, or whole
            nodes = await producer.store.nodes(run)
            there += bool(nodes)
            # And the same submission again answers the same run
            handles.append(await place.clients.submit(run, producer.submit(big_order(), run_id=run)))
        assert place.tries >= 4
        await place.clients.submit(f"killed-{at}", producer.handle(f"killed-{at}"))
        await place.engine(place.url)
        await place.finish(handles, 40)
        counts = [len(await producer.store.nodes(handle.id)) for handle in handles if handle is not None]
        assert len(set(counts)) == 1
        assert 0 < there < place.tries
        assert (await place.judge("F-06", {})).doubled == 0
