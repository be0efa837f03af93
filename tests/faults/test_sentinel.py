"""The primary dies, and sentinels promote its replica."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from stemflow.runtime.clock import SystemClock
from stemflow.store.base import StoreError
from stemflow.store.open import open_store
from stemflow.testing.servers.replicas import Watched, copied
from stemflow.testing.servers.server import Server, until_true
from tests.faults.net_world import net_on

pytestmark = [pytest.mark.faults, pytest.mark.serial]


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
            # and a replica that has received everything
            await asyncio.to_thread(copied, watched.primary, watched.replica)
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
            verdict = await net.judge(f"failover, sentinels {sentinels}")
            print(f"consuming again after {took:.1f} s; runs that were lost: {len(verdict.lost)}")


async def test_a_primary_that_gives_its_place_away_loses_nothing(one_server: Server, tmp_path: Path) -> None:
    # Nothing dies here. A sentinel of short patience would take a machine that is busy for a dead primary, promote
    # the one and then the other, and lose what each had acknowledged.
    with Watched(one_server.binary, tmp_path / "servers", down_ms=30_000) as watched:
        async with net_on(watched.replica, tmp_path) as net:
            engine = await net.engine(watched.url)
            await net.orders(engine, 5)
            sentinel = watched.sentinels[0]
            told = sentinel.ask("SENTINEL", "FAILOVER", "nobody", "COORDINATED")
            if b"No such master" not in told:
                pytest.skip(f"this server knows no coordinated failover: {told!r}")
            # When the primary gives its place away, of its own accord and under load
            async with asyncio.TaskGroup() as coming:
                for _ in range(200):
                    coming.create_task(net.orders(engine, 1))
                await asyncio.to_thread(_give_away, watched)
                net.tries += 1
            # Then work goes on, by the connections that were open too, and nothing is lost
            await net.orders(engine, 20)
            assert engine.store.epoch == 0
            await net.judge("failover, planned")


def _give_away(watched: Watched) -> None:
    """Returns when the primary has become a replica."""
    ask = watched.sentinels[0].ask
    # A sentinel takes no replica of which it has not heard for a moment, and says NOGOODSLAVE then.
    until_true(lambda: ask("SENTINEL", "FAILOVER", "main", "COORDINATED") == b"+OK\r\n")
    until_true(lambda: b"role:slave" in watched.primary.ask("INFO", "replication"))


async def test_a_name_that_the_sentinels_do_not_know_is_reported(one_server: Server, tmp_path: Path) -> None:
    with Watched(one_server.binary, tmp_path / "servers") as watched:
        store = open_store(watched.url.replace("/main/", "/other/"), SystemClock())
        with pytest.raises(StoreError, match="other"):
            await store.open()
