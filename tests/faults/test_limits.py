"""Time limits and isolation against the wall clock, with processes that really die."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stemflow import Processes, Stemflow, TaskRegistry
from stemflow.runtime.worker import loop_watchdog as renew_watch
from tests.faults import limit_tasks as tasks

pytestmark = [pytest.mark.faults, pytest.mark.serial]

PROGRAM = Path(tasks.__file__)
ROOT = PROGRAM.parents[2]


def lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def lines(path: Path) -> list[list[str]]:
    return [line.split() for line in path.read_text().splitlines()] if path.exists() else []


async def until(condition: Callable[[], Any], seconds: float = 30) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.002)


def worker(url: str, *runs: str) -> subprocess.Popen[bytes]:
    """A worker in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen([sys.executable, str(PROGRAM), url, *runs], env=environment)


@pytest.mark.parametrize("how", ["spins", "blocks in C", "sleeps"])
async def test_a_process_is_killed_within_100_ms_of_its_hard_limit(how: str, tmp_path: Path) -> None:
    # Given a pool of one process, warm, and a handler that never ends
    path = tmp_path / "note"
    late_ms: list[float] = []
    async with Stemflow("memory:", tasks.registry, processes=Processes(size=1)) as app:
        # A machine that is busy with other things may wake nobody in time, but not three times in a row.
        while len(late_ms) < 3 and (not late_ms or late_ms[-1] >= 100):
            await app.run(tasks.quick.s())
            handle = await app.submit(tasks.overruns.s(str(path), how))
            await until(lambda: len(lines(path)) > len(late_ms))
            _, pid, begun = lines(path)[-1]

            # When its limit of 500 ms passes, then it is dead within 100 ms, and its slot is free again
            await until(lambda pid=pid: not lives(int(pid)))
            late_ms.append((time.monotonic() - float(begun)) * 1_000 - 500)
            result = await handle.wait(10)
            assert result.error is not None
            assert result.error.type == "TaskTimeout"
            assert await app.run(tasks.quick.s()) != int(pid)
    print(f"{how}: dead {late_ms[-1]:.0f} ms after its hard limit")
    assert late_ms[-1] < 100


async def test_a_handler_that_holds_the_loop_for_two_leases_loses_nothing(tmp_path: Path) -> None:
    # Given a handler that holds its worker's loop for two leases, and a second worker that would take it over
    url, path = f"sqlite:{tmp_path / 'runs.db'}", tmp_path / "note"
    async with Stemflow(url, tasks.registry, worker=False) as app:
        handle = await app.submit(tasks.holds.s(str(path), 2.5))
        first = worker(url, handle.id)
        try:
            await until(lambda: lines(path))
            second = worker(url)
            try:
                # When it has ended, then it ran once, and no delivery was lost
                assert (await handle.wait(30)).value == "done"
                assert len(lines(path)) == 1
                assert [(node.losses, node.delivery) for node in await handle.records()] == [(0, 1)]
            finally:
                second.kill()
                second.wait()
            assert first.wait(30) == 0
        finally:
            first.kill()
            first.wait()


@pytest.mark.parametrize("task", [tasks.holds_beyond, tasks.holds_unlimited], ids=["hard limit", "ten leases"])
async def test_a_handler_that_holds_the_loop_for_too_long_loses_its_lease(tmp_path: Path, task: Any) -> None:
    """Beyond its hard limit of 0.5 s and 2 s more with a lease of 1 s; without a limit, beyond ten leases of 0.2 s."""
    url, path = f"sqlite:{tmp_path / 'runs.db'}", tmp_path / "note"
    async with Stemflow(url, tasks.registry, worker=False) as app:
        handle = await app.submit(task.s(str(path), 15))
        first = worker(url, handle.id)
        try:
            await until(lambda: lines(path))
            async with Stemflow(url, TaskRegistry()):  # it sweeps, and knows no task
                await until_lost(handle)
        finally:
            first.kill()
            first.wait()


async def until_lost(handle: Any) -> None:
    begun = time.monotonic()
    async with asyncio.timeout(14):
        while [node.losses for node in await handle.records()] != [1]:
            await asyncio.sleep(0.05)
    print(f"lost {time.monotonic() - begun:.1f} s after it began")


async def test_a_handler_that_holds_the_loop_is_named(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    caplog.set_level(logging.WARNING, "stemflow.watch")
    async with Stemflow("memory:", tasks.registry) as app:
        await app.run(tasks.holds.s(str(tmp_path / "note"), 0.4))
    (said,) = [record.getMessage() for record in caplog.records if record.name == "stemflow.watch"]
    assert said.startswith("task holds (")
    assert "has held the event loop for more than 100 ms, at " in said
    assert "time.sleep(seconds)" in said


async def test_a_handler_that_holds_the_loop_again_and_again_is_named_once_in_a_while(
    caplog: pytest.LogCaptureFixture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a period of 2 s, in which many tasks of one handler hold the loop
    monkeypatch.setattr(renew_watch, "AGAIN_S", 2.0)
    caplog.set_level(logging.WARNING, "stemflow.watch")
    async with Stemflow("memory:", tasks.registry) as app:
        for _ in range(4):
            await app.run(tasks.holds.s(str(tmp_path / "note"), 0.3))
        await asyncio.sleep(1.5)
        await app.run(tasks.holds.s(str(tmp_path / "note"), 0.3))

    # Then one of them is named with its stack, and the next time how many were not
    said = [record.getMessage() for record in caplog.records if record.name == "stemflow.watch"]
    assert len(said) == 2
    assert "(task holds did so 3 more times since the last warning)" in said[1]


async def test_processes_and_what_they_have_started_die_with_a_worker_that_is_killed(tmp_path: Path) -> None:
    url, path = f"sqlite:{tmp_path / 'runs.db'}", tmp_path / "note"
    async with Stemflow(url, tasks.registry, worker=False) as app:
        await app.submit(tasks.parent.s(str(path)))
        process = worker(url)
        try:
            await until(lambda: lines(path))
            ((child, grandchild),) = lines(path)
            assert lives(int(child)) and lives(int(grandchild))
        finally:
            process.kill()
            process.wait()
        await until(lambda: not lives(int(child)) and not lives(int(grandchild)), 5)


async def test_the_terminal_signals_of_a_worker_end_no_process_of_its_pool() -> None:
    async with Stemflow("memory:", tasks.registry, processes=Processes(size=1)) as app:
        pid = await app.run(tasks.quick.s())
        for number in (signal.SIGINT, signal.SIGTERM):
            os.kill(pid, number)
        assert await app.run(tasks.quick.s()) == pid


async def test_one_that_kills_its_worker_is_named_and_its_neighbours_are_not_blamed(tmp_path: Path) -> None:
    # Given a task that kills its worker each time, among neighbours that need longer than it does
    url, path = f"sqlite:{tmp_path / 'runs.db'}", tmp_path / "note"
    async with Stemflow(url, tasks.registry, worker=False) as app:
        culprit = await app.submit(tasks.kills_worker.s(str(path)))
        neighbours = [await app.submit(tasks.neighbour.s(str(path), n)) for n in range(5)]
        runs = [culprit.id, *(one.id for one in neighbours)]

        # When a worker is started again whenever it has died
        deaths = 0
        while (code := await asyncio.to_thread(worker(url, *runs).wait, 60)) != 0:
            assert code == 9
            deaths += 1
            assert deaths < 10

        # Then the culprit is poison after five deaths, and no neighbour was charged with more than two of them
        result = await culprit.wait(10)
        assert result.error is not None
        assert (result.error.type, deaths) == ("Poison", 5)
        for number, neighbour in enumerate(neighbours):
            assert (await neighbour.wait(10)).value == number
            assert [node.losses for node in await neighbour.records()] <= [2]
