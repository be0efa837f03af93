"""One engine with an embedded worker for each case, on every store, and the tasks that the cases speak of.

The mark `case` carries the id of a row of the catalogue of cases: A1 is row 1 of the scenarios, B1 row 1 of what
users of other engines suffer from.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from stemflow import RetryPolicy, RunFailed, RunHandle, Signature, Stemflow, TaskRegistry, TaskResult
from stemflow.model.facts import Ended, Failed, Lost, Ok
from stemflow.model.records import ErrorInfo
from stemflow.runtime.payloads.json_data import encode
from stemflow.store.base import Lease, Request, Want
from stemflow.store.redis.open import open_redis

PATIENCE_S = 30
"""A case that has not ended by then is stuck."""
EPOCH_MS = 1_700_000_000_000


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "case(id): the row of the catalogue of cases that this test covers")


class UserError(Exception):
    """What the tasks of the cases raise."""


class StoppedClock:
    """A clock that moves only when it is asked to."""

    def __init__(self) -> None:
        self.passed_ms = 0

    def now_ms(self) -> int:
        return EPOCH_MS + self.passed_ms

    def monotonic_ms(self) -> int:
        return self.passed_ms


class World:
    """An engine, its registry, and a log of what tasks were called with. `add`, `ident`, ... are tasks."""

    def __init__(self, url: str, clock: StoppedClock | None, *, worker: bool = True) -> None:
        self.registry = TaskRegistry()
        self.task = self.registry.task
        self.log: list[Any] = []
        self.clock = clock
        store = open_redis(url, clock, test_time=True) if clock is not None and url.startswith("redis") else None
        self.app = Stemflow(url, self.registry, clock=clock, worker=worker, store=store)
        self._sequence = 0
        self._register()

    def _register(self) -> None:
        log = self.log

        @self.task("add")
        async def add(x: Any, y: Any, z: Any = 0) -> Any:
            return x + y + z if z else x + y

        @self.task("ident")
        async def ident(x: Any) -> Any:
            return x

        @self.task("tsum")
        async def tsum(numbers: list[int]) -> int:
            return sum(numbers)

        @self.task("add_all")
        async def add_all(numbers: list[int], n: int) -> list[int]:
            return [number + n for number in numbers]

        @self.task("note")
        async def note(*what: Any) -> Any:
            log.append(what[0] if len(what) == 1 else list(what))
            return what[0] if what else None

        @self.task("fail")
        async def fail(*what: Any) -> Any:
            raise UserError(f"failed with {list(what)}" if what else "failed")

        self.add, self.ident, self.tsum, self.add_all = add, ident, tsum, add_all
        self.note, self.fail = note, fail

    def fail_together(self, parties: int) -> Any:
        """A task that fails once `parties` of its kind run, so that none is stopped before it has started."""
        barrier = asyncio.Barrier(parties)

        @self.task(f"fail_together_{parties}")
        async def fail_together(*what: Any) -> Any:
            await barrier.wait()
            raise UserError(f"failed with {list(what)}")

        return fail_together

    # -- running

    async def end(self, sig: Signature[Any, Any], *args: Any, **kwargs: Any) -> tuple[RunHandle, TaskResult[Any]]:
        """Submit, and wait for the end."""
        handle = await self.app.submit(sig, *args, **kwargs)
        return handle, await self.outcome(handle)

    async def outcome(self, handle: RunHandle) -> TaskResult[Any]:
        result = await handle.wait(timeout=PATIENCE_S)
        assert not result.timed_out, [(n.path, n.state) for n in await handle.records()]
        return result

    async def run(self, sig: Signature[Any, Any], *args: Any, **kwargs: Any) -> Any:
        """The value of a run; raises RunFailed."""
        _, result = await self.end(sig, *args, **kwargs)
        if result.status != "succeeded":
            raise RunFailed(result)
        return result.value

    async def states(self, handle: RunHandle) -> dict[str, str]:
        return {node.path: node.state for node in await handle.records()}

    async def until(self, condition: Any) -> None:
        """Let others go on until `condition()` holds, which may be awaitable."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                holds = condition()
                if await holds if asyncio.iscoroutine(holds) else holds:
                    return
                await asyncio.sleep(0)

    def pass_ms(self, ms: int) -> None:
        """Let time pass."""
        assert self.clock is not None and self.app.service is not None
        self.clock.passed_ms += ms
        self.app.service.slots.wake()

    # -- without a worker: deliveries by hand

    async def lease(self, limit: int = 100) -> list[Lease]:
        """Take what is ready, as a worker would."""
        self._sequence += 1
        want = Want(owner="by hand", limit=limit)
        return list((await self.app.store.exchange(Request("by hand", self._sequence), [], want)).leases)

    async def report(self, lease: Lease, value: Any) -> bool:
        """Report that the attempt under `lease` gave `value`; whether the report counted."""
        fact = Ended(lease.node.key, lease.node.delivery, Ok(encode(value, "value")))
        return fact not in (await self.app.parts.committer.commit([fact])).refused

    async def fail_lease(self, lease: Lease) -> bool:
        """Report that the attempt under `lease` failed for good; whether the report counted."""
        fact = Ended(lease.node.key, lease.node.delivery, Failed(ErrorInfo("UserError", "by hand"), "final"))
        return fact not in (await self.app.parts.committer.commit([fact])).refused

    async def lose(self, lease: Lease) -> None:
        """The lease passes its time and is taken over by a sweeper, which reports the loss."""
        assert self.clock is not None
        self.clock.passed_ms += lease.node.lease_ms + 1
        for taken in await self.app.store.take_expired("sweeper", 100):
            self.app.decider.remember_lease(taken)
            await self.app.parts.committer.commit([Lost(taken.node.key, taken.node.delivery)])


@pytest.fixture(params=["memory", "sqlite", "redis", "partitions", pytest.param("cluster", marks=pytest.mark.faults)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "cluster":
        nodes = request.getfixturevalue("cluster")
        nodes.flush()
        return f"{nodes.url}?partitions=5"
    if request.param in ("redis", "partitions"):
        server = request.getfixturevalue("one_server")
        server.flush()
        return str(server.url) + ("?partitions=3" if request.param == "partitions" else "")
    return "memory:" if request.param == "memory" else f"sqlite:{tmp_path / 'cases.db'}"


@pytest.fixture
async def world(url: str) -> AsyncIterator[World]:
    """An engine on the machine's clock."""
    it = World(url, None)
    async with it.app:
        yield it


@pytest.fixture
async def stopped(url: str) -> AsyncIterator[World]:
    """An engine whose time passes only when the test says so."""
    it = World(url, StoppedClock())
    async with it.app:
        yield it


@pytest.fixture
async def by_hand(url: str) -> AsyncIterator[World]:
    """An engine without a worker, whose time passes only when the test says so: the test leases and reports."""
    it = World(url, StoppedClock(), worker=False)
    async with it.app:
        yield it


@pytest.fixture
def at_once() -> RetryPolicy:
    """Retries that do not wait."""
    return RetryPolicy.of(initial="1ms", max="1ms")
