"""F-67: a rate limit under several workers, a server that is suspended, and retries."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from stemflow import RateLimit, Stemflow, TaskContext, TaskRegistry
from stemflow.model.records import Node
from stemflow.runtime.clock import SystemClock
from stemflow.store.open import open_store
from stemflow.testing.history.rate_ledger import Ledger
from stemflow.testing.servers.server import Server
from tests.faults.proc_tasks import limited
from tests.faults.proc_world import Place, Process, place_on, until

pytestmark = [pytest.mark.faults, pytest.mark.serial]

WORKERS, TASKS, STILL_S = 8, 25, 1.5
PROCESS_TASKS = 24
_CLOCKS = ("0", "0", "3600", "-3600")
LATE_S = 10.0
"""For how long a lost lease of two seconds may hold up the last task, at most, on a machine that does other things."""
DISPATCH_S = 0.25
"""From the lease to the first line of a handler, at most, on a machine that does other things too."""


@pytest.mark.parametrize("pace", [False, True])
async def test_no_window_has_more_starts_although_the_server_is_suspended_and_tasks_are_retried(
    one_server: Server, pace: bool
) -> None:
    # Given eight workers, and tasks of one limit of ten in a second that fail once
    one_server.flush()
    registry, seen, leased = TaskRegistry(), list[float](), list[tuple[int, Node]]()

    @registry.task("call", rate_limit=RateLimit(10, "1s", pace=pace), max_retries=1, retry={"initial": "10ms"})
    async def call(context: TaskContext) -> None:
        seen.append(time.monotonic())
        if context.attempt == 0:
            raise ValueError

    async with AsyncExitStack() as opened:
        apps = [await opened.enter_async_context(_watched(one_server.url, registry, leased)) for _ in range(WORKERS)]

        # When the server is suspended in the middle
        handles = await apps[0].submit_many([call.si() for _ in range(TASKS)])
        await asyncio.sleep(1.2)
        os.kill(one_server.pid, signal.SIGSTOP)
        await asyncio.sleep(STILL_S)
        os.kill(one_server.pid, signal.SIGCONT)
        results = await asyncio.gather(*[handle.wait(30) for handle in handles])

    # Then every task has ended, each with two starts; by the clock of the store none was too many,
    assert {result.status for result in results} == {"succeeded"}
    assert len(seen) == len(leased) == 2 * TASKS
    ledger = Ledger()
    assert [told for at_ms, node in sorted(leased, key=_instant) for told in ledger.start(node.limits, at_ms)] == []
    # and by that of the handlers the tenth after each began a second later, but for the way to it.
    assert min(later - earlier for earlier, later in zip(seen, seen[10:], strict=False)) > 1 - DISPATCH_S


async def test_no_window_holds_more_starts_over_processes_of_which_one_is_killed_and_others_have_wrong_clocks(
    one_server: Server, tmp_path: Path
) -> None:
    one_server.flush()
    async with place_on(one_server, tmp_path) as place:
        producer, starts = await place.producer(), tmp_path / "starts"
        # Given four worker processes that have been idle for a while, the clocks of two of them an hour wrong
        four = [place.worker("--concurrency", "3", WALL_CLOCK_S=ahead, STARTS=str(starts)) for ahead in _CLOCKS]
        await asyncio.gather(*(one.ready() for one in four))
        handles = [await place.submit(producer, limited.s(number)) for number in range(PROCESS_TASKS)]
        # When one is killed with tasks at work, and the server is suspended for a while
        await until(lambda: _stopped_at_work(four[0], place))
        four[0].kill_now()
        await until(lambda: len(_starts(starts)) >= 15)
        os.kill(one_server.pid, signal.SIGSTOP)
        await asyncio.sleep(STILL_S)
        os.kill(one_server.pid, signal.SIGCONT)
        place.tries += 2
        await place.finish(handles, 30)
        # Then by the clock of the store no window of a second has more than ten starts,
        instants = _starts(starts)
        assert min(later - earlier for earlier, later in zip(instants, instants[10:], strict=False)) >= 1_000
        # and those of the dead one, who may not have written all of his down, hold nobody up forever
        assert len(instants) >= PROCESS_TASKS
        print(f"\n{len(instants)} starts in {instants[-1] - instants[0]} ms, the server stood still for {STILL_S} s")
        assert instants[-1] - instants[0] < 100 * len(instants) + 1_000 * (STILL_S + LATE_S)
        verdict = await place.judge("F-67", {})
        assert verdict.doubled > 0


def _stopped_at_work(process: Process, place: Place) -> bool:
    """Stop it, and let it go on if no task of it is at work."""
    process.signal(signal.SIGSTOP)
    mine = [one.event for one in place.witness.sights() if one.pid == process.popen.pid]
    if mine.count("begin") > mine.count("end"):
        return True
    process.signal(signal.SIGCONT)
    return False


def _starts(path: Path) -> list[int]:
    """In the order of time."""
    return sorted(int(line.split()[0]) for line in path.read_text().splitlines()) if path.exists() else []


def _instant(leased: tuple[int, Node]) -> int:
    return leased[0]


def _watched(url: str, registry: TaskRegistry, leased: list[tuple[int, Node]]) -> Stemflow:
    """An engine that notes what it leased, and when by the clock of the store."""
    store = open_store(url, SystemClock())
    exchange = store.exchange

    async def watching(*asked: Any) -> Any:
        answer = await exchange(*asked)
        leased.extend((lease.until_ms - lease.node.lease_ms, lease.node) for lease in answer.leases)
        return answer

    store.exchange = watching  # type: ignore[method-assign]
    return Stemflow(url, registry, store=store, concurrency=3)
