"""Ticks of a schedule while the workers that make them are killed."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from stemflow.schedule import ticks_between
from stemflow.schedule.spec import instant_ms
from stemflow.testing.servers.server import Server
from tests.faults.proc_tasks import step
from tests.faults.proc_world import place_on, until

pytestmark = pytest.mark.faults


def at_ms(row: dict[str, Any]) -> int:
    return instant_ms("at", row["at"])


@pytest.fixture
def empty(one_server: Server) -> Server:
    one_server.flush()
    return one_server


@pytest.mark.parametrize("store", ["server", "sqlite"])
async def test_each_tick_starts_one_run_though_workers_are_killed(store: str, empty: Server, tmp_path: Path) -> None:
    async with place_on(empty, tmp_path) as place:
        if store == "sqlite":
            place.url = f"sqlite:{tmp_path / 'jobs.db'}"
        producer = await place.producer()
        # Given a schedule with a tick each 500 ms, none of which may be left out
        await producer.schedule(
            "often", step.s("x"), every="500ms", overlap="allow", catch_up={"window": "10m", "keep": "all"}
        )
        info = await producer.schedules.info("often")
        # When its workers are killed one after the other
        for _ in range(3):
            dying = await place.worker().ready()
            before = len(await producer.schedules.history("often", 10_000))

            async def more(before: int = before) -> None:
                while len(await producer.schedules.history("often", 10_000)) < before + 3:
                    await asyncio.sleep(0.05)

            await asyncio.wait_for(more(), 60)
            dying.kill_now()
            place.tries += 1
        await place.worker().ready()
        until_ms = producer.store.now_ms()

        async def caught_up() -> None:
            while True:
                rows = await producer.schedules.history("often", 1)
                if rows and at_ms(rows[0]) >= until_ms:
                    return
                await asyncio.sleep(0.05)

        await asyncio.wait_for(caught_up(), 60)
        await producer.schedules.remove("often")
        # Then each tick has started one run, and its task has run
        rows = [row for row in await producer.schedules.history("often", 10_000) if at_ms(row) <= until_ms]
        expected = [one.at_ms for one in ticks_between(info.head.spec, info.head.from_ms, until_ms)]
        assert sorted(map(at_ms, rows)) == expected
        assert {row["fate"] for row in rows} == {"started"}
        runs = {row["run"] for row in rows}
        assert len(runs) == len(expected)

        def ended() -> bool:
            return runs <= {one.run for one in place.witness.sights() if one.event == "end"}

        await until(ended, 60)
        again = Counter(one.run for one in place.witness.sights() if one.event == "begin" and one.run in runs)
        assert max(again.values()) <= 5
