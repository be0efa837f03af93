"""The contract, on every store."""

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest

from stemflow.store.base import Store
from stemflow.store.open import open_store
from stemflow.store.redis.open import open_redis
from stemflow.testing.contract import StoreContract
from stemflow.testing.contract_keep import PrunePromises
from stemflow.testing.contract_world import ManualClock
from stemflow.testing.remote import RemoteStore
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


@pytest.fixture(scope="module")
def other_process(server: Server) -> Iterator[str]:
    """A process that serves a store on the same server; the path of its socket."""
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/store"
        words = [sys.executable, "-m", "stemflow.testing.remote", path, server.url]
        with subprocess.Popen(words, stdout=subprocess.PIPE) as child:
            assert child.stdout is not None
            assert child.stdout.readline() == b"ready\n"
            yield path
            child.kill()


class TestRedisInTwoProcesses(StoreContract):
    """The second user is in a process of its own."""

    @pytest.fixture(autouse=True)
    def _server(self, server: Server, other_process: str) -> None:
        server.flush()
        self.url, self.path = server.url, other_process

    def make_store(self, clock: ManualClock) -> Store:
        return open_redis(self.url, clock, test_time=True)

    def second(self, store: Store, clock: ManualClock) -> Store:
        return cast(Store, RemoteStore(self.path, clock, open_redis(self.url, clock, test_time=True).renewer))
