"""The store on a server: which servers it refuses, and what it asks of one."""

from collections.abc import Iterator

import pytest

from stemflow import Stemflow, TaskRegistry
from stemflow.runtime.catalog.heartbeats import heartbeats
from stemflow.runtime.clock import SystemClock
from stemflow.store.base import StoreError
from stemflow.store.open import open_store
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
