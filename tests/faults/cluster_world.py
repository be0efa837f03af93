"""Engines over the nodes of a cluster."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from redis.crc import key_slot

from stemflow import Stemflow
from stemflow.runtime.clock import SystemIds
from stemflow.testing.servers.cluster import Cluster
from stemflow.testing.servers.server import Server
from tests.faults.net_world import Net, net_on

PARTS = 6
LIMIT_S = 45
"""A test that has not come to its end by then is stuck."""


def slot_of(part: int) -> int:
    return int(key_slot(b"{sf:%d}" % part))


def other_than(cluster: Cluster, owner: Server) -> Server:
    nodes = cluster.nodes
    return nodes[(nodes.index(owner) + 1) % len(nodes)]


@asynccontextmanager
async def net_over(cluster: Cluster, folder: Path) -> AsyncIterator[tuple[Net, Stemflow]]:
    """A net with two workers, and a producer that submits runs under ids of all partitions."""
    ids = SystemIds()
    async with in_time(cluster), net_on(cluster.nodes[0], folder, f"{cluster.url}?partitions={PARTS}") as net:
        net.name = lambda number: ids.run_id()
        for _ in range(2):
            await net.engine(net.url, concurrency=20)
        yield net, await net.engine(net.url, worker=False)


@asynccontextmanager
async def in_time(cluster: Cluster) -> AsyncIterator[None]:
    """Fails what takes too long, with what the nodes say of their slots."""
    try:
        async with asyncio.timeout(LIMIT_S):
            yield
    except TimeoutError:
        pytest.fail(f"expected an end within {LIMIT_S} s; the nodes say:\n{cluster.describe()}")
