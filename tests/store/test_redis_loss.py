"""A server that has lost acknowledged data: callers that relied on it are notified, and work goes on with the rest."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from stemflow import Stemflow, TaskRegistry
from stemflow.model.effects import Decision
from stemflow.model.records import Node
from stemflow.runtime.clock import SystemClock
from stemflow.runtime.runs.handle import RunHandle
from stemflow.store.base import Request, StateLost, Store
from stemflow.store.open import open_store
from stemflow.store.redis.layout import FORMAT
from stemflow.store.redis.loss_detection import LossDetector, LossLog
from stemflow.testing.contract.world import RUN, User, leaf, succeed
from stemflow.testing.servers.replicas import follows
from stemflow.testing.servers.server import Server, until_true

PATIENCE_S = 10
COPY_AT_ONCE = "repl-diskless-sync-delay 0"


async def follow(handle: RunHandle[Any]) -> None:
    async for _ in handle.events():
        pass


@pytest.fixture
async def stores(own: Server) -> AsyncIterator[tuple[Store, Store]]:
    one, two = open_store(own.url, SystemClock()), open_store(own.url, SystemClock())
    await one.open()
    await two.open()
    yield one, two
    await one.close()
    await two.close()


@pytest.fixture
def own(one_server: Server, tmp_path: Path) -> Iterator[Server]:
    """A server that a test may end and start again; it keeps its data over a restart."""
    with Server(one_server.binary, tmp_path / "own", ["appendonly yes", "appendfsync always", COPY_AT_ONCE]) as server:
        yield server


def keys_of(server: Server) -> bytes:
    return server.ask("DBSIZE")


def files_of(server: Server) -> dict[Path, bytes]:
    """The append-only file: one from 6.2, several in a folder from 7.0 on."""
    return {path: path.read_bytes() for path in server.folder.rglob("appendonly.aof*") if path.is_file()}


async def test_a_server_that_was_emptied_refuses_what_rests_on_its_data_once(
    own: Server, stores: tuple[Store, Store]
) -> None:
    store, _ = stores
    user = User(store, "one")
    await user.begin(leaf("a"))
    (lease,) = await user.lease()
    own.flush()
    with pytest.raises(StateLost, match="emptied"):
        await user.exchange(Decision(puts=(succeed(lease),)))
    assert store.epoch == 1
    # One who has not heard of it is refused too, without asking; one who has goes on.
    with pytest.raises(StateLost):
        await user.exchange(want=user.want())
    answer = await store.exchange(Request("one", 9, store.epoch), [], user.want())
    assert answer.leases == ()


async def test_data_recreated_by_another_process_is_not_taken_for_the_lost_data(
    own: Server, stores: tuple[Store, Store]
) -> None:
    one, two = stores
    await User(one, "one").begin(leaf("a"))
    own.flush()
    with pytest.raises(StateLost):
        await User(one, "one").exchange()
    with pytest.raises(StateLost):
        await User(two, "two").exchange()
    assert (one.epoch, two.epoch) == (1, 1)


async def test_a_restart_that_kept_everything_is_no_loss(own: Server, stores: tuple[Store, Store]) -> None:
    one, two = stores
    user = User(one, "one")
    await user.begin(leaf("a"))
    (lease,) = await user.lease()
    own.kill()
    own.start()
    assert (await user.exchange(Decision(puts=(succeed(lease),)))).committed == (True,)
    await two.read([(RUN, "")])
    assert (one.epoch, two.epoch) == (0, 0)


async def test_a_server_that_went_back_refuses_those_who_know_more_than_it_has(
    own: Server, stores: tuple[Store, Store]
) -> None:
    # Given data that both know, a copy of it, and a lease that came after the copy
    one, two = stores
    user = User(one, "one")
    await user.begin(leaf("a"))
    await User(two, "two").exchange()
    own.ask("BGREWRITEAOF")
    await asyncio.sleep(0.3)
    own.kill()
    kept = files_of(own)
    own.start()
    (lease,) = await user.lease()
    # When the server starts from the copy
    own.kill()
    for path in files_of(own):
        path.unlink()
    for path, data in kept.items():
        path.write_bytes(data)
    own.start()
    # Then the other, who has seen nothing of what is lost, goes on, and leases the same task under the same token
    again = await User(two, "three").lease()
    assert [found.node.delivery for found in again] == [lease.node.delivery]
    assert two.epoch == 0
    # And the report of the first one is refused, although its token is the one that is there
    with pytest.raises(StateLost, match="went back"):
        await user.exchange(Decision(puts=(succeed(lease),)))
    assert one.epoch == 1
    (node,) = await two.read([(RUN, "a")])
    assert isinstance(node, Node)
    assert node.state == "running"


@pytest.mark.parametrize("used", [True, False])
async def test_a_server_that_gave_its_place_away_and_got_it_back_is_asked_what_it_lost(
    used: bool, own: Server, one_server: Server, tmp_path: Path
) -> None:
    with Server(one_server.binary, tmp_path / "other", [COPY_AT_ONCE, f"replicaof 127.0.0.1 {own.port}"]) as other:
        # Given data that a replica has, too
        store = open_store(own.url, SystemClock())
        await store.open()
        user = User(store, "one")
        await user.begin(leaf("a"))
        until_true(lambda: follows(other))
        assert own.ask("WAIT", "1", "5000").startswith(b":1")
        # When the replica takes over without a lease that was given then, perhaps works on, and gives its place back
        other.ask("REPLICAOF", "NO", "ONE")
        (lease,) = await user.lease()
        if used:
            meanwhile = open_store(other.url, SystemClock())
            await meanwhile.open()
            for name in "bcde":
                await User(meanwhile, name).begin(leaf(name), run=name)
            await meanwhile.close()
        own.ask("REPLICAOF", "127.0.0.1", str(other.port))
        until_true(lambda: follows(own))
        own.ask("REPLICAOF", "NO", "ONE")
        own.ask("CLIENT", "KILL", "TYPE", "normal")
        # Then one who was given the lease, and has not spoken with the other, is notified, though it is the same server
        with pytest.raises(StateLost, match="went back"):
            await user.exchange(Decision(puts=(succeed(lease),)))
        assert store.epoch == 1
        await store.close()


async def test_a_connection_that_outlives_two_planned_failovers_finds_no_loss(
    own: Server, one_server: Server, tmp_path: Path
) -> None:
    with Server(one_server.binary, tmp_path / "other", [COPY_AT_ONCE, f"replicaof 127.0.0.1 {own.port}"]) as other:
        # Given an idle store with an open connection, and a server that gives its place to a replica
        idle = open_store(own.url, SystemClock())
        await idle.open()
        await User(idle, "idle").begin(leaf("a"), run="a")
        until_true(lambda: follows(other) and keys_of(other) == keys_of(own))
        other.ask("REPLICAOF", "NO", "ONE")
        own.ask("REPLICAOF", "127.0.0.1", str(other.port))
        until_true(lambda: follows(own))
        busy = open_store(other.url, SystemClock())
        await busy.open()
        await User(busy, "there").begin(leaf("b"), run="b")
        await busy.close()
        # and gets it back with all data, after which there is more work
        until_true(lambda: keys_of(other) == keys_of(own))
        own.ask("REPLICAOF", "NO", "ONE")
        back = open_store(own.url, SystemClock())
        await back.open()
        await User(back, "back").begin(leaf("c"), run="c")
        # When the idle store reads over its connection from before, and then opens another one
        await idle.read([("c", "")])
        await asyncio.gather(*(idle.read([("c", "")]) for _ in range(4)))
        # Then nothing counts as lost
        assert idle.epoch == 0
        await back.close()
        await idle.close()


async def test_connections_that_are_opened_while_others_work_find_no_loss(own: Server) -> None:
    async with Stemflow(own.url, TaskRegistry(), worker=False) as app:
        store = app.store
        users = [User(store, f"u{n}") for n in range(12)]

        async def work(user: User, n: int) -> None:
            for turn in range(20):
                await user.begin(leaf("a", f"{n}-{turn}"), run=f"{n}-{turn}")

        async with asyncio.TaskGroup() as group:
            for n, user in enumerate(users):
                group.create_task(work(user, n))
            for _ in range(10):
                own.ask("CLIENT", "KILL", "TYPE", "normal")
                await asyncio.sleep(0.02)
        assert store.epoch == 0


async def test_a_waiter_for_a_lost_run_gets_an_error_and_work_goes_on(own: Server) -> None:
    registry = TaskRegistry()
    begun = asyncio.Event()

    @registry.task("wait")
    async def wait() -> None:
        begun.set()
        await asyncio.sleep(600)

    @registry.task("step")
    async def step(value: int) -> int:
        return value

    async with (
        Stemflow(own.url, registry) as worker,
        Stemflow(own.url, registry, worker=False) as other,
    ):
        # Given a run at work, and those who wait for it in both processes and follow it
        handle = await worker.submit(wait.s(), run_id="lost")
        followed = asyncio.ensure_future(follow(await other.handle("lost")))
        waiting = [asyncio.ensure_future(one.wait()) for one in (handle, await other.handle("lost"))]
        await begun.wait()
        # When the server loses everything
        own.flush()
        # Then all of them are notified
        told = await asyncio.wait_for(asyncio.gather(*waiting, followed, return_exceptions=True), PATIENCE_S)
        assert [type(one) for one in told] == [StateLost] * 3
        # And both work on
        for app in (worker, other):
            again = await app.submit(step.s(3))
            assert (await asyncio.wait_for(again.wait(), PATIENCE_S)).value == 3
        assert worker.service is not None
        assert not worker.service.slots.running


class Opened:
    """A server that answers `INFO` and the script `open.lua` with what a test says."""

    def __init__(self) -> None:
        self.boot, self.position, self.least, self.number = "", 0, 0, 0

    async def __call__(self, *command: Any) -> Any:
        if command[0] == b"INFO":
            return b"redis_version:8.0.0\r\nrun_id:%s\r\n" % self.boot.encode()
        return [1, b"data", self.position, self.least, 1, self.number, FORMAT]

    def boots(self, boot: str, number: int, position: int) -> None:
        self.boot, self.number, self.position, self.least = boot, number, position, position


@pytest.mark.parametrize(("answered_at", "lost"), [(9, 0), (10, 0), (11, 1)])
async def test_an_answer_that_comes_after_the_next_boot_was_noticed_is_compared_with_where_that_boot_began(
    answered_at: int, lost: int
) -> None:
    losses = LossLog(lambda: None)
    detector = LossDetector("redis://", b"{sf:0}", "here", 1, lambda: 1, losses)
    server = Opened()
    server.boots("one", 1, 5)
    await detector.identify(server)
    server.boots("two", 2, 10)
    await detector.identify(server)
    detector.seen(1, answered_at)
    assert losses.count == lost
