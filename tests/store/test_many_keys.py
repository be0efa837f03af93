"""A round costs nothing for what is limited and not due, however many keys there are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import redis

from stemflow.model.rates import Rate
from stemflow.store import rate_windows as windows
from stemflow.store.base import Store
from stemflow.store.open import open_store
from stemflow.store.redis.open import open_redis
from stemflow.testing.contract.world import ManualClock, User, leaf, paths
from stemflow.testing.servers.server import Server

TENANTS = 1_500
PERIOD_MS = 3_600_000


async def crowd(store: Store, clock: ManualClock) -> User:
    """Every tenant has had one start, one leaf more is ready, and all but three of them must wait for 10 ms longer."""
    await store.open()
    user = User(store, "one")
    leaves = [
        leaf(f"{tenant}.{number}", limits=(Rate(1, PERIOD_MS, f"t{tenant}"), Rate(TENANTS + 1, 60_000, "all")))
        for number in range(2)
        for tenant in range(TENANTS)
    ]
    await user.begin(*leaves)
    assert len(await user.lease(3)) == 3
    clock.advance(10)
    while await user.lease(500):
        pass
    return user


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_only_what_is_due_is_asked_about(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given very many keys that wait
    clock, asked = ManualClock(), list[Any]()
    store = open_store("memory:" if kind == "memory" else f"sqlite:{tmp_path / 's.db'}", clock)
    user = await crowd(store, clock)
    admit = windows.Windows.admit
    monkeypatch.setattr(windows.Windows, "admit", lambda self, lane: asked.append(lane) or admit(self, lane))

    # When something else comes; then it is leased and nobody else is asked about
    await user.begin(leaf("other", "s"), run="s")
    assert paths(await user.lease()) == ["other"]
    assert asked == []

    # When three tenants are due; then they are leased, and of the others nobody was asked about
    clock.advance(PERIOD_MS - 10)
    assert paths(await user.lease()) == ["0.1", "1.1", "2.1"]
    assert len(asked) <= 6
    await store.close()


async def test_a_server_touches_only_what_is_due(server: Server) -> None:
    server.flush()
    clock = ManualClock()
    store = open_redis(server.url, clock, test_time=True)
    user = await crowd(store, clock)
    client: Any = redis.Redis.from_url(server.url)

    def commands() -> int:
        return sum(one["calls"] for one in client.info("commandstats").values())

    before = commands()
    await user.begin(leaf("other", "s"), run="s")
    assert paths(await user.lease()) == ["other"]
    idle = commands() - before
    clock.advance(PERIOD_MS - 10)
    assert paths(await user.lease()) == ["0.1", "1.1", "2.1"]
    due = commands() - before - idle
    assert idle < 100
    assert due < 150
    client.close()
    await store.close()
