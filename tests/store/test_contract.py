"""The contract, on every store."""

from pathlib import Path

import pytest

from stemflow.store.base import Store
from stemflow.store.open import open_store
from stemflow.store.redis.open import open_redis
from stemflow.testing.contract import StoreContract
from stemflow.testing.contract_keep import PrunePromises
from stemflow.testing.contract_world import ManualClock
from stemflow.testing.server import Server


class TestMemory(StoreContract, PrunePromises):
    def make_store(self, clock: ManualClock) -> Store:
        return open_store("memory:", clock)

    def second(self, store: Store, clock: ManualClock) -> Store:
        return store


class TestSqlite(StoreContract, PrunePromises):
    @pytest.fixture(autouse=True)
    def _directory(self, tmp_path: Path) -> None:
        self.url = f"sqlite:{tmp_path / 'store.db'}"

    def make_store(self, clock: ManualClock) -> Store:
        return open_store(self.url, clock)

    def second(self, store: Store, clock: ManualClock) -> Store:
        return open_store(self.url, clock)


class TestRedis(StoreContract):
    @pytest.fixture(autouse=True)
    def _server(self, server: Server) -> None:
        server.flush()
        self.url = server.url

    def make_store(self, clock: ManualClock) -> Store:
        return open_redis(self.url, clock, test_time=True)

    def second(self, store: Store, clock: ManualClock) -> Store:
        return open_redis(self.url, clock, test_time=True)
