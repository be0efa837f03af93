"""What the store in a file asks of SQLite, counted: it grows with the work, not with what is stored."""

import sqlite3
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from stemflow import Canvas, Stemflow, TaskRegistry
from stemflow.model.effects import Decision
from stemflow.model.records import SUCCEEDED, Node, turn_of
from stemflow.store.open import open_store
from stemflow.store.sqlite.store import SqliteStore
from stemflow.testing.contract.world import RUN, ManualClock, User, begun, change, create, leaf, paths, succeed


class File:
    """A store in a file with one user, and what is asked of it."""

    def __init__(self, store: SqliteStore, clock: ManualClock) -> None:
        self.store, self.clock, self.user = store, clock, User(store, "one")

    async def statements(self, work: Callable[[], Any]) -> list[str]:
        seen: list[str] = []
        self.store._db.set_trace_callback(seen.append)
        await work()
        self.store._db.set_trace_callback(None)
        return [one for one in seen if one not in ("COMMIT", "BEGIN", "BEGIN IMMEDIATE")]

    async def steps(self, work: Callable[[], Any]) -> int:
        """Instructions of SQLite's virtual machine."""
        count = 0

        def step() -> None:
            nonlocal count
            count += 1

        self.store._db.set_progress_handler(step, 1)
        await work()
        self.store._db.set_progress_handler(None, 1)
        return count


@pytest.fixture
async def file(tmp_path: Path) -> AsyncIterator[File]:
    clock = ManualClock()
    store = open_store(f"sqlite:{tmp_path / 'runs.db'}", clock)
    assert isinstance(store, SqliteStore)
    await store.open()
    yield File(store, clock)
    await store.close()


async def test_a_hop_reads_nothing_but_whether_others_have_committed(file: File) -> None:
    await file.user.begin(leaf("a"))
    (first,) = await file.user.lease(10)
    scope = await file.user.node("")
    hop = Decision(puts=(succeed(first), create(leaf("b")), change(scope)))
    found: list[Any] = []

    async def exchange() -> None:
        found.append(await file.user.exchange(hop, want=file.user.want(10)))

    # When the next step becomes ready in the exchange that wants it
    statements = await file.statements(exchange)
    # Then it is stored as leased, under a token that counts
    assert [one.split()[0] for one in statements] == ["PRAGMA", "UPDATE", "UPDATE", "INSERT"]
    (lease,) = found[0].leases
    assert (lease.node.path, lease.node.delivery, lease.node.state) == ("b", 1, "running")
    assert await file.user.commit(succeed(lease))
    assert (await file.user.node("b")).state == SUCCEEDED


async def test_what_is_leased_at_once_comes_in_the_order_of_priorities(file: File) -> None:
    made = begun(RUN, leaf("low"), leaf("high", priority=9), leaf("mine", queue="other"))
    answer = await file.user.exchange(made, want=file.user.want(10, queues=("default",)))
    assert paths(answer.leases) == ["high", "low"]
    assert paths(await file.user.lease(10)) == ["mine"]


async def test_a_stale_decision_leases_nothing_and_undoes_nothing_else(file: File) -> None:
    await file.user.begin(leaf("a"))
    (first,) = await file.user.lease(1)
    await file.user.commit(succeed(first))
    late = Decision(puts=(succeed(first), create(leaf("b"))))
    answer = await file.user.exchange(late, want=file.user.want(10))
    assert (answer.committed, answer.leases) == ((False,), ())
    both = await file.user.exchange(late, Decision(puts=(create(leaf("c")),)), want=file.user.want(10))
    assert (both.committed, paths(both.leases)) == ((False, True), ["c"])


async def test_a_lease_costs_what_it_leases_however_many_wait(file: File) -> None:
    steps = []
    for count in (500, 4_000):
        # Given that many leaves of one run, of two priorities
        await file.user.begin(
            *[leaf(f"{count}-{n}", turn=turn_of(n), priority=n % 2) for n in range(count)], run=str(count)
        )
        # Then ten of them are leased in as many steps, some of them by age
        steps.append(await file.steps(lambda: file.user.ask(10, oldest=2)))
    assert steps[1] <= 1.3 * steps[0]


async def test_asking_when_nothing_waits_is_one_statement(file: File) -> None:
    await file.user.ask()
    assert await file.statements(file.user.ask) == ["PRAGMA data_version"]


async def test_delayed_leaves_of_many_queues_are_asked_for_at_once(file: File) -> None:
    counts = []
    for few in (1, 500):
        leaves = [leaf(f"{few}-{n}", queue=f"q{few}-{n}", at_ms=file.clock.now_ms() + 60_000) for n in range(few)]
        await file.user.begin(*leaves, run=f"run {few}")
        await file.user.ask()
        counts.append(len(await file.statements(file.user.ask)))
    assert counts[0] == counts[1]


async def test_a_delayed_leaf_of_a_queue_that_nobody_serves_delays_nobody(file: File) -> None:
    at_ms = file.clock.now_ms() + 1_000
    await file.user.begin(leaf("a", queue="unserved", at_ms=at_ms), leaf("b", queue="served", at_ms=at_ms))
    file.clock.advance(1_000)
    assert paths(await file.user.lease(10, queues=("served",))) == ["b"]
    await file.user.ask(10, queues=("served",))
    assert not [one for one in await file.statements(lambda: file.user.ask(queues=("served",))) if "UPDATE" in one]


@pytest.mark.parametrize("name", ["018bcfe568037424a0b8b998f7{:06x}", "order {}"])
async def test_a_run_is_found_by_the_beginning_of_its_id_without_a_scan(file: File, name: str) -> None:
    steps = []
    for count in (20, 400):
        for n in range(count):
            await file.user.begin(run=name.format(count * 1_000 + n))
        one = name.format(20_000)
        steps.append(await file.steps(lambda one=one: file.store.runs(2, one[:-1])))
    (found,) = [info.header.run for info in await file.store.runs(5, one) if info.header.run == one]
    assert found == one
    assert steps[1] <= 1.5 * steps[0]


async def test_runs_are_listed_with_every_kind_of_id_by_any_beginning_of_it(file: File) -> None:
    names = ["018bcfe568037424a0b8b998f728b4fa", "018bcfe568037424a0b8b998f728b4fb", "01 text", "018b", "münchen", "a%"]
    for name in names:
        await file.user.begin(run=name)
    for name in names:
        for end in range(len(name) + 1):
            expected = [one for one in reversed(names) if one.startswith(name[:end])]
            assert [info.header.run for info in await file.store.runs(10, name[:end])] == expected


async def test_a_finished_task_takes_few_bytes(tmp_path: Path) -> None:
    registry, count = TaskRegistry(), 500

    @registry.task("noop")
    async def noop() -> None:
        return None

    async def size(name: str, work: Callable[[Stemflow], Any]) -> float:
        path = tmp_path / name
        async with Stemflow(f"sqlite:{path}", registry, concurrency=100) as app:
            empty = _pages(path)
            await work(app)
        return (_pages(path) - empty) * 4_096 / count

    async def alone(app: Stemflow) -> None:
        for handle in await app.submit_many(noop.s() for _ in range(count)):
            await handle.wait()

    async def together(app: Stemflow) -> None:
        await app.run(Canvas.group(noop.s() for _ in range(count)))

    assert await size("alone.db", alone) <= 400
    assert await size("together.db", together) <= 300


def _pages(path: Path) -> int:
    db = sqlite3.connect(path)
    (pages,), (free,) = (db.execute(f"PRAGMA {name}").fetchone() for name in ("page_count", "freelist_count"))
    db.close()
    return int(pages - free)


async def test_records_come_back_as_they_were_written(file: File) -> None:
    full = leaf(
        "a", index=3, base=7, attempt=2, losses=1, queue="slow", priority=5, lease_ms=1_234, due_at_ms=9, kill=True,
        result=b"[1]", opened_at_ms=10, started_at_ms=20, ended_at_ms=15, state=SUCCEEDED, rev=1,
    )  # fmt: skip
    await file.user.begin(full)
    found = await file.user.node("a")
    assert isinstance(found, Node)
    assert found == full
