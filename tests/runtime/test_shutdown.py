"""An idle worker that shuts down while its store is away ends quietly, whatever it is doing at that moment."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Sequence
from functools import partial
from typing import Any

import pytest

from stemflow import Stemflow, TaskRegistry
from stemflow.model.effects import Decision
from stemflow.store.base import Exchange, Lease, Request, StoreUnavailable, Want
from stemflow.store.memory.store import MemoryStore
from stemflow.testing.simulation.virtual_loop import SeededIds, VirtualClock, VirtualLoop
from tests.conftest import VirtualRun

FAILS_AFTER_S = {"refused at once": 0.0, "refused for a while": 4.7, "connecting hangs": 10.0}
"""How long a call to a store that is away takes until it fails."""
STOPPED_AFTER_S = (0.0, 0.01, 0.3, 0.97, 1.0, 1.03, 4.75, 5.72, 7.0, 11.05, 40.0)
"""After so long without its store the worker begins to drain: at rest, in an exchange, in a pause before the next."""
BACK_AFTER_S = (None, 0.2, 0.49, 0.51, 4.0)
"""When the store is back after that; a call that is under way then succeeds."""
REPORTED = "the worker ends, and has nothing to report"


class AwayStore(MemoryStore):
    """A store that may be away; a call fails when it has been away for `fails_after_s` during the call."""

    def __init__(self, clock: VirtualClock, fails_after_s: float) -> None:
        super().__init__("memory:", clock)
        self.concurrent_exchanges = True
        self.fails_after_s = fails_after_s
        self.back = asyncio.Event()
        self.back.set()

    async def reached(self) -> None:
        if self.back.is_set():
            return
        try:
            async with asyncio.timeout(self.fails_after_s):
                await self.back.wait()
        except TimeoutError:
            raise StoreUnavailable("memory: the server cannot be reached") from None

    async def exchange(self, request: Request, decisions: Sequence[Decision], want: Want | None) -> Exchange:
        await self.reached()
        return await super().exchange(request, decisions, want)

    async def take_expired(self, owner: str, limit: int, run: str | None = None) -> list[Lease]:
        await self.reached()
        return await super().take_expired(owner, limit, run)

    async def put_hint(self, topic: str, name: str, body: bytes, ttl_ms: int) -> None:
        await self.reached()
        await super().put_hint(topic, name, body, ttl_ms)

    async def prune(self, limit: int) -> int:
        await self.reached()
        return await super().prune(limit)


async def stopped(fails_after_s: float, stopped_after_s: float, back_after_s: float | None) -> float:
    """Stop a worker under these conditions; return how many seconds that took. Raises what ended the worker."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    clock = VirtualClock(loop)
    store = AwayStore(clock, fails_after_s)
    app = Stemflow("memory:", TaskRegistry(), clock=clock, ids=SeededIds(random.Random(0)), store=store)
    async with app:
        assert app.service is not None
        ended = asyncio.ensure_future(app.service.ended())
        await asyncio.sleep(3.5)
        store.back.clear()
        await asyncio.sleep(stopped_after_s)
        if back_after_s is not None:
            loop.call_later(back_after_s, store.back.set)
        began = loop.time()
        await app.service.stop(30_000)
        await ended
        return loop.time() - began


@pytest.mark.parametrize("back_after_s", BACK_AFTER_S, ids=lambda s: "away" if s is None else f"back after {s}")
@pytest.mark.parametrize("fails", FAILS_AFTER_S)
def test_it_ends_quietly(fails: str, back_after_s: float | None, vrun: VirtualRun, caplog: Any) -> None:
    for stopped_after_s in STOPPED_AFTER_S:
        caplog.clear()
        took_s = vrun(partial(stopped, FAILS_AFTER_S[fails], stopped_after_s, back_after_s))

        # Then it logs at most once that it has nothing to report, nothing else of its tasks, and no error
        logged = [record for record in caplog.records if REPORTED in record.getMessage()]
        assert len(logged) == 1 if back_after_s is None else len(logged) <= 1, stopped_after_s
        assert not any("leases have expired" in record.getMessage() for record in caplog.records)
        assert not any(record.levelno >= logging.ERROR or record.exc_info for record in caplog.records)
        # And it has waited for one call of its exchange loop, and for the one that stores that it has stopped
        assert took_s <= 2 * FAILS_AFTER_S[fails] + 0.6


def test_a_pause_before_the_next_attempt_ends_when_the_worker_begins_to_drain(vrun: VirtualRun) -> None:
    # Given attempts that fail at once, so that after 40 s the worker pauses for up to 5 s between two of them
    took_s = [vrun(partial(stopped, 0.0, after_s, None)) for after_s in range(40, 50)]
    # Then it does not wait for the end of a pause
    assert max(took_s) < 0.1
