"""A cluster that puts the replica of a node in its place, when the node is killed, hangs, or had not told all."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from stemflow import Stemflow
from stemflow.runtime.clock import SystemIds
from stemflow.runtime.runs.handle import RunHandle
from stemflow.store.redis.partitioned_exchange import part_of
from stemflow.testing.servers.cluster import Cluster
from stemflow.testing.servers.replicas import copied, cut_off
from stemflow.testing.servers.server import Server, until_true
from tests.faults.cluster_world import PARTS, net_over, slot_of
from tests.faults.net_world import Net
from tests.faults.proc_world import until
from tests.faults.table import record

pytestmark = [pytest.mark.faults, pytest.mark.serial]

PART = 1
"""The partition whose node is struck."""


@pytest.fixture
def pairs(one_server: Server, tmp_path: Path) -> Iterator[Cluster]:
    """Three nodes with a replica each."""
    with Cluster(one_server.binary, tmp_path / "nodes", replicas=True, timeout_ms=1_000) as started:
        yield started


def in_part(*parts: int) -> Callable[[int], str]:
    """Ids of runs that lie in these partitions."""
    ids = SystemIds()
    return lambda number: next(run for run in iter(ids.run_id, "") if part_of(run, PARTS) in parts)


async def begun(net: Net, producer: Stemflow, count: int, pause_s: float, lease: str) -> list[RunHandle[Any] | None]:
    """Runs of one task each that takes so long, which have begun."""
    net.pause_s = pause_s
    handles = [await net.submit(producer, net.step.with_options(visibility_timeout=lease).s(1)) for _ in range(count)]
    await until(lambda: net.count("begin", handles) == count)
    net.pause_s = 0.01
    return handles


async def struck(pairs: Cluster) -> Server:
    """The node of the partition; its replica has received everything."""
    node = pairs.owner(slot_of(PART))
    await asyncio.to_thread(copied, node, pairs.replica_of(node))
    return node


async def test_runs_of_a_node_that_is_killed_go_on_at_its_replica(pairs: Cluster, tmp_path: Path) -> None:
    async with net_over(pairs, tmp_path) as (net, producer):
        # Given tasks at work in all partitions
        await net.orders(producer, 12)
        working = await begun(net, producer, 24, 3.0, "20s")
        node = await struck(pairs)
        # When a node is killed
        await asyncio.to_thread(node.kill)
        net.tries += 1
        # Then orders that are submitted meanwhile end at its replica, and tasks at work count once
        began = time.monotonic()
        await net.orders(producer, 40, 30)
        print(f"\norders of all partitions have ended {time.monotonic() - began:.1f} s after the node was killed")
        assert pairs.owner(slot_of(PART)) is pairs.replica_of(node)
        await net.finish(working)
        assert set(net.epochs) == {0}
        assert (await net.judge("cluster, failover from a node that is killed")).doubled == 0


async def test_runs_of_a_node_that_hangs_go_on_at_its_replica(pairs: Cluster, tmp_path: Path) -> None:
    async with net_over(pairs, tmp_path) as (net, producer):
        # Given connections to a node that answers no more, and does not close them either
        await net.orders(producer, 12)
        node = await struck(pairs)
        os.kill(node.pid, signal.SIGSTOP)
        net.tries += 1
        try:
            # Then orders end at its replica
            began = time.monotonic()
            await net.orders(producer, 40, 30)
            print(f"\norders of all partitions have ended {time.monotonic() - began:.1f} s after the node hung")
        finally:
            os.kill(node.pid, signal.SIGCONT)
        # and when it comes back it is a replica, whom nobody takes for what it was
        await asyncio.to_thread(until_true, lambda: b"role:slave" in node.ask("INFO", "replication"))
        assert pairs.owner(slot_of(PART)) is pairs.replica_of(node)
        await net.orders(producer, 40, 30)
        assert (await net.judge("cluster, failover from a node that hangs")).lost == ()


async def test_writes_that_a_replica_in_a_cluster_had_not_received_are_reported_lost(
    pairs: Cluster, tmp_path: Path
) -> None:
    async with net_over(pairs, tmp_path) as (net, producer):
        await net.orders(producer, 12)
        # Given a replica that is cut off, and runs of its partition that are acknowledged all the same
        node = await struck(pairs)
        replica = pairs.replica_of(node)
        await asyncio.to_thread(cut_off, node, replica)
        anywhere, net.name = net.name, in_part(PART)
        lost = await begun(net, producer, 5, 30.0, "2s")
        net.name = in_part(*(part for part in range(PARTS) if pairs.owner(slot_of(part)) is not node))
        kept = await begun(net, producer, 5, 3.0, "2s")
        waiting = asyncio.create_task(net.told([*lost, *kept]))
        # When the node is killed
        await asyncio.to_thread(node.kill)
        net.tries += 1
        # Then those alone are lost, and waiters are notified; the other nodes have lost nothing
        assert await waiting == ["lost"] * 5 + ["succeeded"] * 5
        net.name = anywhere
        await net.orders(producer, 40, 30)
        assert pairs.owner(slot_of(PART)) is replica
        assert net.epochs == [1] * 3
        verdict = await net.verdict()
        assert verdict.lost == tuple(sorted(handle.id for handle in lost if handle is not None))
        assert verdict.fatal.keys() == {"lost"}
        record("F-30 in a cluster", runs=verdict.runs, tries=1, lost=5, doubled=verdict.doubled, stuck=0)
