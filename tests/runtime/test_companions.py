"""The companion tasks of a worker (recovery, renewal, heartbeats, pruning) do not fail unnoticed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from stemflow import Stemflow, TaskRegistry
from stemflow.runtime.worker import lease_renewal as renew
from stemflow.runtime.worker import service
from stemflow.runtime.worker import supervised as supervision
from stemflow.store.base import Renewed


class Failing:
    """Fails twice with an error of the engine's own, then works as it should; `ended`: it works."""

    def __init__(self, work: Callable[[Any], Awaitable[None]]) -> None:
        self.work, self.calls, self.works = work, 0, asyncio.Event()

    async def __call__(self, given: Any) -> None:
        self.calls += 1
        if self.calls == 1:
            raise TypeError("broken")
        if self.calls == 2:
            return
        self.works.set()
        await self.work(given)


@pytest.mark.parametrize("name", ["recover", "keep_pruned"])
async def test_a_companion_that_fails_or_ends_starts_again_and_is_reported(
    name: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(supervision, "FIRST_PAUSE_S", 0.01)
    failing = Failing(getattr(service, name))
    monkeypatch.setattr(service, name, failing)
    said: list[str] = []
    registry = TaskRegistry()
    registry.signals.worker_error.connect(lambda event: said.append(event.error.type if event.error else ""))

    @registry.task("f")
    async def f() -> int:
        return 1

    async with Stemflow("memory:", registry) as app:
        await asyncio.wait_for(failing.works.wait(), 10)
        assert await app.run(f.s()) == 1
    assert said == ["TypeError", "RuntimeError"]
    loud = [one for one in caplog.records if one.name == "stemflow.supervised"]
    assert len(loud) == 2 and all(one.levelname == "ERROR" and one.exc_info for one in loud)


async def test_renewal_that_fails_in_its_thread_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    registry, renewed = TaskRegistry(), asyncio.Event()
    loop = asyncio.get_running_loop()
    calls: list[int] = []

    class Broken:
        def renew(self, held: Any) -> Renewed:
            calls.append(len(held))
            if len(calls) < 3:
                raise TypeError("broken")
            loop.call_soon_threadsafe(renewed.set)
            return Renewed((), ())

        def close(self) -> None: ...

    registry.signals.worker_error.connect(lambda event: said.append(event.error.type if event.error else ""))

    @registry.task("nap", visibility_timeout="200ms")
    async def nap() -> None:
        await asyncio.wait_for(renewed.wait(), 10)

    app = Stemflow("memory:", registry)
    monkeypatch.setattr(app.store, "renewer", Broken)
    async with app:
        assert (await (await app.submit(nap.s())).wait()).status == "succeeded"
    assert said[:2] == ["TypeError", "TypeError"]


async def test_a_short_lease_wakes_the_thread_that_renews(monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a thread that has nothing to renew, and would look again in a minute
    monkeypatch.setattr(renew, "LONGEST_PAUSE_MS", 60_000)
    registry, renewed = TaskRegistry(), asyncio.Event()
    loop = asyncio.get_running_loop()

    class Renews:
        def renew(self, held: Any) -> Renewed:
            loop.call_soon_threadsafe(renewed.set)
            return Renewed((), ())

        def close(self) -> None: ...

    @registry.task("nap", visibility_timeout="200ms")
    async def nap() -> None:
        await asyncio.wait_for(renewed.wait(), 10)

    app = Stemflow("memory:", registry)
    monkeypatch.setattr(app.store, "renewer", Renews)
    async with app:
        await asyncio.sleep(0.05)
        # Then it renews a short lease in time
        assert (await (await app.submit(nap.s())).wait()).status == "succeeded"
