"""The contract, on every store."""

import subprocess
import sys
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest

from stemflow.model.records import NO_RUN
from stemflow.store.base import Store
from stemflow.store.open import open_store
from stemflow.store.redis.connections import DirectConnections
from stemflow.store.redis.open import open_redis
from stemflow.store.redis.partitioned_exchange import PartOf, part_of
from stemflow.store.redis.store import RedisStore
from stemflow.store.redis.url import parse_url
from stemflow.testing.contract import StoreContract
from stemflow.testing.contract.remote import RemoteStore
from stemflow.testing.contract.retention import DAY_MS, PrunePromises, prune
from stemflow.testing.contract.world import ManualClock
from stemflow.testing.servers.server import Server


class TestMemory(StoreContract, PrunePromises):
    def make_store(self, clock: ManualClock) -> Store:
        return open_store("memory:", clock)

    def second(self, store: Store, clock: ManualClock) -> Store:
        return store

    async def test_memos_of_channels_that_rest_for_a_day_are_forgotten(self) -> None:
        async with self.world() as w:
            await w.one.begin()
            w.clock.advance(DAY_MS - 1)
            assert await prune(w.two) == 0
            w.clock.advance(1)
            assert await prune(w.two) == 1


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
        words = [sys.executable, "-m", "stemflow.testing.contract.remote", path, server.url]
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


class TestPartitions(StoreContract):
    """Three partitions on one server. Runs under ids of one's own lie in the first, with the keys that runs share."""

    part_of: PartOf = staticmethod(part_of)

    @pytest.fixture(autouse=True)
    def _server(self, one_server: Server) -> None:
        one_server.flush()
        self.place = parse_url(f"{one_server.url}?partitions=3")

    def make_store(self, clock: ManualClock) -> Store:
        part_of = type(self).part_of
        return RedisStore(self.place, clock, DirectConnections(self.place), test_time=True, part_of=part_of)

    def second(self, store: Store, clock: ManualClock) -> Store:
        return self.make_store(clock)


def spread(run: str, parts: int) -> int:
    return zlib.crc32(run.encode()) % parts if run != NO_RUN else 0


class TestSpreadPartitions(TestPartitions):
    """The same, with all runs spread over the partitions, whatever their ids."""

    part_of: PartOf = staticmethod(spread)

    # One decision never touches two partitions.
    test_nothing_of_a_stale_decision_is_written = None
    test_what_made_a_decision_stale_comes_with_the_answer = None
    test_dead_letters_are_listed_newest_first_and_chosen_by_what_they_say = None
    test_a_caller_that_wanted_more_is_woken_by_what_becomes_due_sooner = None
    test_timers_end_with_what_they_were_set_for = None
    # Order is kept within a partition, and runs of one instant are listed by their ids.
    test_the_root_of_a_run_is_leased_with_the_header = None
    test_runs_are_listed_newest_first_and_by_prefix = None
