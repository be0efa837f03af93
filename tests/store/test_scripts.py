"""A script that is called twice with one request, since its reply was lost, changes nothing and answers the same."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import redis

import stemflow.store.redis
from stemflow.model.effects import DeadLetter, Decision, RunEnd
from stemflow.model.records import Header
from stemflow.store.base import Store
from stemflow.store.redis.client import Client
from stemflow.store.redis.open import open_redis
from stemflow.store.redis.requests import pack
from stemflow.store.redis.scripts import script
from stemflow.store.redis.server import version_of
from stemflow.testing.contract.world import ManualClock, User, begun, cancel, change, leaf, scope, succeed
from stemflow.testing.servers.server import Server

MOVES_ON = {"take_expired", "prune"}
"""What these have done is not there to be done again: the second answer is empty. Leases that an answer to `expired`
has not reached are lost in turn after 2 s."""


POSITION = 7
"""Where the answer to an exchange counts those that changed something, by which a loss of data is noticed."""


class Twice:
    """Lets every script be called twice, and compares answers and all data."""

    def __init__(self, url: str) -> None:
        self.redis = redis.Redis.from_url(url)
        self.called: set[str] = set()
        self.run = Client.run

    async def __call__(self, client: Client, name: str, prefix: bytes, *arguments: bytes, **more: Any) -> Any:
        self.called.add(name)
        first = await self.run(client, name, prefix, *arguments, **more)
        after = self.data()
        again = await self.run(client, name, prefix, *arguments, **more)
        assert self.data() == after, name
        if name in ("exchange", "submit"):
            assert again[:POSITION] == first[:POSITION], name
        elif name not in MOVES_ON:
            assert again == first, name
        return first

    def data(self) -> dict[bytes, Any]:
        """All of it but the names of queues, of which empty ones are dropped whenever somebody looks."""
        keys: Any = self.redis.keys("*")
        return {key: self.content(key) for key in keys if not key.endswith(b":0}K")}

    def content(self, key: bytes) -> Any:
        read: dict[bytes, Any] = {
            b"string": self.redis.get,
            b"hash": self.redis.hgetall,
            b"list": lambda name: self.redis.lrange(name, 0, -1),
            b"set": self.redis.smembers,
            b"zset": lambda name: self.redis.zrange(name, 0, -1, withscores=True),
        }
        kind: Any = self.redis.type(key)
        found = read[kind](key)
        if key.endswith(b":0}m"):
            del found[b"position"]
        return found


@pytest.fixture
def twice(one_server: Server, monkeypatch: pytest.MonkeyPatch) -> Any:
    one_server.flush()
    found = Twice(one_server.url)

    async def run(client: Client, *call: Any, **more: Any) -> Any:
        return await found(client, *call, **more)

    monkeypatch.setattr(Client, "run", run)
    yield found
    found.redis.close()


@pytest.fixture
async def store(one_server: Server, twice: Twice, clock: ManualClock) -> AsyncIterator[Store]:
    found = open_redis(one_server.url, clock, test_time=True)
    await found.open()
    yield found
    await found.close()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


async def test_every_script_may_be_called_twice(store: Store, twice: Twice, clock: ManualClock) -> None:
    one, two = User(store, "one"), User(store, "two")
    now_ms = clock.now_ms()
    # Given a run with leaves of every kind, one with claims and one that is refused as it is there already
    later, timed = leaf("later", at_ms=now_ms + 50), scope("s", due_at_ms=now_ms + 40)
    await one.begin(leaf("a", lease_ms=100), leaf("b", lease_ms=100), leaf("c", queue="slow"), later, timed)
    assert (await two.exchange(begun("r", leaf("a")))).committed == (False,)
    # When tasks are leased, reported, lost, stopped, and told of
    leases = await one.lease(2)
    renewer = store.renewer()
    held = [(lease.node.key, lease.node.delivery, 100) for lease in leases]
    assert renewer.renew(held) == renewer.renew(held)
    renewer.close()
    await one.exchange(Decision(puts=(succeed(leases[0]),)), want=one.want(1))
    await store.put_hint("run:r", "progress", b"50", 1_000)
    await store.inventory()
    await store.leaf_status([lease.node.key for lease in leases])
    clock.advance(120)
    taken = await store.take_expired("sweeper", 10)
    assert taken
    assert all(lease.node.delivery == 2 for lease in taken)
    await two.ask(5)
    letter = DeadLetter("r", "b", "t", "final", clock.now_ms(), keep_ms=10)
    await two.commit(cancel(taken[0].node), dead=(letter,))
    root = await one.node("")
    await one.commit(change(root, state="succeeded"), ended=(RunEnd("r", 60_000),))
    clock.advance(20)
    await store.prune(10)
    # Then that was every script there is, but the one that opens a partition
    folder = Path(stemflow.store.redis.__path__[0]) / "lua"
    scripts = {path.stem for path in folder.glob("*.lua")}
    assert twice.called | {"renew", "open"} == scripts | {"submit"}


async def test_opening_a_partition_twice_gives_the_same_one(store: Store, twice: Twice) -> None:
    about: Any = twice.redis.info("server")
    opened = script("open", version_of({"redis_version": about["redis_version"]}))
    answers = [twice.redis.eval(opened.text, 1, b"{sf:0}", pack((1, "x", "boot", False))) for _ in range(2)]
    assert answers[0] == answers[1]


async def test_a_submission_that_is_sent_twice_is_taken_once(store: Store, twice: Twice) -> None:
    user = User(store, "one")
    await user.begin(leaf("a"))
    repeated = await user.repeat(Decision(puts=(), headers=(Header(run="r", plan="p"),)))
    assert repeated.committed == (True,)
    assert len(await store.runs(10)) == 1
