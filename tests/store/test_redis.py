"""The store on a server: which servers it refuses, and what it asks of one."""

from collections.abc import Iterator

import pytest
from msgspec import structs

from stemflow import Stemflow, TaskRegistry
from stemflow.model.effects import RunEnd
from stemflow.model.records import FAILED, Header
from stemflow.runtime.catalog.heartbeats import heartbeats
from stemflow.runtime.clock import SystemClock
from stemflow.store.base import StoreError
from stemflow.store.open import open_store
from stemflow.store.redis.layout import KeyFamily
from stemflow.store.redis.open import open_redis
from stemflow.store.redis.store import RedisStore
from stemflow.store.run_names import run_name
from stemflow.testing.contract.world import ManualClock, User, begun, change
from stemflow.testing.servers.server import Server


@pytest.fixture
def limited(server: Server) -> Iterator[Server]:
    """A server with a limit to its memory."""
    server.flush()
    server.ask("CONFIG", "SET", "maxmemory", "1gb")
    yield server
    server.ask("CONFIG", "SET", "maxmemory", "0")
    server.ask("CONFIG", "SET", "maxmemory-policy", "noeviction")


@pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-ttl"])
async def test_a_server_that_throws_data_away_is_refused(limited: Server, policy: str) -> None:
    limited.ask("CONFIG", "SET", "maxmemory-policy", policy)
    store = open_store(limited.url, SystemClock())
    with pytest.raises(StoreError, match=f"expected maxmemory-policy noeviction, got {policy}"):
        await store.open()
    await store.close()


async def test_a_server_that_refuses_writes_when_it_is_full_is_taken(limited: Server) -> None:
    store = open_store(limited.url, SystemClock())
    await store.open()
    await store.close()


async def test_a_worker_started_when_its_store_was_opened_not_in_1970(server: Server) -> None:
    """Before a store on a server is open, its time is not known; a worker must not count from then on."""
    async with Stemflow(f"{server.url}?prefix=started", TaskRegistry()) as app:
        assert app.service is not None
        await app.service.presence.publish("running")
        (beat,) = (await heartbeats(app.store)).values()
        assert 0 <= app.store.now_ms() - beat.started_at_ms < 60_000


async def test_a_run_id_that_is_used_again_after_its_run_has_expired_is_listed_once(one_server: Server) -> None:
    one_server.flush()
    clock = ManualClock()
    store = open_redis(f"{one_server.url}?prefix=again", clock, test_time=True)
    assert isinstance(store, RedisStore)
    await store.open()
    user = User(store, "one")

    async def begin(run: str) -> None:
        clock.advance(1_000)
        header = Header(run=run, plan="p", created_at_ms=clock.now_ms())
        assert (await user.exchange(structs.replace(begun(run), headers=(header,)))).committed == (True,)

    # Given a run that failed and has expired, and others since
    await begin("a")
    root = await user.node("", "a")
    assert await user.commit(change(root, state=FAILED), ended=(RunEnd("a", 60_000),))
    await begin("b")
    await begin("c")
    assert [info.header.run for info in await store.runs(10, state="failed")] == ["a"]
    (part,) = store._parts
    for family in (KeyFamily.root, KeyFamily.header, KeyFamily.nodes):
        await part.client.call(b"DEL", part._key(family, run_name("a")))
    # When its id is used again
    await begin("a")
    # Then it is in the list once, whether that is read as a whole or in pages, and not among those that failed
    assert [info.header.run for info in await store.runs(10)] == ["a", "c", "b"]
    paged, last = [], ""
    while found := await store.runs(1, after=last):
        last = found[0].header.run
        paged.append(last)
    assert paged == ["a", "c", "b"]
    assert await store.runs(10, state="failed") == []
    await store.close()


async def test_runs_that_have_expired_take_no_place_in_a_page(one_server: Server) -> None:
    one_server.flush()
    store = open_redis(f"{one_server.url}?prefix=page", ManualClock(), test_time=True)
    assert isinstance(store, RedisStore)
    await store.open()
    user = User(store, "one")
    for run in "ab":
        await user.begin(run=run)
    # Given the newest, which have expired, and whose names are still in the list
    for number in range(40):
        await user.begin(run=f"c{number}")
    (part,) = store._parts
    for run in (f"c{number}" for number in range(40)):
        await part.client.call(b"DEL", part._key(KeyFamily.root, run_name(run)))
    # Then a page has as many runs as were asked for
    pages = {limit: "".join(info.header.run for info in await store.runs(limit)) for limit in (1, 2, 3)}
    assert pages == {1: "b", 2: "ba", 3: "ba"}
    await store.close()
