"""Metrics: what a scrape says is what happened, whichever process it happened in."""

from __future__ import annotations

import asyncio

import pytest
from prometheus_client.parser import text_string_to_metric_families

from stemflow import Reject, RetryPolicy, Stemflow, TaskContext, TaskRegistry
from stemflow.model.metrics import FAMILIES, Counts
from stemflow.runtime.client.stored_counts import FOLD_MS, KEPT_MS, StoredCounts, fold_counts, total_counts
from stemflow.runtime.commit.counting import MOST_NAMES, Counting
from tests.spec.conftest import OpenApp


@pytest.fixture
def tasks(registry: TaskRegistry) -> TaskRegistry:
    """`ok` returns after a second, `flaky` fails once, `bad` fails for good, `slow` takes an hour."""

    @registry.task("ok")
    async def ok() -> None:
        await asyncio.sleep(1)

    @registry.task("flaky", max_retries=1, retry=RetryPolicy.of(backoff="fixed", initial="1s", jitter=0))
    async def flaky(context: TaskContext) -> None:
        if context.attempt == 0:
            raise ConnectionError

    @registry.task("bad")
    async def bad() -> None:
        raise Reject("no")

    @registry.task("slow", queue="later")
    async def slow() -> None:
        await asyncio.sleep(3_600)

    return registry


async def scraped(app: Stemflow) -> dict[str, float]:
    """The samples of a scrape that are not zero: `name{label values}`."""
    found = {}
    for family in text_string_to_metric_families(await app.metrics()):
        for sample in family.samples:
            if sample.value:
                found[f"{sample.name.removeprefix('stemflow_')}{{{','.join(sample.labels.values())}}}"] = sample.value
    return found


async def run_all(app: Stemflow, tasks: TaskRegistry, *names: str) -> None:
    for name in names:
        task = tasks.get(name)
        assert task is not None
        await (await app.submit(task.s())).wait()


async def test_counters_are_exact_over_processes_that_come_and_go(open_app: OpenApp, tasks: TaskRegistry) -> None:
    # Given two workers after each other, and a process that only submits and cancels
    client = await open_app(worker=False)
    first = await open_app(name="w1")
    await run_all(client, tasks, "ok", "ok", "flaky")
    await first.__aexit__(None, None, None)
    second = await open_app(name="w2")
    await run_all(second, tasks, "ok", "bad")
    handle = await client.submit(tasks.get("slow").s())  # type: ignore[union-attr]
    await asyncio.sleep(1)
    await client.cancel(handle.id, force=True)
    # When all have stored what they counted
    await asyncio.sleep(12)
    found = await scraped(client)
    # Then
    expected = {
        "runs_started_total{ok}": 3, "runs_started_total{flaky}": 1, "runs_started_total{bad}": 1,
        "runs_started_total{slow}": 1, "runs_ended_total{ok,succeeded}": 3, "runs_ended_total{flaky,succeeded}": 1,
        "runs_ended_total{bad,failed}": 1, "runs_ended_total{slow,cancelled}": 1,
        "tasks_ended_total{ok,succeeded}": 3, "tasks_ended_total{slow,cancelled}": 1,
        "tasks_ended_total{flaky,succeeded}": 1, "tasks_ended_total{bad,failed}": 1,
        "task_attempts_total{flaky,failed}": 1, "task_attempts_total{flaky,succeeded}": 1,
        "task_attempts_total{ok,succeeded}": 3, "task_retries_total{flaky,ConnectionError}": 1,
        "dead_letters_total{bad,max-retries-exhausted}": 1, "task_duration_seconds_count{ok}": 3,
        "task_duration_seconds_bucket{ok,2.5}": 3, "runs_kept{}": 6, "dead_letters_kept{}": 1, "workers{running}": 1,
        "worker_slots{}": 100,
    }  # fmt: skip
    assert {name: found.get(name) for name in expected} == expected
    assert "task_duration_seconds_bucket{ok,0.5}" not in found
    assert found["task_wait_seconds_count{default}"] == 5
    # And a second scrape counts nothing twice
    assert {name: (await scraped(client)).get(name) for name in expected} == expected


async def test_gauges_say_what_waits(open_app: OpenApp, tasks: TaskRegistry) -> None:
    client = await open_app(worker=False)
    for _ in range(3):
        await client.submit(tasks.get("slow").s())  # type: ignore[union-attr]
    await client.submit(tasks.get("slow").with_options(countdown=60).s())  # type: ignore[union-attr]
    await client.control.pause("queue:later")
    await asyncio.sleep(30)
    found = await scraped(client)
    assert found["queue_ready{later}"] == 3
    assert found["queue_delayed{later}"] == 1
    assert found["queue_oldest_ready_seconds{later}"] == pytest.approx(30, abs=0.1)
    assert found["queue_paused{later}"] == found["pauses{queue}"] == 1
    assert "queue_workers{later}" not in found


async def test_every_family_is_declared_once_with_the_labels_of_its_table(app: Stemflow, tasks: TaskRegistry) -> None:
    await run_all(app, tasks, "flaky", "bad")
    await asyncio.sleep(12)
    text = await app.metrics()
    assert [line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")] == [
        f"stemflow_{family.name}" for family in FAMILIES
    ]
    labels = {f"stemflow_{family.name}".removesuffix("_total"): set(family.labels) for family in FAMILIES}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            assert set(sample.labels) - {"le"} == labels[family.name]


async def test_counts_of_processes_that_have_gone_are_kept_and_never_fall(app: Stemflow) -> None:
    # Given a hundred processes that counted one run each, and died
    store = app.store
    for number in range(100):
        counting = Counting()
        counting.counts.add("runs_started_total", ("w",))
        counting.version = 1
        await StoredCounts(store, counting, f"p{number}").publish()

    async def started() -> int:
        return (await total_counts(store)).counters[("runs_started_total", ("w",))]

    # When they are folded by several at once, again and again, until their own entries have expired
    assert await started() == 100
    for passed_ms in (FOLD_MS + 1, 60_000, KEPT_MS, 2 * KEPT_MS):
        await asyncio.sleep(passed_ms / 1_000) if passed_ms <= FOLD_MS + 1 else None
        await asyncio.gather(fold_counts(store), fold_counts(store))
        assert await started() == 100


def test_the_number_of_series_is_bounded() -> None:
    counting = Counting()
    for number in range(2 * MOST_NAMES):
        counting.observe("task_duration_seconds", f"task-{number}", number)
    assert len(counting.counts.histograms) == MOST_NAMES + 1
    others, _ = counting.counts.histograms["task_duration_seconds", ("other",)]
    assert sum(others) == MOST_NAMES
    total = Counts({}, {})
    total.include(counting.counts)
    total.include(counting.counts, -1)
    assert not any(any(buckets) or sum_ms for buckets, sum_ms in total.histograms.values())
