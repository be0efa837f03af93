"""The companion tasks of a worker (recovery, renewal, heartbeats, pruning) do not fail unnoticed."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from stemflow import Stemflow, TaskRegistry
from stemflow.runtime.worker import lease_renewal as renew
from stemflow.runtime.worker import service
from stemflow.store.base import Renewed


async def _breaks(app: Stemflow, said: list[str]) -> None:
    assert app.service is not None
    with pytest.raises(TypeError, match="broken"):
        await asyncio.wait_for(app.service.ended(), 5)
    assert said == ["TypeError"]


@pytest.mark.parametrize("name", ["recover", "keep_pruned"])
async def test_a_companion_that_fails_ends_the_worker_and_is_reported(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(_: Any) -> None:
        raise TypeError("broken")

    monkeypatch.setattr(service, name, broken)
    said: list[str] = []
    registry = TaskRegistry()
    registry.signals.worker_error.connect(lambda event: said.append(event.error.type if event.error else ""))
    async with Stemflow("memory:", registry) as app:
        await _breaks(app, said)


async def test_a_companion_that_ends_by_itself_counts_as_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    async def over(_: Any) -> None:
        return

    monkeypatch.setattr(service, "recover", over)
    async with Stemflow("memory:", TaskRegistry()) as app:
        assert app.service is not None
        with pytest.raises(Exception, match="recover ended by itself; restart the worker"):
            await asyncio.wait_for(app.service.ended(), 5)


async def test_renewal_that_fails_in_its_thread_ends_the_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        def renew(self, held: Any) -> Renewed:
            raise TypeError("broken")

        def close(self) -> None: ...

    said: list[str] = []
    registry = TaskRegistry()
    registry.signals.worker_error.connect(lambda event: said.append(event.error.type if event.error else ""))

    @registry.task("nap", visibility_timeout="100ms")
    async def nap() -> None:
        await asyncio.Event().wait()

    app = Stemflow("memory:", registry)
    monkeypatch.setattr(app.store, "renewer", Broken)
    async with app:
        await app.submit(nap.s())
        await _breaks(app, said)


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
