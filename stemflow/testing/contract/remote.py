"""A store in another process, for the contract: `serve` runs there, `RemoteStore` passes calls to it.

Calls are pickled and sent over a Unix socket, each with the time of the test's clock. For tests only.
"""

from __future__ import annotations

import asyncio
import pickle
import sys
from collections.abc import Callable, Coroutine
from typing import Any

from stemflow.model.records import Node
from stemflow.store.base import Renewer, Store
from stemflow.store.redis.open import open_redis
from stemflow.testing.contract.world import ManualClock


async def _send(writer: asyncio.StreamWriter, message: Any) -> None:
    body = pickle.dumps(message)
    writer.write(len(body).to_bytes(8, "big") + body)
    await writer.drain()


async def _receive(reader: asyncio.StreamReader) -> Any:
    size = int.from_bytes(await reader.readexactly(8), "big")
    return pickle.loads(await reader.readexactly(size))


class RemoteStore:
    """A store in the process behind `path`, as far as the contract uses it; `renewer` and `now_ms` are local."""

    def __init__(self, path: str, clock: ManualClock, renewer: Callable[[], Renewer]) -> None:
        self._path, self._clock, self.renewer = path, clock, renewer
        self.url = self.address = ""
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self._watches: dict[asyncio.Future[Node | None], asyncio.Task[None]] = {}
        self._count = 0
        self._now_ms = 0
        self._writer: asyncio.StreamWriter | None = None

    async def open(self) -> None:
        await self._connect()
        self.url, self.address = await self._call("open")

    async def close(self) -> None:
        if self._writer is not None:
            for task in self._watches.values():
                task.cancel()
            await self._call("close")
            self._disconnect()

    async def check_health(self) -> Any:
        if self._writer is not None:
            return await self._call("check_health")
        await self._connect()
        found = await self._call("check_health")
        self._disconnect()
        return found

    async def _connect(self) -> None:
        reader, self._writer = await asyncio.open_unix_connection(self._path)
        self._reading = asyncio.create_task(self._read(reader))

    def _disconnect(self) -> None:
        assert self._writer is not None
        self._reading.cancel()
        self._writer.close()
        self._writer = None

    async def _read(self, reader: asyncio.StreamReader) -> None:
        while True:
            number, value, error = await _receive(reader)
            answer = self._answers.pop(number)
            if not answer.done():
                answer.set_exception(error) if error is not None else answer.set_result(value)

    async def _call(self, name: str, *args: Any, **kwargs: Any) -> Any:
        assert self._writer is not None
        self._count += 1
        number = self._count
        answer = self._answers[number] = asyncio.get_running_loop().create_future()
        await _send(self._writer, (number, self._clock.at_ms, name, args, kwargs))
        return await answer

    def __getattr__(self, name: str) -> Callable[..., Coroutine[Any, Any, Any]]:
        return lambda *args, **kwargs: self._call(name, *args, **kwargs)

    @property
    def epoch(self) -> int:
        return 0

    def now_ms(self) -> int:
        self._now_ms = max(self._now_ms, self._clock.at_ms)
        return self._now_ms

    def watch(self, run: str) -> asyncio.Future[Node | None]:
        watch: asyncio.Future[Node | None] = asyncio.get_running_loop().create_future()

        async def wait() -> None:
            root = await self._call("watch", run)
            self._watches.pop(watch, None)
            if not watch.done():
                watch.set_result(root)

        self._watches[watch] = asyncio.create_task(wait())
        return watch

    def unwatch(self, run: str, future: asyncio.Future[Node | None]) -> None:
        task = self._watches.pop(future, None)
        if task is not None:
            task.cancel()

    @property
    def watching(self) -> int:
        return len(self._watches)


async def serve(path: str, url: str) -> None:
    """Print `ready` and serve until the process is killed. Each connection has its own store."""

    async def connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        clock = ManualClock()
        store = open_redis(url, clock, test_time=True)
        tasks: set[asyncio.Task[None]] = set()
        try:
            while True:
                number, clock.at_ms, *call = await _receive(reader)
                task = asyncio.create_task(_perform(store, writer, number, *call))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
        except (asyncio.IncompleteReadError, ConnectionError):
            for task in tasks:
                task.cancel()
            await store.close()

    server = await asyncio.start_unix_server(connection, path)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    await server.serve_forever()


async def _perform(store: Store, writer: asyncio.StreamWriter, number: int, name: str, args: Any, kwargs: Any) -> None:
    value, error = None, None
    try:
        made = getattr(store, name)(*args, **kwargs)
        value = await made
        if name == "open":
            value = (store.url, store.address)
    except Exception as problem:
        error = problem
    await _send(writer, (number, value, error))


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1], sys.argv[2]))
