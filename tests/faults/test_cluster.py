"""A store on a cluster of three nodes: the contract, slots that move while work goes on, nodes that start again."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from stemflow.model.records import Key
from stemflow.runtime.clock import SystemClock, SystemIds
from stemflow.store.base import Store, StoreUnavailable
from stemflow.store.open import open_store
from stemflow.store.redis.acl import acl_file
from stemflow.store.redis.open import open_redis
from stemflow.store.redis.partitioned_exchange import part_of
from stemflow.store.redis.url import parse_url
from stemflow.testing.contract import StoreContract
from stemflow.testing.contract.retention import plan
from stemflow.testing.contract.world import ManualClock, User, begun, leaf
from stemflow.testing.servers.cluster import Cluster
from stemflow.testing.servers.server import Server
from tests.faults.cluster_world import LIMIT_S, PARTS, in_time, net_over, other_than, slot_of
from tests.faults.net_world import net_on

pytestmark = pytest.mark.faults


@pytest.fixture
def empty(cluster: Cluster) -> Cluster:
    """The nodes of many tests, which leave them as they are."""
    cluster.flush()
    return cluster


@pytest.fixture
def own(one_server: Server, tmp_path: Path) -> Iterator[Cluster]:
    """Nodes for one test alone, which moves slots or kills nodes."""
    with Cluster(one_server.binary, tmp_path / "nodes") as started:
        yield started


@pytest.fixture
def of_each(server: Server, tmp_path: Path) -> Iterator[Cluster]:
    """As `own`, of every version that is here."""
    with Cluster(server.binary, tmp_path / "nodes") as started:
        yield started


class TestOneRunAPartition(StoreContract):
    @pytest.fixture(autouse=True)
    def _cluster(self, empty: Cluster) -> None:
        self.url = f"{empty.url}?partitions=3"

    def make_store(self, clock: ManualClock) -> Store:
        return open_redis(self.url, clock, test_time=True)

    def second(self, store: Store, clock: ManualClock) -> Store:
        return self.make_store(clock)


async def test_the_partitions_are_spread_over_all_nodes(empty: Cluster, tmp_path: Path) -> None:
    async with net_over(empty, tmp_path) as (net, producer):
        await net.orders(producer, 60)
        verdict = await net.verdict()
        assert verdict.fatal == {}
        assert verdict.doubled == 0
        runs = [info.header.run for info in await producer.store.runs(1_000)]
        assert {part_of(run, PARTS) for run in runs} == set(range(PARTS))
        assert len({empty.owner(slot_of(part)).port for part in range(PARTS)}) == 3


async def test_calls_that_were_all_under_way_when_their_slot_had_moved_go_on_at_its_new_node(own: Cluster) -> None:
    store = open_store(f"{own.url}?partitions={PARTS}", SystemClock())
    async with in_time(own):
        await store.open()
        # Given many connections to the node of a partition
        key: Key = ("run", "[0]")
        await asyncio.gather(*(store.read([key]) for _ in range(12)))
        renewer, held = store.renewer(), [(key, 1, 1_000)]
        await asyncio.to_thread(renewer.renew, held)
        # When its slot has moved
        slot = slot_of(part_of(key[0], PARTS))
        await asyncio.to_thread(own.move, slot, other_than(own, own.owner(slot)))
        # Then calls over all of them find the new node at once, and so does who renews leases
        before = asyncio.get_running_loop().time()
        await asyncio.gather(*(store.read([key]) for _ in range(12)))
        await asyncio.to_thread(renewer.renew, held)
        assert asyncio.get_running_loop().time() - before < 2.0  # a try that is repeated waits longer and longer
        await asyncio.to_thread(renewer.close)
        await store.close()


async def test_a_slot_that_is_moved_key_by_key_loses_nothing_and_doubles_nothing(
    of_each: Cluster, tmp_path: Path
) -> None:
    async with net_over(of_each, tmp_path) as (net, producer):
        net.pause_s = 0.01
        await net.orders(producer, 12)
        for part, pause_s in enumerate((0.0, 0.01, 0.0, 0.01)):
            # Given orders that are submitted all the while
            coming = [asyncio.create_task(net.submit(producer)) for _ in range(30)]
            await asyncio.sleep(0.05)
            # When the slot of a partition is moved to another node, with a pause after each key
            slot = slot_of(part)
            to = other_than(of_each, of_each.owner(slot))
            moved = await asyncio.to_thread(of_each.move, slot, to, pause_s)
            net.tries += 1
            assert moved > 5 and of_each.owner(slot) is to
            # Then all of them end
            await net.finish(await asyncio.gather(*coming))
        await net.orders(producer, 12)
        verdict = await net.judge("cluster, slots moved key by key")
        assert verdict.doubled == 0
        assert producer.store.epoch == 0


async def test_a_slot_that_is_moved_as_a_whole_loses_nothing_and_doubles_nothing(own: Cluster, tmp_path: Path) -> None:
    if not own.moves_at_once:
        pytest.skip("this server moves slots key by key alone")
    async with net_over(own, tmp_path) as (net, producer):
        net.pause_s = 0.01
        await net.orders(producer, 30)
        for part in range(PARTS):
            coming = [asyncio.create_task(net.submit(producer)) for _ in range(40)]
            slot = slot_of(part)
            await asyncio.to_thread(own.move_at_once, other_than(own, own.owner(slot)), slot)
            net.tries += 1
            await net.finish(await asyncio.gather(*coming))
        verdict = await net.judge("cluster, slots moved as a whole")
        assert verdict.doubled == 0
        assert producer.store.epoch == 0


async def test_a_node_that_is_killed_and_restarted_loses_nothing(own: Cluster, tmp_path: Path) -> None:
    async with net_over(own, tmp_path) as (net, producer):
        net.pause_s = 0.02
        await net.orders(producer, 10)
        for node in own.nodes:
            coming = [asyncio.create_task(net.submit(producer)) for _ in range(40)]
            await asyncio.sleep(0.05)
            await asyncio.to_thread(node.kill_between_syncs)
            net.tries += 1
            await asyncio.sleep(0.3)
            await asyncio.to_thread(node.start)
            await net.finish(await asyncio.gather(*coming))
        verdict = await net.judge("cluster, each node killed once")
        assert verdict.doubled == 0
        assert producer.store.epoch == 0


async def test_while_a_node_is_away_runs_on_the_others_are_started_and_end(own: Cluster, tmp_path: Path) -> None:
    async with net_over(own, tmp_path) as (net, producer):
        net.tries = 1
        await net.orders(producer, 10)
        for node in own.nodes:
            node.ask("CONFIG", "SET", "cluster-require-full-coverage", "no")
        # Given a node that is away while the workers have nothing to report to it
        away = own.owner(slot_of(1))
        here = {part for part in range(PARTS) if own.owner(slot_of(part)) is not away}
        await asyncio.to_thread(away.kill_between_syncs)
        ids = SystemIds()
        net.name = lambda number: next(run for run in iter(ids.run_id, "") if part_of(run, PARTS) in here)
        # Then runs of the other nodes end
        try:
            await net.orders(producer, 20, 30)
        finally:
            await asyncio.to_thread(away.start)
        await net.judge("cluster, a node away")


async def test_while_a_node_is_away_plans_and_lost_leases_are_found_at_the_others(own: Cluster) -> None:
    for node in own.nodes:
        node.ask("CONFIG", "SET", "cluster-require-full-coverage", "no")
    store, other = (open_store(f"{own.url}?partitions={PARTS}", SystemClock()) for _ in range(2))
    await store.open()
    await other.open()
    user, ids = User(store, "one"), SystemIds()
    # Given a plan of which every partition has a run, and in each partition a task whose worker is gone
    runs = [next(run for run in iter(ids.run_id, "") if part_of(run, PARTS) == part) for part in range(PARTS)]
    for run in runs:
        decision = begun(run, leaf("[0]", run, lease_ms=1), plans=(plan("p"),))
        assert (await user.exchange(decision)).committed == (True,)
        assert len(await user.lease(only_run=run)) == 1
    # When the node of the first partition is away
    away = own.owner(slot_of(0))
    here = {run for run in runs if own.owner(slot_of(part_of(run, PARTS))) is not away}
    await asyncio.to_thread(away.kill_between_syncs)
    try:
        # Then another process reads the plan all the same, and takes over what the other nodes have
        assert await other.plan("p") == plan("p")
        found: set[str] = set()
        async with asyncio.timeout(LIMIT_S):
            while found != here:
                with contextlib.suppress(StoreUnavailable):
                    found |= {lease.node.run for lease in await other.take_expired("two", 10)}
    finally:
        await asyncio.to_thread(away.start)
        await other.close()
        await store.close()


async def test_users_of_the_acl_file_have_the_rights_that_a_cluster_takes(empty: Cluster, tmp_path: Path) -> None:
    user, *rest = acl_file(parse_url(empty.url)).splitlines()[0].removeprefix("user ").split()
    for node in empty.nodes:
        assert node.ask("ACL", "SETUSER", user, *rest, ">secret") == b"+OK\r\n"
    try:
        async with in_time(empty), net_on(empty.nodes[0], tmp_path, f"{empty.url}?partitions={PARTS}") as net:
            await net.orders(await net.engine(net.url.replace("//", f"//{user}:secret@")), 10)
            assert (await net.verdict()).fatal == {}
    finally:
        for node in empty.nodes:
            node.ask("ACL", "DELUSER", user)
