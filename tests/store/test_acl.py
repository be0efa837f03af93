"""A worker needs no more rights on a server than `stemflow acl` prints, and has no others."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import redis

import stemflow.store.redis
from stemflow import Canvas, Stemflow, TaskContext, TaskRegistry
from stemflow.cli.main import main
from stemflow.runtime.clock import SystemClock
from stemflow.store.base import Store
from stemflow.store.open import open_store
from stemflow.store.redis.acl import DATA, USERS, acl_file
from stemflow.store.redis.open import open_redis
from stemflow.store.redis.url import parse_url
from stemflow.testing.contract import StoreContract
from stemflow.testing.contract.world import ManualClock
from stemflow.testing.servers.server import Server


@pytest.fixture(scope="module")
def guarded(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with the users of the file, as an operator makes them; the password of each is its name."""
    folder = tmp_path_factory.mktemp("acl")
    text = acl_file(parse_url("redis://localhost"))
    (folder / "users.acl").write_text(f"user default on nopass ~* &* +@all\n{text}\n")
    with Server(server.binary, folder, [f"aclfile {folder / 'users.acl'}"]) as started:
        for user in USERS:
            assert started.ask("ACL", "SETUSER", user, f">{user}") == b"+OK\r\n"
        yield started


def url_of(server: Server, user: str) -> str:
    return f"redis://{user}:{user}@127.0.0.1:{server.port}/0"


class TestWorker(StoreContract):
    """Everything that a store promises, as a user with a worker's rights."""

    @pytest.fixture(autouse=True)
    def _server(self, guarded: Server) -> None:
        guarded.flush()
        self.url = url_of(guarded, "stemflow-worker")

    def make_store(self, clock: ManualClock) -> Store:
        return open_redis(self.url, clock, test_time=True)

    def second(self, store: Store, clock: ManualClock) -> Store:
        return open_redis(self.url, clock, test_time=True)


async def test_a_producer_submits_and_a_worker_works(guarded: Server) -> None:
    guarded.flush()
    registry = TaskRegistry()

    @registry.task("keep", rate_limit="1000/s", unique=True, unique_by="${{ args.x }}")
    async def keep(context: TaskContext, x: int) -> int:
        await context.progress(50)
        return x

    @registry.task("fails", max_retries=0)
    async def fails() -> None:
        raise ValueError("no")

    async with (
        Stemflow(url_of(guarded, "stemflow-producer"), registry, worker=False) as producer,
        Stemflow(url_of(guarded, "stemflow-worker"), registry) as worker,
    ):
        handle = await producer.submit(Canvas.map(keep.s(), list(range(1_100))))
        assert len((await handle.wait(timeout=30)).value or ()) == 1_100
        failed = await producer.submit(fails.s())
        assert (await failed.wait(timeout=30)).status == "failed"
        assert len(await producer.store.dead_letters()) == 1
        later = await producer.submit(keep.with_options(countdown="1h").s(5_000))
        assert worker.service is not None
        await asyncio.to_thread(worker.service.renewals.renewer().renew, [(("r", ""), 1, 1_000)])
        await later.cancel()
        assert (await later.wait(timeout=30)).status == "cancelled"
        await worker.store.prune(10)


@pytest.mark.parametrize("user", list(USERS))
@pytest.mark.parametrize(
    "words",
    [
        "FLUSHALL", "FLUSHDB", "KEYS *", "SCAN 0", "CONFIG SET maxmemory 1", "SHUTDOWN NOSAVE", "ACL LIST",
        "SCRIPT FLUSH", "REPLICAOF NO ONE", "CLIENT LIST", "MONITOR", "GET other", "SET other 1",
        "PUBLISH other 1", "EVAL redis.call('FLUSHALL') 0", "EVAL redis.call('SET','other','1') 0",
    ],
)  # fmt: skip
def test_what_nobody_needs_is_refused(guarded: Server, user: str, words: str) -> None:
    place = urlsplit(url_of(guarded, user))
    client = redis.Redis(host=str(place.hostname), port=place.port or 0, username=user, password=user)
    with pytest.raises(redis.exceptions.ResponseError, match=r"(?i)permission|NOPERM|can't"):
        client.execute_command(*words.split(" ", 2 if words.startswith("EVAL") else 9))
    client.close()


async def test_the_doctor_may_ask_for_settings_and_a_worker_gets_by_without(guarded: Server) -> None:
    for user, asked in (("stemflow-doctor", True), ("stemflow-worker", False)):
        store = open_store(url_of(guarded, user), SystemClock())
        found = {one.check: one for one in (await store.check_health()).findings}
        assert ("unknown" in found["snapshots"].text) is not asked
        assert ("unknown" in found["keys"].text) is not asked
        assert found["scripts"].level == "ok"


def test_nobody_can_log_in_before_a_password_is_given(server: Server) -> None:
    # A line of the file, as it is printed, lets nobody in
    assert all("resetpass" in line and ">" not in line for line in acl_file(parse_url("redis://localhost")).splitlines())


def test_the_file_is_printed_for_the_prefix_of_a_store(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["acl", "--store", "redis://localhost/0?prefix=shop"]) == 0
    out = capsys.readouterr().out
    assert out == acl_file(parse_url("redis://localhost?prefix=shop")) + "\n"
    assert "~{shop:*}* resetchannels &shop:*" in out


def test_no_right_is_given_that_nothing_uses() -> None:
    folder = Path(stemflow.store.redis.__path__[0])
    text = "".join(one.read_text("utf-8") for kind in ("*.py", "lua/**/*.lua") for one in folder.glob(kind))
    assert [command for command in DATA if not re.search(rf"""['"]{command.upper()}['"]""", text)] == []
