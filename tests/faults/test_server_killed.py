"""F-25: kill -9 of the server under load, with and without persistence."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from stemflow.store.base import StateLost
from stemflow.testing.servers.server import Server
from tests.faults.net_world import net_on
from tests.faults.table import record

pytestmark = [pytest.mark.faults, pytest.mark.serial]


@pytest.fixture(params=["always", "everysec"])
def durable(request: pytest.FixtureRequest, server: Server, tmp_path: Path) -> Iterator[Server]:
    settings = ["appendonly yes", f"appendfsync {request.param}"]
    with Server(server.binary, tmp_path / "own", settings) as started:
        yield started


@pytest.fixture
def forgetful(one_server: Server, tmp_path: Path) -> Iterator[Server]:
    with Server(one_server.binary, tmp_path / "own") as server:
        yield server


async def test_with_an_append_only_file_a_killed_server_loses_nothing(durable: Server, tmp_path: Path) -> None:
    async with net_on(durable, tmp_path) as net:
        net.pause_s = 0.02
        engines = [await net.engine(durable.url) for _ in range(3)]
        producer = await net.engine(durable.url, worker=False)
        handles = []
        for _ in range(5):
            # Given orders that are submitted all the while
            coming = [asyncio.create_task(net.submit(producer)) for _ in range(20)]
            await asyncio.sleep(0.05)
            # When the server is killed and started again
            await asyncio.to_thread(durable.kill_between_syncs)
            net.tries += 1
            await asyncio.sleep(0.2)
            await asyncio.to_thread(durable.start)
            handles += await asyncio.gather(*coming)
        # Then everything ends, and nobody thinks that something was lost
        await net.finish(handles)
        assert (await net.judge(f"F-25 {durable.settings[1]}")).doubled == 0
        assert [app.store.epoch for app in (*engines, producer)] == [0] * 4


async def test_without_persistence_a_killed_server_is_reported_and_nobody_hangs(
    forgetful: Server, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with net_on(forgetful, tmp_path) as net:
        net.pause_s = 0.2
        engines = [await net.engine(forgetful.url, concurrency=5) for _ in range(3)]
        producer = await net.engine(forgetful.url, worker=False)
        told: list[str] = []
        gone = 0
        signals = net.registry.signals
        signals.worker_error.connect(lambda event: told.append(event.error.type if event.error else ""))
        for turn in range(2):
            # Given orders of which not all can have ended
            handles = [await net.submit(producer) for _ in range(30)]
            waiting = [asyncio.create_task(handle.wait()) for handle in handles if handle is not None]
            await asyncio.sleep(0.4)
            # When the server loses them
            with caplog.at_level(logging.CRITICAL, "stemflow.store"):
                await asyncio.to_thread(forgetful.kill)
                net.tries += 1
                await asyncio.to_thread(forgetful.start)
                # Then waiters are notified
                began = time.monotonic()
                results = await asyncio.wait_for(asyncio.gather(*waiting, return_exceptions=True), 15)
            took = time.monotonic() - began
            lost = sum(isinstance(one, StateLost) for one in results)
            assert lost > 0
            gone += lost
            assert all(isinstance(one, StateLost) or one.status == "succeeded" for one in results), results
            # And every engine says so, and all of them work on
            await net.orders(producer, 10, 15)
            await asyncio.sleep(1.5)
            assert [app.store.epoch for app in (*engines, producer)] == [turn + 1] * 4
            print(f"\nF-25 without persistence: of 30 runs {lost} were lost; all who waited knew after {took:.1f} s")
        assert sum("has lost data" in one.getMessage() for one in caplog.records) >= 8
        assert told.count("StateLost") >= 2
        record("F-25 no persistence", runs=80, tries=net.tries, lost=gone, doubled=0, stuck=0)
