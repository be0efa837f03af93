"""F-11, F-12, F-62 and docs/workers.md: `stemflow worker` as a process on a server, told to stop in every way."""

from __future__ import annotations

import asyncio
import os
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from stemflow.runtime.runs.handle import RunHandle
from stemflow.testing.servers.server import Server
from tests.faults.proc_tasks import first_slow, step, stubborn
from tests.faults.proc_world import ROOT, Place, Process, place_on, until

pytestmark = [pytest.mark.faults, pytest.mark.serial]

YAML = """
stemflow: "1"
name: hello
chain:
  - {task: step, args: {value: 1}}
  - {task: step, args: {value: "${{ prev }}"}}
"""


@pytest.fixture
def empty(one_server: Server) -> Server:
    one_server.flush()
    return one_server


async def _at_work(place: Place, worker: Process, first_s: float, count: int = 4) -> list[RunHandle[Any]]:
    """Handlers at work in the worker, under leases that a busy machine does not lose."""
    await worker.ready()
    app, slow = await place.producer(), first_slow.with_options(visibility_timeout="3s")
    before = sum(one.event == "begin" for one in place.witness.sights())
    handles = [await place.submit(app, slow.s(first_s)) for _ in range(count)]
    await place.seen("begin", before + count)
    return [handle for handle in handles if handle is not None]


async def _handed_back(place: Place, handles: list[RunHandle[Any]], patience_s: float) -> None:
    """Another worker, who is there already, begins all of them again in time, uncharged."""
    told_at_ns = time.monotonic_ns()
    before = sum(one.event == "begin" for one in place.witness.sights())
    begun = (await place.seen("begin", before + len(handles)))[before:]
    took_s = (max(one.at_ns for one in begun) - told_at_ns) / 1e9
    assert took_s < patience_s
    await place.finish(handles, 20)
    nodes = [node for handle in handles for node in await handle.records()]
    assert {(node.attempt, node.losses) for node in nodes} == {(0, 0)}
    print(f"\nhanded back and begun elsewhere after {took_s * 1_000:.0f} ms")


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
async def test_the_first_signal_lets_running_tasks_end_and_leases_nothing_more(
    how: signal.Signals, empty: Server, tmp_path: Path
) -> None:
    async with place_on(empty, tmp_path) as place:
        worker = place.worker()
        handles = await _at_work(place, worker, 2.0)
        worker.signal(how)
        await until(lambda: "nothing more is leased" in worker.said)
        later = await place.submit(await place.producer(), step.s(1))
        assert await worker.ends() == 0
        place.tries += 1
        # Then what ran has ended there, and what came later has not begun
        await place.finish(handles, 5)
        assert {one.event for one in place.witness.sights() if later and one.run == later.id} == set()
        place.worker()
        await place.finish([later])
        assert (await place.judge(f"F-11 {how.name} once", {})).doubled == 0


async def test_tasks_that_outlast_the_grace_are_handed_back_at_its_end(empty: Server, tmp_path: Path) -> None:
    async with place_on(empty, tmp_path) as place:
        worker = place.worker("--grace", "500ms")
        handles = await _at_work(place, worker, 60)
        await place.worker().ready()
        worker.signal(signal.SIGTERM)
        place.tries += 1
        await _handed_back(place, handles, 1.5)
        assert await worker.ends() == 0
        await place.judge("F-11 grace", {})


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
async def test_the_second_signal_returns_tasks_at_once_and_another_worker_starts_them_within_a_second(
    how: signal.Signals, empty: Server, tmp_path: Path
) -> None:
    async with place_on(empty, tmp_path) as place:
        worker = place.worker()
        handles = await _at_work(place, worker, 60)
        await place.worker().ready()
        worker.signal(how)
        await until(lambda: "nothing more is leased" in worker.said)
        worker.signal(how)
        place.tries += 1
        await _handed_back(place, handles, 1.0)
        assert await worker.ends() == 0
        await place.judge(f"F-11 {how.name} twice", {})


@pytest.mark.parametrize("how", [signal.SIGQUIT, signal.SIGTERM])
async def test_a_hard_end_is_at_once_and_what_ran_is_leased_again_when_its_lease_has_run_out(
    how: signal.Signals, empty: Server, tmp_path: Path
) -> None:
    async with place_on(empty, tmp_path) as place:
        worker = await place.worker().ready()
        # Given a handler that swallows its cancellation, so that the second signal cannot end the process
        handle = await place.submit(await place.producer(), stubborn.with_options(hard_time_limit="60s").s(20))
        await place.seen("begin")
        if how == signal.SIGTERM:
            for times in (1, 2):
                worker.signal(how)
                await until(lambda times=times: worker.said.count("SIGTERM: ") == times)
            await asyncio.sleep(0.3)
            assert worker.popen.poll() is None
        worker.signal(how)
        assert await worker.ends(2) == 130
        place.tries += 1
        assert "exited at once" in worker.said
        # Then another begins it by the same attempt
        place.worker()
        await place.seen("begin", 2, 15)
        assert handle is not None
        (node,) = await handle.records()
        assert (node.attempt, node.losses) == (0, 1 if how == signal.SIGQUIT else node.losses)
        await handle.cancel(force=True)
        await place.judge(f"F-11 hard by {how.name}", {})


async def test_a_worker_with_the_name_of_one_that_drains_does_not_take_over_its_tasks(
    empty: Server, tmp_path: Path
) -> None:
    async with place_on(empty, tmp_path) as place:
        old = place.worker("--name", "one")
        handles = await _at_work(place, old, 4.0)
        old.signal(signal.SIGTERM)
        place.tries += 1
        new = await place.worker("--name", "one").ready()
        await place.finish([await place.submit(await place.producer(), step.s(1))])
        await place.finish(handles)
        assert await old.ends() == 0
        assert {one.pid for one in place.witness.sights() if one.event == "end"} == {old.popen.pid, new.popen.pid}
        assert (await place.judge("F-12", {})).doubled == 0


async def test_a_fleet_serves_its_queues_starts_again_what_dies_and_passes_signals_on(
    empty: Server, tmp_path: Path
) -> None:
    async with place_on(empty, tmp_path) as place:
        # Given two processes that serve one of two queues
        fleet = place.worker("--processes", "2", "--queues", "mine", "--concurrency", "1")
        await until(lambda: fleet.said.count(" serves ") == 2, 40, lambda: fleet.said)
        producer = await place.producer()
        other = await place.submit(producer, step.with_options(queue="other").s(1))
        handles = [await place.submit(producer, first_slow.with_options(queue="mine").s(3)) for _ in range(2)]
        begun = await place.seen("begin", 2)
        assert len({one.pid for one in begun}) == 2
        # When one of them is killed
        os.kill(begun[0].pid, signal.SIGKILL)
        place.tries += 1
        # Then it is started again, its task is not lost, and the other queue is left alone
        await until(lambda: fleet.said.count(" serves ") == 3, 40, lambda: fleet.said)
        await place.finish(handles)
        assert other is not None
        assert not any(one.run == other.id for one in place.witness.sights())
        fleet.signal(signal.SIGTERM)
        assert await fleet.ends() == 0
        place.worker("--queues", "other")
        await place.finish([other])
        assert (await place.judge("F-02 fleet", {})).doubled == 1


async def test_a_waiter_in_another_process_is_notified_of_the_end_at_once(empty: Server, tmp_path: Path) -> None:
    async with place_on(empty, tmp_path) as place:
        await place.worker().ready()
        producer = await place.producer()
        late_ms = []
        for _ in range(200):
            handle = await place.submit(producer, step.s(1, 0.01))
            assert handle is not None
            await handle.wait()
            heard_ns = time.monotonic_ns()
            late_ms.append((handle.id, heard_ns))
        ends = {one.run: one.at_ns for one in place.witness.sights() if one.event == "end"}
        waits = sorted((heard - ends[run]) / 1e6 for run, heard in late_ms)
        median, p99 = statistics.median(waits), waits[int(len(waits) * 0.99)]
        print(f"\nfrom the end of the handler to the return of `wait` in another process, 200 tries: "
              f"median {median:.2f} ms, p99 {p99:.2f} ms, most {waits[-1]:.2f} ms")  # fmt: skip
        assert median < 50
        assert p99 < 500


async def test_after_a_restart_of_the_server_workers_and_who_waits_go_on(one_server: Server, tmp_path: Path) -> None:
    with Server(one_server.binary, tmp_path / "own", ["appendonly yes", "appendfsync always"]) as own:
        async with place_on(own, tmp_path / "place") as place:
            await place.worker().ready()
            producer = await place.producer()
            longer = step.with_options(visibility_timeout="10s")
            for _ in range(3):
                handles = [await place.submit(producer, longer.s(1, 0.5)) for _ in range(5)]
                await asyncio.to_thread(own.kill)
                place.tries += 1
                await asyncio.sleep(1)
                await asyncio.to_thread(own.start)
                await place.finish(handles)
                # Then it consumes again, what is submitted later too
                began = time.monotonic()
                await place.finish([await place.submit(producer, step.s(1))])
                assert time.monotonic() - began < 5
            assert (await place.judge("F-25 worker process", {})).doubled == 0


async def test_the_command_submits_for_a_worker_whose_broken_companion_starts_again(
    empty: Server, tmp_path: Path
) -> None:
    async with place_on(empty, tmp_path) as place:
        # Given a worker whose sweeper fails again and again
        broken = await place.worker(BREAK="recover").ready()
        await until(lambda: broken.said.count("recover has failed; it starts again in") >= 2)
        place.tries += 1
        # And a file
        (tmp_path / "hello.yaml").write_text(YAML)
        words = ["submit", str(tmp_path / "hello.yaml"), "--store", place.url]
        command = [sys.executable, "-m", "stemflow.cli.main", *words]
        done = await asyncio.to_thread(
            subprocess.run, command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True,
            text=True, timeout=60,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        # Then the tasks that only the worker knows run there
        handle = await place.clients.submit(done.stdout.strip(), (await place.producer()).handle(done.stdout.strip()))
        await place.finish([handle])
        await place.judge("F-62", {})


async def test_an_idle_worker_that_is_stopped_while_the_server_is_away_ends_quietly(
    one_server: Server, tmp_path: Path
) -> None:
    with Server(one_server.binary, tmp_path / "own") as server:
        async with place_on(server, tmp_path / "place") as place:
            worker = await place.worker().ready()
            # Given a server that has gone, and a worker that has noticed
            server.kill()
            await until(lambda: "cannot be reached" in worker.said)
            worker.signal(signal.SIGTERM)
            # Then it has nothing to wait for, and nothing to complain of
            assert await worker.ends() == 0
            assert "has nothing to report" in worker.said
            assert "Traceback" not in worker.said
            assert "critical" not in worker.said
