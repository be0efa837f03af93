"""Promises that cross processes, with real ones: a child works on the same file and is killed."""

import asyncio
import signal
import sys
from pathlib import Path

import pytest

from stemflow.model.records import SUCCEEDED
from stemflow.runtime.clock import SystemClock
from stemflow.store.open import open_store
from stemflow.testing.contract.world import RUN, User, leaf

pytestmark = pytest.mark.faults

CHILD = """
import asyncio, sys
from stemflow.runtime.clock import SystemClock
from stemflow.model.effects import Decision, RunEnd
from stemflow.store.open import open_store
from stemflow.store.process_owner import owner_id
from stemflow.testing.contract.world import User, change, succeed

async def main(url):
    store = open_store(url, SystemClock())
    await store.open()
    user = User(store, owner_id("child"))
    leases = await user.lease(1)
    while leases:
        done = Decision(puts=tuple(map(succeed, leases)))
        answer = await user.exchange(done, want=user.want(1))
        for lease in leases:
            print(lease.node.path, flush=True)
        leases = answer.leases
    root = await user.node("")
    await user.commit(change(root, state="succeeded"), ended=(RunEnd("r", 1_000),))

asyncio.run(main(sys.argv[1]))
"""


async def child(url: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(sys.executable, "-c", CHILD, url, stdout=asyncio.subprocess.PIPE)


async def test_what_was_acknowledged_to_a_killed_process_is_kept_and_its_lease_is_lost_at_once(tmp_path: Path) -> None:
    url = f"sqlite:{tmp_path / 'store.db'}"
    store = open_store(url, SystemClock())
    await store.open()
    await User(store, "parent").begin(*(leaf(f"[{i}]", lease_ms=600_000) for i in range(20_000)))
    process = await child(url)
    assert process.stdout is not None
    told = [(await process.stdout.readline()).decode().strip() for _ in range(50)]
    process.send_signal(signal.SIGKILL)
    told += [line.decode().strip() async for line in process.stdout]
    await process.wait()
    states = {node.path: node.state for node in await store.nodes(RUN)}
    assert {states[path] for path in told if path} == {SUCCEEDED}
    assert len(await store.take_expired("parent", 10)) == 1
    await store.close()


async def test_the_end_of_a_run_is_notified_to_another_process(tmp_path: Path) -> None:
    url = f"sqlite:{tmp_path / 'store.db'}"
    store = open_store(url, SystemClock())
    await store.open()
    await User(store, "parent").begin(leaf("a"))
    ended = store.watch(RUN)
    process = await child(url)
    await asyncio.wait_for(ended, 30)
    await process.communicate()
    await store.close()


async def test_processes_that_work_side_by_side_share_the_work(tmp_path: Path) -> None:
    url = f"sqlite:{tmp_path / 'store.db'}"
    store = open_store(url, SystemClock())
    await store.open()
    await User(store, "parent").begin(*(leaf(f"[{i}]") for i in range(400)))
    processes = [await child(url) for _ in range(3)]
    printed = [line for process in processes for line in (await process.communicate())[0].decode().split()]
    await store.close()
    assert sorted(printed) == sorted(f"[{i}]" for i in range(400))
