"""F-31: the disk is full. On SQLite new work is refused and reports are kept until there is room; a server whose file
cannot be written says so."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from stemflow.store.base import StoreUnavailable
from stemflow.store.redis import client
from stemflow.testing.servers.proxy import Answer
from stemflow.testing.servers.server import Server
from tests.faults.net_world import every, net_on
from tests.faults.table import record

pytestmark = pytest.mark.faults

FULL = "MISCONF Errors writing to the AOF file: No space left on device"
ON_SQLITE = """
import asyncio, resource, signal, sys
from stemflow import Stemflow, TaskContext, TaskRegistry
from stemflow.store.base import BackpressureError, StoreError

registry = TaskRegistry()
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # writes past the limit fail, as on a full disk

@registry.task("step", max_retries=0)
async def step(context: TaskContext, text: str) -> str:
    await asyncio.sleep(1)
    return text

def room(left):
    resource.setrlimit(resource.RLIMIT_FSIZE, (left, resource.RLIM_INFINITY))

async def main(url):
    async with Stemflow(url, registry) as app:
        handles = [await app.submit(step.s("x" * 1_000)) for _ in range(20)]
        await asyncio.sleep(0.2)
        room(4_096)
        refused = 0
        for _ in range(5):
            try:
                await app.submit(step.s("y" * 100_000))
            except StoreError as error:
                refused += 1
                print("said", type(error).__name__, error, flush=True)
        await asyncio.sleep(2)
        room(resource.RLIM_INFINITY)
        results = [await handle.wait(30) for handle in handles]
        states = {result.status for result in results}
        attempts = {(await handle.root()).attempt for handle in handles}
        print("refused", refused, "states", *states, "attempts", *attempts, "runs", len(await app.store.runs(1_000)))

asyncio.run(main(sys.argv[1]))
"""


def test_a_full_disk_under_sqlite_refuses_work_and_loses_no_report(tmp_path: Path) -> None:
    url = f"sqlite:{tmp_path / 'runs.db'}"
    done = subprocess.run(
        [sys.executable, "-c", ON_SQLITE, url], check=False, capture_output=True, text=True, timeout=45
    )
    print(done.stdout)
    assert done.returncode == 0, done.stderr[-3_000:]
    assert "refused 5 states succeeded attempts 0 runs 20" in done.stdout
    record("F-31 SQLite", runs=20, tries=5, lost=0, doubled=0, stuck=0)


@pytest.fixture
def own(one_server: Server, tmp_path: Path) -> Iterator[Server]:
    with Server(one_server.binary, tmp_path / "own", ["appendonly yes"]) as server:
        yield server


async def test_a_server_whose_file_cannot_be_written_refuses_work_and_reports_wait(
    own: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "PATIENCE_S", 0.3)
    async with net_on(own, tmp_path) as net:
        net.pause_s = 0.3
        proxy = await net.proxy()
        app = await net.engine(proxy.url)
        handles = [await net.submit(app) for _ in range(10)]
        # When the server answers each write with an error, for a while
        proxy.fate = every(1, ("submit", "exchange", "take_expired", "renew", "put_hint"), Answer(FULL))
        with pytest.raises(StoreUnavailable, match="No space left"):
            await app.submit(net.order())
        proxy.fate = lambda call: None
        # Then all that was under way ends
        await net.finish(handles)
        net.tries = proxy.struck
        assert (await net.judge("F-31 server")).doubled == 0
