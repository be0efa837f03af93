"""doctor: how safe a store is, which workers serve it, and which work makes no progress."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from stemflow import Stemflow, TaskRegistry
from stemflow.model.records import Node
from stemflow.runtime.catalog.heartbeats import Heartbeat
from stemflow.runtime.doctor import clocks, leases, queues, timers, workers
from stemflow.store.health import Inventory, QueueInventory
from stemflow.store.redis.health import durability, memory, replication
from stemflow.store.redis.server import parsed
from stemflow.store.redis.versions import CHECKS, TABLE, covered
from stemflow.store.sqlite.health import file_system_of
from stemflow.testing.servers.executables import PACKAGES, server_binaries
from stemflow.testing.servers.server import Server
from tests.cli.test_run import follows_schema
from tests.cli.world import Cli

Findings = dict[str, tuple[str, str]]


@pytest.fixture
def doctor(project: Path, cli: Cli) -> Callable[..., tuple[int, Findings]]:
    """The exit code, and the findings by what was looked at: (level, text)."""

    def run(*words: str) -> tuple[int, Findings]:
        ran = cli("doctor", "--json", *words)
        told = follows_schema("doctor", ran.out)
        found = {one["check"]: (one["level"], one["text"]) for one in told["findings"]}
        assert told["level"] == max((level for level, _ in found.values()), key=["ok", "warning", "error"].index)
        assert all((one["advice"] is None) == (one["level"] == "ok") for one in told["findings"])
        return ran.code, found

    return run


# -- SQLite


def test_a_file_that_is_well_has_no_errors(doctor: Any, cli: Cli) -> None:
    cli("run", "hello.yaml")
    code, found = doctor()
    assert code == 0
    assert found["integrity"][0] == "ok"
    assert "WAL, synchronous NORMAL" in found["durability"][1]
    assert found["runs"] == ("ok", "1 run kept")
    assert found["dead-letters"] == ("ok", "no dead letters")


def test_there_is_no_file_and_none_is_made(doctor: Any, project: Path) -> None:
    code, found = doctor()
    assert (code, found["file"][0]) == (1, "error")
    assert not (project / ".stemflow").exists()


def test_a_damaged_file_is_an_error(doctor: Any, cli: Cli, project: Path) -> None:
    cli("run", "hello.yaml")
    path = project / ".stemflow" / "stemflow.db"
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    db.close()
    data = bytearray(path.read_bytes())
    for page in range(3, len(data) // 4096):
        data[page * 4096 : page * 4096 + 200] = b"\xff" * 200
    path.write_bytes(data)
    code, found = doctor()
    assert (code, found["integrity"][0]) == (1, "error")


def test_tasks_without_a_worker_and_failed_tasks_are_reported(doctor: Any, cli: Cli) -> None:
    cli("run", "flaky.yaml")
    cli("submit", "hello.yaml")
    code, found = doctor()
    assert code == 0
    assert found["dead-letters"] == ("warning", "1 dead letter")
    level, text = found["queues"]
    assert level == "warning"
    assert text.startswith("queue default: 1 ready, 0 delayed")
    assert text.endswith("and no worker serves it")


def test_a_file_on_a_network_is_recognised_by_its_file_system(tmp_path: Path) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text("/dev/a / ext4 rw 0 0\nhost:/x /mnt/my\\040share nfs4 rw 0 0\nnone /mnt tmpfs rw 0 0\n")
    assert file_system_of("/mnt/my share/stemflow.db", str(mounts)) == "nfs4"
    assert file_system_of("/mnt/other.db", str(mounts)) == "tmpfs"
    assert file_system_of("/home/stemflow.db", str(mounts)) == "ext4"


# -- a server


@pytest.fixture
def clean(server: Server) -> Iterator[Server]:
    server.flush()
    yield server
    for setting, value in (("maxmemory", "0"), ("maxmemory-policy", "noeviction"), ("appendonly", "no")):
        server.ask("CONFIG", "SET", setting, value)


def test_a_server_shows_its_version_and_what_a_crash_would_lose(doctor: Any, clean: Server) -> None:
    code, found = doctor("--store", clean.url)
    assert code == 0
    assert "promises G1 to G5" in found["version"][1]
    assert found["durability"] == (
        "warning", "append-only file off: a crash or restart of the server loses everything",
    )  # fmt: skip
    assert {found[check][0] for check in ("memory", "replicas", "scripts", "latency", "clock", "keys")} == {"ok"}
    clean.ask("CONFIG", "SET", "appendonly", "yes")
    _, found = doctor("--store", clean.url)
    assert found["durability"][0] == "ok"
    assert "fsync everysec" in found["durability"][1]


def test_a_server_that_throws_data_away_is_an_error_for_the_doctor_and_all_others(
    doctor: Any, cli: Cli, clean: Server
) -> None:
    clean.ask("CONFIG", "SET", "maxmemory", "1gb")
    clean.ask("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    code, found = doctor("--store", clean.url)
    assert (code, found["memory"][0]) == (1, "error")
    assert "expected maxmemory-policy noeviction, got allkeys-lru" in found["memory"][1]
    assert "runs" not in found
    for words in (("worker", "--tasks", "tasks"), ("submit", "hello.yaml", "--tasks", "tasks")):
        ran = cli(*words, "--store", clean.url)
        assert ran.code == 3
        assert "expected maxmemory-policy noeviction, got allkeys-lru" in ran.err
    assert clean.ask("DBSIZE") == b":0\r\n"


def test_a_server_that_is_not_there_is_a_sentence(cli: Cli, project: Path) -> None:
    ran = cli("doctor", "--store", "redis://127.0.0.1:1/0")
    assert ran.code == 3
    assert "cannot be reached" in ran.err


def test_a_task_that_no_worker_of_its_queue_has_registered_is_reported(doctor: Any, cli: Cli, clean: Server) -> None:
    # Given a worker of another release, which serves the queue
    cli("submit", "hello.yaml", "--tasks", "tasks", "--store", clean.url)

    async def meanwhile() -> Findings:
        registry = TaskRegistry()
        registry.task("other")(lambda: None)
        async with Stemflow(clean.url, registry) as app:
            assert app.service is not None
            await app.service.presence.publish("running")
            for _ in range(10):
                found: Findings = (await asyncio.to_thread(doctor, "--store", clean.url))[1]
                if "unroutable" in found:
                    break
                # The worker held it at that moment, and hands it back.
            return found

    found = asyncio.run(meanwhile())
    assert found["workers"][1] == "1 worker alive"
    assert "none of its workers has declared task say" in found["unroutable"][1]


# -- judgements

AOF = {"aof_enabled": "1"}


@pytest.mark.parametrize(
    ("info", "config", "level", "says"),
    [
        (AOF, {"appendfsync": "always"}, "ok", "every acknowledged write is on disk"),
        (AOF, {"appendfsync": "everysec"}, "ok", "the last two seconds of acknowledged writes"),
        ({**AOF, "aof_delayed_fsync": "3"}, {"appendfsync": "everysec"}, "warning", "too slow 3 times"),
        (AOF, {"appendfsync": "no"}, "warning", "what the system had not yet written"),
        (AOF, None, "warning", "fsync policy unknown"),
        ({"aof_enabled": "0"}, {"save": "60 1"}, "warning", "since the last snapshot"),
        ({**AOF, "aof_last_write_status": "err"}, {"appendfsync": "always"}, "error", "refuses writes"),
    ],
)
def test_durability_is_judged_by_the_append_only_file(info: Any, config: Any, level: str, says: str) -> None:
    found = durability(info, config)[0]
    assert found.level == level
    assert says in found.text


def test_a_snapshot_that_failed_is_an_error() -> None:
    assert durability({**AOF, "rdb_last_bgsave_status": "err"}, None)[1].level == "error"


@pytest.mark.parametrize(
    ("limit", "policy", "used", "level"),
    [
        ("0", "noeviction", "9", "ok"),
        ("0", "allkeys-lru", "9", "warning"),
        ("100", "noeviction", "9", "ok"),
        ("100", "noeviction", "95", "warning"),
        ("100", "volatile-lru", "9", "error"),
    ],
)
def test_memory_is_judged_by_its_limit_and_policy(limit: str, policy: str, used: str, level: str) -> None:
    assert memory({"maxmemory": limit, "maxmemory_policy": policy, "used_memory": used}).level == level


def test_a_replica_cannot_be_a_store() -> None:
    assert replication({"role": "slave", "master_host": "a", "master_port": "1"}, None).level == "error"
    down = {"role": "master", "connected_slaves": "1", "slave0": "ip=1,port=1,state=wait_bgsave,offset=0"}
    assert replication(down, {}).level == "warning"
    up = {"role": "master", "connected_slaves": "1", "slave0": "ip=1,port=1,state=online,offset=0"}
    assert "a failover may lose writes" in replication(up, {"min-replicas-to-write": "0"}).text


@pytest.mark.parametrize(
    ("info", "level"),
    [
        ({"redis_version": "6.0.9"}, "error"),
        ({"redis_version": "6.2.14"}, "ok"),
        ({"redis_version": "8.2.1"}, "ok"),
        ({"redis_version": "7.2.4", "valkey_version": "9.1.2"}, "ok"),
        ({"redis_version": "7.2.4", "valkey_version": "10.0.0"}, "warning"),
        ({}, "warning"),
    ],
)
def test_versions_are_judged_by_the_table(info: dict[str, str], level: str) -> None:
    assert covered(info).level == level


def test_the_page_on_durability_has_the_table_of_versions() -> None:
    page = (Path(__file__).parents[2] / "docs" / "durability.md").read_text("utf-8")
    for row in TABLE:
        assert f"| {row.kind} {row.span} | {row.promises} | {row.full} | {row.moves} | {row.tested} |" in page


def test_the_table_names_the_versions_that_packages_bring(server: Server) -> None:
    names = [name for name, binary in server_binaries().items() if binary == server.binary]
    if names[0] not in PACKAGES:
        pytest.skip(f"{names[0]} is no server of a package")
    info = parsed(server.ask("INFO", "server").partition(b"\r\n")[2])
    assert CHECKS in covered(info).text


def test_clocks_that_differ_are_reported() -> None:
    assert clocks(10_000, 10_999).level == "ok"
    assert (clocks(10_000, 13_000).level, clocks(10_000, 13_000).text) == (
        "warning", "this machine's clock is 3s ahead of the store's",
    )  # fmt: skip


def a_stock(**fields: Any) -> Inventory:
    nothing: dict[str, Any] = {"late_since_ms": None, "overdue_since_ms": None, "letters": 0, "runs": 0}
    return Inventory(**{"queues": (), "leased": 2, "late": 0, **nothing, **fields})


def test_leases_and_timers_that_no_worker_handles_are_reported() -> None:
    assert leases(a_stock(late=1, late_since_ms=90_000), 100_000).level == "ok"
    assert leases(a_stock(late=1, late_since_ms=50_000), 100_000).level == "warning"
    assert timers(a_stock(overdue_since_ms=90_000), 100_000).level == "ok"
    assert timers(a_stock(overdue_since_ms=50_000), 100_000).level == "warning"


def a_beat(at_ms: int, queues: tuple[str, ...] | None = None) -> Heartbeat:
    return Heartbeat(
        name="w", host="h", pid=1, state="running", queues=queues, concurrency=1, running=0, started_at_ms=0,
        at_ms=at_ms, declares="d",
    )  # fmt: skip


def test_a_task_that_waits_too_long_is_reported_although_its_queue_is_served() -> None:
    node = Node(run="r", path="", plan="p", node=1, state="ready", opened_at_ms=1_000)
    stock = QueueInventory(queue="q", ready=1, delayed=0, oldest=node)
    heartbeats = [a_beat(0, ("q",))]
    assert queues([stock], heartbeats, 100_000)[0].level == "ok"
    assert queues([stock], heartbeats, 400_000)[0].level == "warning"
    assert queues([stock], [a_beat(0, ("other",))], 100_000)[0].level == "warning"


def test_workers_without_a_heartbeat_are_reported() -> None:
    assert workers([a_beat(100_000)], 100_000).text == "1 worker alive"
    assert workers([a_beat(100_000), a_beat(1)], 100_000).level == "warning"


def test_for_people_each_finding_is_a_line_and_each_next_step_another(cli: Cli, project: Path) -> None:
    ran = cli("doctor", "--store", "memory:")
    first, line, step, *_ = ran.out.splitlines()
    assert first == "store memory:"
    assert line == "warning  durability    everything is in the memory of this process and gone with it"
    assert step == "                       -> for runs that matter use `sqlite:` or a server"
    assert ran.out.endswith("1 warning\n")
    assert json.loads(cli("doctor", "--store", "memory:", "--json").out)["level"] == "warning"
