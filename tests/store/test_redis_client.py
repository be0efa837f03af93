"""Calls to a server whose connections were cut."""

from __future__ import annotations

import asyncio
import os
import signal
import threading

import pytest

from stemflow.model.records import Key
from stemflow.runtime.clock import SystemClock
from stemflow.store.base import StoreUnavailable
from stemflow.store.open import open_store
from stemflow.store.redis import client as client_module
from stemflow.store.redis.client import Client
from stemflow.store.redis.connections import DirectConnections
from stemflow.store.redis.loss_detection import PassiveObserver
from stemflow.store.redis.url import parse_url
from stemflow.testing.servers.proxy import Proxy
from stemflow.testing.servers.server import Server


async def test_idle_connections_that_were_cut_cost_a_call_one_try_and_not_one_each(one_server: Server) -> None:
    one_server.flush()
    async with Proxy(one_server.port) as proxy:
        store = open_store(proxy.url, SystemClock())
        await store.open()
        # Given many connections that lie idle
        await asyncio.gather(*(store.read([("r", "")]) for _ in range(12)))
        assert proxy.connections > 10
        # When all of them are cut
        proxy.cut()
        before = asyncio.get_running_loop().time()
        await store.read([("r", "")])
        # Then the next call finds its way at once
        assert asyncio.get_running_loop().time() - before < 0.5
        await store.close()


async def test_an_answer_that_took_all_of_a_call_s_time_is_asked_for_once_more(
    one_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given calls that may take as long as their callers wait
    monkeypatch.setattr(client_module, "ANSWER_S", 1.0)
    place = parse_url(one_server.url)
    client = Client(place.shown, DirectConnections(place), PassiveObserver(b"{sf:0}"))
    await client.call(b"PING", patience_s=1.0)
    # When the server is suspended for longer than that
    os.kill(one_server.pid, signal.SIGSTOP)
    goes_on = threading.Timer(1.3, os.kill, (one_server.pid, signal.SIGCONT))
    goes_on.start()
    try:
        # Then one who does not wait is given the reason, and the others get their answers over other connections
        asked = (client.call(b"PING", patience_s=patience_s) for patience_s in (0.0, 1.0, 1.0))
        told, *answers = await asyncio.gather(*asked, return_exceptions=True)
    finally:
        goes_on.join()
        await client.close()
    assert answers == [b"PONG"] * 2
    assert isinstance(told, StoreUnavailable)
    assert "no answer within 1 s" in str(told)


async def test_a_renewal_whose_connection_was_closed_meanwhile_connects_again(one_server: Server) -> None:
    one_server.flush()
    async with Proxy(one_server.port) as proxy:
        store = open_store(proxy.url, SystemClock())
        await store.open()
        key: Key = ("r", "")
        renewer = store.renewer()
        first = await asyncio.to_thread(renewer.renew, [(key, 1, 1_000)])
        proxy.cut()
        assert await asyncio.to_thread(renewer.renew, [(key, 1, 1_000)]) == first
        await asyncio.to_thread(renewer.close)
        await store.close()
