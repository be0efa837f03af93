"""F-28: the primary dies, and sentinels promote its replica."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from stemflow.runtime.clock import SystemClock
from stemflow.store.base import StoreError
from stemflow.store.open import open_store
from stemflow.testing.server import Server, Watched
from tests.faults.net_world import net_on

pytestmark = pytest.mark.faults


@pytest.mark.parametrize("sentinels", [1, 3])
async def test_workers_go_on_with_the_replica_when_the_primary_dies(
    sentinels: int, one_server: Server, tmp_path: Path
) -> None:
    with Watched(one_server.binary, tmp_path / "servers", sentinels=sentinels) as watched:
        async with net_on(watched.replica, tmp_path) as net:
            net.pause_s = 0.02
            # Given two workers and a producer that know only the sentinels, with orders under way
            engines = [await net.engine(watched.url) for _ in range(2)]
            producer = await net.engine(watched.url, worker=False)
            await net.orders(producer, 10)
            # and a replica that has heard of everything
            assert watched.primary.ask("WAIT", "1", "5000").startswith(b":1")
            # When the primary is killed
            net.tries += 1
            await asyncio.to_thread(watched.primary.kill)
            began = time.monotonic()
            # Then orders are accepted and carried out again
            while True:
                handle = await net.submit(producer)
                if handle is not None:
                    break
            await net.finish([handle], 20)
            took = time.monotonic() - began
            await net.orders(producer, 20)
            # and those of before stand as they stood
            assert [app.store.epoch for app in (*engines, producer)] == [0] * 3
            verdict = await net.judge(f"F-28, sentinels {sentinels}")
            print(f"consuming again after {took:.1f} s; runs that were lost: {len(verdict.lost)}")


async def test_a_primary_that_gives_its_place_away_loses_nothing(one_server: Server, tmp_path: Path) -> None:
    with Watched(one_server.binary, tmp_path / "servers") as watched:
        async with net_on(watched.replica, tmp_path) as net:
            engine = await net.engine(watched.url)
            await net.orders(engine, 5)
            # When the primary gives its place away, of its own accord and under load
            net.tries += 1
            coming = [asyncio.create_task(net.orders(engine, 1)) for _ in range(200)]
            told = watched.sentinels[0].ask("SENTINEL", "FAILOVER", "main", "COORDINATED")
            if told != b"+OK\r\n":
                pytest.skip(f"this server knows no coordinated fail-over: {told!r}")
            began = time.monotonic()
            while b"role:slave" not in watched.primary.ask("INFO", "replication"):
                assert time.monotonic() - began < 20
                await asyncio.sleep(0.05)
            # Then work goes on, by the connections that were open too, and nothing is lost
            await asyncio.gather(*coming)
            await net.orders(engine, 20)
            assert engine.store.epoch == 0
            await net.judge("F-28, planned")


async def test_a_name_that_the_sentinels_do_not_know_is_told(one_server: Server, tmp_path: Path) -> None:
    with Watched(one_server.binary, tmp_path / "servers") as watched:
        store = open_store(watched.url.replace("/main/", "/other/"), SystemClock())
        with pytest.raises(StoreError, match="other"):
            await store.open()
