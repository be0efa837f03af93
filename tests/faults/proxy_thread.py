"""A proxy on a loop of its own in a thread, for callers that hold their loop, as the synchronous renewer does."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from stemflow.testing.servers.proxy import Proxy


@contextmanager
def proxy_beside(port: int) -> Iterator[Proxy]:
    """An open proxy; what is set on it holds from the next request on."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    proxy = Proxy(port)
    asyncio.run_coroutine_threadsafe(proxy.__aenter__(), loop).result(10)
    try:
        yield proxy
    finally:
        asyncio.run_coroutine_threadsafe(proxy.__aexit__(None, None, None), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()
