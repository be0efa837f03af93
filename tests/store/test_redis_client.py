"""Calls to a server whose connections were cut."""

from __future__ import annotations

import asyncio

from stemflow.runtime.clock import SystemClock
from stemflow.store.open import open_store
from stemflow.testing.proxy import Proxy
from stemflow.testing.server import Server


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
