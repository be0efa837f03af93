"""Waiting within one process: for any commit, and for the end of a run."""

from __future__ import annotations

import asyncio
from typing import Any

from stemflow.model.records import Node
from stemflow.store.base import StoreClosed


class Changes:
    """Counts commits; each who waits says which count was seen last. Waiters are woken in the order in which they
    came."""

    __slots__ = ("_count", "_waiting")

    def __init__(self) -> None:
        self._count = 0
        self._waiting: dict[asyncio.Future[None], None] = {}

    @property
    def waiting(self) -> bool:
        """Whether somebody waits at this moment."""
        return bool(self._waiting)

    def note(self) -> None:
        """Something was committed."""
        self._count += 1
        for future in tuple(self._waiting):
            _wake(future)

    async def wait(self, seen: int, timeout_ms: int | None) -> int:
        if seen == self._count:
            await self._sleep(timeout_ms)
        return self._count

    async def _sleep(self, timeout_ms: int | None) -> None:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        alarm = None if timeout_ms is None else loop.call_later(timeout_ms / 1_000, _wake, future)
        self._waiting[future] = None
        try:
            await future
        finally:
            self._waiting.pop(future, None)
            if alarm is not None:
                alarm.cancel()


class Watches:
    """Futures by run, resolved and forgotten when the run ends."""

    __slots__ = ("_by_run",)

    def __init__(self) -> None:
        self._by_run: dict[str, dict[asyncio.Future[Node | None], None]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._by_run.values()))

    @property
    def runs(self) -> tuple[str, ...]:
        return tuple(self._by_run)

    def add(self, run: str, ended: bool, root: Node | None = None) -> asyncio.Future[Node | None]:
        """A future for the end of `run`; one that has `ended` is not kept."""
        future: asyncio.Future[Node | None] = asyncio.get_running_loop().create_future()
        if ended:
            future.set_result(root)
        else:
            self._by_run.setdefault(run, {})[future] = None
        return future

    def drop(self, run: str, future: asyncio.Future[Node | None]) -> None:
        left = self._by_run.get(run)
        if left is not None:
            left.pop(future, None)
            if not left:
                del self._by_run[run]

    def close(self, url: str) -> None:
        """Fail every future with StoreClosed: no notification comes any more."""
        closed = f"{url}: expected the end of a run, but the store was closed; the run goes on there"
        waiting = [future for of_run in self._by_run.values() for future in of_run]
        self._by_run.clear()
        for future in waiting:
            if not future.done():
                future.set_exception(StoreClosed(closed))
                future.exception()  # a waiter that was cancelled meanwhile does not retrieve it

    def __contains__(self, run: str) -> bool:
        return run in self._by_run

    def resolve(self, run: str, root: Node | None = None) -> bool:
        """Resolve the futures of `run`; whether there were any."""
        found = self._by_run.pop(run, {})
        for future in found:
            _wake(future, root)
        return bool(found)


def _wake(future: asyncio.Future[Any], result: Node | None = None) -> None:
    if not future.done():
        future.set_result(result)
