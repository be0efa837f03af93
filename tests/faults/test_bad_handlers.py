"""F-13, F-14, F-36, F-58, F-59: handlers that fork, take their worker along, hold the loop or never end; clocks that
lie."""

from __future__ import annotations

import asyncio
import signal
import time
from pathlib import Path

import pytest

from stemflow import Stemflow
from stemflow.testing.servers.server import Server
from tests.faults.memory_group import memory_group
from tests.faults.proc_tasks import forks, hold, leave, order, step, stubborn
from tests.faults.proc_world import Place, place_on, until

pytestmark = [pytest.mark.faults, pytest.mark.serial]

GROUP_BYTES = 500 << 20
"""The memory of a supervisor and two workers, and some of what a task wants."""
HELD_UP_S = 15.0
"""A lease of a second, a look for lost leases each second, a process that starts again, on a machine at work."""


@pytest.fixture
def empty(one_server: Server) -> Server:
    one_server.flush()
    return one_server


async def test_a_forked_child_that_uses_the_engine_is_refused_and_its_parent_goes_on(
    empty: Server, tmp_path: Path
) -> None:
    async with place_on(empty, tmp_path) as place:
        producer = await place.producer()
        worker = await place.worker().ready()
        # Given other runs under way, when a handler forks and the child uses the connections of its parent
        handles = [await place.submit(producer, order()) for _ in range(10)]
        handle = await place.submit(producer, forks.s(5))
        assert handle is not None
        result = await asyncio.wait_for(handle.wait(), 20)
        place.tries += 5
        # Then each child learns what to do instead
        assert result.status == "succeeded"
        for said in result.value:
            assert said.startswith("StoreError: ")
            assert "another process" in said
        # And no answer of the parent's has gone astray
        await place.finish(handles + [await place.submit(producer, order()) for _ in range(10)], 20)
        assert worker.popen.poll() is None
        assert "Protocol" not in worker.said
        assert (await place.judge("F-13")).doubled == 0


async def test_a_task_that_uses_up_the_memory_three_times_is_poison_and_others_go_on(
    empty: Server, tmp_path: Path
) -> None:
    with memory_group(GROUP_BYTES) as group:
        async with place_on(empty, tmp_path) as place:
            producer = await place.producer()
            # Given two workers whose memory the kernel bounds, where that may be done; else the task kills its process
            # as the kernel would
            join = {} if group is None else {"MEMORY_GROUP": str(group.path)}
            fleet = place.worker("--processes", "2", "--concurrency", "4", **join)
            # and a task that takes more, with other work all the while
            hog = await place.submit(producer, leave.s("oom" if group is None else "kernel"))
            assert hog is not None
            others, until_s = [], time.monotonic() + 120
            done = asyncio.create_task(hog.wait())
            while not done.done() and time.monotonic() < until_s:
                others.append(asyncio.create_task(_seconds(place, producer)))
                await asyncio.sleep(0.1)
            # Then after three deaths it is set aside
            assert done.done(), fleet.said
            result = done.result()
            assert (result.status, result.error.type if result.error else "") == ("failed", "Poison")
            (node,) = await producer.store.nodes(hog.id)
            assert (node.attempt, node.losses) == (0, 3)
            await until(lambda: fleet.said.count("ended with SIGKILL") >= 3, 20, lambda: fleet.said)
            place.tries += fleet.said.count("ended with SIGKILL")
            assert place.tries == 3
            assert group is None or group.kills() == 3
            # And others were held up for as long as a lost lease takes to be found, not for longer
            took = sorted(await asyncio.gather(*others))
            middle = took[len(took) // 2]
            print(f"\nof {len(took)} other tasks the middle one took {middle:.3f} s, the last {took[-1]:.1f} s")
            assert took[-1] < HELD_UP_S
            await place.judge("F-14 by its own hand" if group is None else "F-14 by the kernel", {})


async def _seconds(place: Place, producer: Stemflow) -> float:
    """How long a task takes from its submission to its end."""
    began = time.monotonic()
    await place.finish([await place.submit(producer, step.s(1))], HELD_UP_S)
    return time.monotonic() - began


@pytest.mark.parametrize("ahead_s", [3_600, -3_600])
async def test_the_wall_clock_of_a_worker_decides_nothing(ahead_s: int, empty: Server, tmp_path: Path) -> None:
    async with place_on(empty, tmp_path) as place:
        producer = await place.producer()
        # Given one worker whose clock is wrong by an hour, and one whose clock is right
        await place.worker(WALL_CLOCK_S=str(ahead_s)).ready()
        await place.worker().ready()
        place.tries += 1
        # When orders, delayed tasks, and tasks longer than their lease run
        handles = [await place.submit(producer, order()) for _ in range(10)]
        handles += [await place.submit(producer, step.s(1, 2.5)) for _ in range(4)]
        later = [await place.submit(producer, step.with_options(countdown=1.5).s(1)) for _ in range(4)]
        began_ns = time.monotonic_ns()
        await place.finish(handles + later, 20)
        # Then nothing is taken for lost or due too soon
        runs = {handle.id for handle in later if handle is not None}
        starts = [one.at_ns for one in place.witness.sights() if one.event == "begin" and one.run in runs]
        assert min(starts) - began_ns > 1.2e9
        verdict = await place.judge(f"F-36 {ahead_s:+d} s", {})
        assert verdict.doubled == 0


async def test_a_handler_that_holds_the_loop_past_its_lease_loses_neither_its_own_nor_others(
    empty: Server, tmp_path: Path
) -> None:
    async with place_on(empty, tmp_path) as place:
        producer = await place.producer()
        blocked = await place.worker().ready()
        # Given tasks at work next to one that holds the event loop for three leases
        handles = [await place.submit(producer, step.s(n, 1.0)) for n in range(4)]
        await place.seen("begin", 4)
        handles.append(await place.submit(producer, hold.s(3.0)))
        await place.seen("begin", 5)
        place.tries += 1
        # When another worker looks for lost leases all the while
        await place.worker().ready()
        await place.finish(handles, 20)
        # Then nothing was run again, and the log names who did it
        assert (await place.judge("F-58", {})).doubled == 0
        assert "task hold" in blocked.said
        assert "has held the event loop" in blocked.said


async def test_a_handler_that_swallows_its_cancellation_is_given_up_and_the_worker_serves_on(
    empty: Server, tmp_path: Path
) -> None:
    async with place_on(empty, tmp_path) as place:
        producer = await place.producer()
        worker = await place.worker("--concurrency", "3").ready()
        # Given two handlers that swallow their cancellation at the hard limit
        stuck = [await place.submit(producer, stubborn.s(8)) for _ in range(2)]
        await place.seen("begin", 2)
        place.tries += 2
        began = time.monotonic()
        for handle in stuck:
            assert handle is not None
            assert (await asyncio.wait_for(handle.wait(), 10)).status == "failed"
        assert time.monotonic() - began < 7
        # Then the slot that is left serves on
        await place.finish([await place.submit(producer, step.s(n)) for n in range(10)], 10)
        # And all slots when they have ended
        await place.seen("end", 12)
        await place.finish([await place.submit(producer, step.s(n)) for n in range(10)], 10)
        worker.signal(signal.SIGTERM)
        assert await worker.ends() == 0
        await place.judge("F-59", {})
