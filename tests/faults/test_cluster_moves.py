"""Slots of a cluster that move: one whose nodes die in the middle of it, and many at the same time."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from stemflow import Stemflow
from stemflow.testing.servers.cluster import Cluster, Move
from stemflow.testing.servers.server import Server, until_true
from tests.faults.cluster_world import PARTS, net_over, other_than, slot_of
from tests.faults.net_world import Net
from tests.faults.proc_world import until

pytestmark = [pytest.mark.faults, pytest.mark.serial]


@pytest.fixture
def own(one_server: Server, tmp_path: Path) -> Iterator[Cluster]:
    with Cluster(one_server.binary, tmp_path / "nodes") as started:
        yield started


def coming(net: Net, producer: Stemflow, count: int) -> asyncio.Task[None]:
    """Orders in all partitions, and their ends."""
    return asyncio.create_task(net.orders(producer, count, 40))


@pytest.mark.parametrize("who", ["source", "target"])
async def test_a_node_that_dies_in_the_middle_of_a_move_loses_nothing_and_the_move_can_go_on(
    who: str, own: Cluster, tmp_path: Path
) -> None:
    async with net_over(own, tmp_path) as (net, producer):
        # Given a slot that moves key by key under load
        net.pause_s = 0.01
        await net.orders(producer, 60)
        slot = slot_of(1)
        move = Move(own, slot, other_than(own, own.owner(slot)))
        there = move.left()
        move.begin()
        ending = coming(net, producer, 30)
        carrying = asyncio.create_task(asyncio.to_thread(move.carry, pause_s=0.005))
        await until(lambda: move.left() < there / 2)
        # When one of its nodes is killed, and starts again
        victim = move.source if who == "source" else move.to
        await asyncio.to_thread(victim.kill)
        net.tries += 1
        (carried,) = await asyncio.gather(carrying, return_exceptions=True)
        assert isinstance(carried, OSError | RuntimeError)
        await asyncio.to_thread(victim.start)
        await asyncio.to_thread(until_true, own.is_whole)
        # Then no script has met half of the keys, the move goes on where it stood, and everything ends
        assert 0 < move.left() < there
        move.begin()
        await asyncio.to_thread(move.carry)
        await asyncio.to_thread(move.end)
        assert own.owner(slot) is move.to
        await ending
        await net.orders(producer, 30)
        assert set(net.epochs) == {0}
        assert (await net.judge(f"cluster, {who} of a move killed")).doubled == 0


async def test_many_slots_that_move_key_by_key_at_once_lose_nothing(own: Cluster, tmp_path: Path) -> None:
    async with net_over(own, tmp_path) as (net, producer):
        net.pause_s = 0.01
        await net.orders(producer, 30)
        # When the slots of all partitions move at the same time: to one node, and then to another. (In a ring of nodes
        # each MIGRATE would wait for the next one.)
        for to in (own.nodes[2], own.nodes[0]):
            ending = coming(net, producer, 60)
            await asyncio.sleep(0.05)
            slots = [slot for slot in map(slot_of, range(PARTS)) if own.owner(slot) is not to]
            counts = await asyncio.gather(*(asyncio.to_thread(own.move, slot, to) for slot in slots))
            assert min(counts) > 5
            net.tries += len(slots)
            # Then all orders end, and each task was run once
            await ending
            assert {own.owner(slot_of(part)) for part in range(PARTS)} == {to}
        await net.orders(producer, 30)
        assert set(net.epochs) == {0}
        assert (await net.judge("cluster, all slots moved key by key at once")).doubled == 0


async def test_all_slots_of_all_nodes_that_move_as_a_whole_lose_nothing(own: Cluster, tmp_path: Path) -> None:
    if not own.moves_at_once:
        pytest.skip("this server moves slots key by key alone")
    async with net_over(own, tmp_path) as (net, producer):
        net.pause_s = 0.01
        await net.orders(producer, 30)
        # A node without any slot would make itself a replica.
        ranges = [(first, last - 1) for first, last in own.ranges()]
        # When each node gives all of its slots to the next one, thousands at once
        ending = coming(net, producer, 100)
        await asyncio.sleep(0.05)
        goals = [*own.nodes[1:], own.nodes[0]]
        for some, to in zip(ranges, goals, strict=True):
            await asyncio.to_thread(own.move_at_once, to, some)
            net.tries += some[1] - some[0] + 1
        await ending
        # Then all orders have ended, and each task was run once
        assert [own.owner(first) for first, _ in ranges] == goals
        await net.orders(producer, 30)
        assert set(net.epochs) == {0}
        assert (await net.judge("cluster, thousands of slots moved as a whole")).doubled == 0
