"""F-01 to F-04, F-10, F-15: workers that end without a word, at every point of a task's life."""

from __future__ import annotations

import asyncio
import signal
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from stemflow import Signature
from stemflow.model.records import Node
from stemflow.testing.servers.proxy import Call, DropReply, Fate
from stemflow.testing.servers.server import Server
from tests.faults.net_world import name_of
from tests.faults.proc_tasks import blocks, first_slow, leave, step, sys_exit
from tests.faults.proc_world import Place, Process, place_on, until

pytestmark = [pytest.mark.faults, pytest.mark.serial]


@pytest.fixture
def empty(one_server: Server) -> Server:
    one_server.flush()
    return one_server


async def _nodes(place: Place, run: str) -> list[Node]:
    """The tasks of a run, whose `attempt` counts failures."""
    begun = {one.node for one in place.witness.sights() if one.event == "begin" and one.run == run}
    return [node for node in await (await place.producer()).store.nodes(run) if node.path in begun]


def _chain() -> Signature[Any, Any]:
    return step.s(1) | step.s() | step.s() | step.s()


@pytest.mark.parametrize(
    ("fault", "point", "doubled"), [("F-01", "leased", 0), ("F-03", "before report", 1), ("F-04", "after report", 0)]
)
async def test_a_worker_that_is_killed_there_loses_nothing(
    fault: str, point: str, doubled: int, empty: Server, tmp_path: Path
) -> None:
    async with place_on(empty, tmp_path) as place:
        producer = await place.producer()
        for at in (1, 2, 3):
            # Given a run, and a worker that dies at this point
            handle = await place.submit(producer, _chain())
            assert handle is not None
            dying = place.worker(DIE_AT=f"{point}/{at}")
            assert await dying.ends() == -signal.SIGKILL
            place.tries += 1
            # When another comes up
            other = await place.worker().ready()
            began = time.monotonic()
            # Then the run ends soon after the lease, by the same attempts
            await place.finish([handle], 30)
            assert time.monotonic() - began < 10
            nodes = await _nodes(place, handle.id)
            assert {node.attempt for node in nodes} == {0}
            assert sorted(node.losses for node in nodes) == [0, 0, 0, 1]
            other.signal(signal.SIGTERM)
            assert await other.ends() == 0
        verdict = await place.judge(f"{fault} {point}", {})
        assert verdict.doubled == doubled * 3


async def test_a_report_whose_answer_was_not_read_counts_and_its_task_is_not_run_again(
    empty: Server, tmp_path: Path
) -> None:
    async with place_on(empty, tmp_path) as place:
        producer = await place.producer()
        proxy = await place.proxy()
        for _ in range(3):
            # Given a worker that is suspended as soon as its report is on the line
            handle = await place.submit(producer, _chain())
            assert handle is not None
            dying = place.worker(url=proxy.url + "?prefix=stemflow")

            def fate(call: Call, dying: Process = dying) -> Fate:
                if name_of(call) != "exchange" or not any(b"[0]" in word for word in call.words):
                    return None
                dying.signal(signal.SIGSTOP)
                return DropReply()

            proxy.fate, struck = fate, proxy.struck
            await until(lambda struck=struck: proxy.struck > struck)
            # When it is killed before it reads the answer
            await asyncio.sleep(0.05)
            dying.kill_now()
            proxy.fate = lambda call: None
            place.tries += 1
            other = await place.worker().ready()
            # Then its report is kept
            await place.finish([handle], 30)
            begun = Counter(one.node for one in place.witness.sights() if one.event == "begin" and one.run == handle.id)
            assert begun["[0]"] == 1
            other.signal(signal.SIGTERM)
            assert await other.ends() == 0
        assert (await place.judge("F-04", {})).doubled == 0


async def test_a_worker_that_is_killed_in_the_middle_of_handlers_is_charged_as_a_loss_not_an_attempt(
    empty: Server, tmp_path: Path
) -> None:
    async with place_on(empty, tmp_path) as place:
        producer = await place.producer()
        for turn in range(3):
            # Given handlers at work
            handles = [await place.submit(producer, first_slow.s(30)) for _ in range(5)]
            dying = place.worker()
            await place.seen("begin", turn * 10 + 5)
            # When their worker is killed and another serves
            dying.kill_now()
            place.tries += 1
            other = await place.worker().ready()
            # Then all run again, by the same attempt
            await place.finish(handles, 30)
            for handle in handles:
                assert handle is not None
                (node,) = await _nodes(place, handle.id)
                assert (node.attempt, node.losses) == (0, 1)
            other.signal(signal.SIGTERM)
            assert await other.ends() == 0
        assert (await place.judge("F-02", {})).doubled == 15


async def test_of_handlers_that_block_the_loop_in_turn_those_that_had_ended_do_not_run_again_after_a_kill(
    empty: Server, tmp_path: Path
) -> None:
    async with place_on(empty, tmp_path) as place:
        # Given a worker with many leases, whose handlers block its event loop for longer than a lease in all
        producer = await place.producer()
        handles = [await place.submit(producer, blocks.s(0.2)) for _ in range(30)]
        dying = place.worker()
        await place.seen("end", 12)
        # When it is killed
        dying.kill_now()
        place.tries += 1
        ended = {one.run for one in place.witness.sights() if one.event == "end"}
        # Then at most the one that ended last runs again, besides those that had not ended
        await place.worker().ready()
        await place.finish(handles, 40)
        again = Counter(one.run for one in place.witness.sights() if one.event == "end")
        assert sum(again[run] > 1 for run in ended) <= 1
        assert set(again) == {handle.id for handle in handles if handle is not None}


async def test_after_all_workers_were_killed_one_that_starts_much_later_takes_no_more_than_it_has_slots_for(
    empty: Server, tmp_path: Path
) -> None:
    async with place_on(empty, tmp_path) as place:
        producer = await place.producer()
        # Given three workers at work, and more that waits
        workers = [await place.worker("--concurrency", "10").ready() for _ in range(3)]
        handles = [await place.submit(producer, first_slow.s(2, 0.2)) for _ in range(60)]
        await place.seen("begin", 30)
        # When all are killed, and one starts after many leases
        for worker in workers:
            worker.kill_now()
            place.tries += 1
        await asyncio.sleep(5)
        before = len(place.witness.sights())
        place.worker("--concurrency", "10")
        await place.finish(handles, 40)
        # Then it never held more than its slots
        at_once = most = 0
        for sight in place.witness.sights()[before:]:
            at_once += {"begin": 1, "end": -1}.get(sight.event, 0)
            most = max(most, at_once)
        assert 5 < most <= 10
        await place.judge("F-10", {})


@pytest.mark.parametrize("how", ["exit", "segv"])
async def test_a_handler_that_ends_its_whole_process_has_crashed_not_succeeded(
    how: str, empty: Server, tmp_path: Path
) -> None:
    async with place_on(empty, tmp_path) as place:
        producer = await place.producer()
        # Given a task that takes its worker with it each time
        handle = await place.submit(producer, leave.with_options(max_deliveries=2).s(how))
        assert handle is not None
        for _ in range(2):
            worker = place.worker()
            assert await worker.ends() == (0 if how == "exit" else -signal.SIGSEGV)
            place.tries += 1
        # Then it is poison in the end, and nobody takes it for a success
        place.worker()
        result = await asyncio.wait_for(handle.wait(), 30)
        assert (result.status, result.error.type if result.error else "") == ("failed", "Poison")
        await place.judge(f"F-15 {how}", {})


async def test_a_handler_that_calls_sys_exit_has_failed_and_its_worker_goes_on(empty: Server, tmp_path: Path) -> None:
    async with place_on(empty, tmp_path) as place:
        producer = await place.producer()
        worker = await place.worker().ready()
        for _ in range(3):
            handle = await place.submit(producer, sys_exit.s())
            assert handle is not None
            place.tries += 1
            assert (await asyncio.wait_for(handle.wait(), 10)).status == "failed"
            await place.finish([await place.submit(producer, step.s(1))], 10)
        assert worker.popen.poll() is None
        await place.judge("F-15 sys.exit", {})
