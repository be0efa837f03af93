"""Why a task makes no progress: each reason with its holder, its place, its instants and the command that helps."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from msgspec import structs

from stemflow import Canvas, Concurrency, RetryPolicy, Stemflow, TaskRegistry, UnknownRun
from stemflow.core.reasons import Reason
from stemflow.runtime.catalog.heartbeats import TOPIC, heartbeats
from stemflow.runtime.client.overview import claim_keys, key_overview, queues, rate_keys
from stemflow.store.process_owner import owner_id
from stemflow.testing.simulation.virtual_loop import VirtualClock
from tests.spec.conftest import OpenApp

HOUR_MS = 3_600_000


@pytest.fixture
def tasks(registry: TaskRegistry) -> TaskRegistry:
    """`nap` sleeps for as many seconds as it is given; the others are the same with one option, and `fails` fails."""

    async def nap(seconds: float = 3_600) -> float:
        await asyncio.sleep(seconds)
        return seconds

    registry.task("nap")(nap)
    registry.task("hourly", rate_limit="1/h")(nap)
    registry.task("alone", concurrency=Concurrency("pay", 1))(nap)
    registry.task("once", unique=True, unique_by="'order'")(nap)
    registry.task("last", unique=True, unique_by="'cart'", unique_mode="keep_last")(nap)
    registry.task("slow", queue="slow")(nap)

    @registry.task("fails", max_retries=3, retry=RetryPolicy.of(backoff="fixed", initial="10m", jitter=0))
    async def fails() -> None:
        raise ValueError("no answer")

    return registry


def call(registry: TaskRegistry, name: str, *args: Any) -> Any:
    task = registry.get(name)
    assert task is not None
    return task.s(*args)


async def reasons(app: Stemflow, asked: str, path: str = "") -> list[Reason]:
    """The reasons of the node at `path` of what was asked for."""
    (found,) = [one for one in (await app.why(asked)).nodes if one.path == path]
    return list(found.reasons)


async def codes(app: Stemflow, asked: str) -> dict[str, list[str]]:
    return {one.path: [reason.code for reason in one.reasons] for one in (await app.why(asked)).nodes}


async def test_a_run_that_has_ended_needs_no_reason(tasks: TaskRegistry, app: Stemflow) -> None:
    handle = await app.submit(call(tasks, "nap", 0))
    await handle.wait()
    found = await app.why(handle.id)
    assert (found.run, found.state, found.nodes) == (handle.id, "succeeded", ())


async def test_a_run_that_is_not_there_is_refused(app: Stemflow) -> None:
    with pytest.raises(UnknownRun):
        await app.why("nowhere")


async def test_a_running_task_names_its_worker_since_when_and_the_end_of_its_lease(
    open_app: OpenApp, tasks: TaskRegistry, clock: VirtualClock
) -> None:
    app = await open_app(name="w1")
    started_ms = clock.now_ms()
    handle = await app.submit(call(tasks, "nap"))
    await asyncio.sleep(2)
    (running,) = await reasons(app, handle.id)
    assert (running.code, running.worker, running.advice) == ("running", "w1", None)
    assert running.since_ms is not None
    assert 0 <= running.since_ms - started_ms < 500
    assert running.until_ms is not None
    assert running.until_ms > clock.now_ms()


async def test_the_lease_of_a_dead_worker_is_named_as_ended(
    open_app: OpenApp, tasks: TaskRegistry, clock: VirtualClock
) -> None:
    app = await open_app(name="w1")
    client = await open_app(worker=False)
    handle = await app.submit(call(tasks, "nap"))
    await asyncio.sleep(2)
    for task in asyncio.all_tasks():
        if task.get_name() in ("renew", "recover", "exchange loop", "presence"):
            task.cancel()
    await asyncio.sleep(60)
    (ended,) = await reasons(client, handle.id)
    assert (ended.code, ended.worker, ended.advice) == ("lease-ended", "w1", "stemflow worker --tasks MODULE")
    assert ended.since_ms is not None
    assert ended.since_ms <= clock.now_ms()


async def test_without_a_worker_that_is_the_reason_and_the_place_is_known(
    open_app: OpenApp, tasks: TaskRegistry
) -> None:
    client = await open_app(worker=False)
    handles = [await client.submit(call(tasks, "nap")) for _ in range(3)]
    unserved, queued = await reasons(client, handles[2].id)
    assert (unserved.code, unserved.advice) == ("no-worker", "stemflow worker --tasks MODULE")
    assert (queued.code, queued.place, queued.advice) == ("queued", 2, "stemflow queues default")


async def test_a_queue_that_no_worker_serves_is_named(open_app: OpenApp, tasks: TaskRegistry) -> None:
    app = await open_app(queues=("default",))
    handle = await app.submit(call(tasks, "slow"))
    unserved, queued = await reasons(app, handle.id)
    assert unserved.code == "queue-unserved"
    assert unserved.text == "no worker serves queue slow; those that run serve default"
    assert unserved.advice == "stemflow worker --queues slow --tasks MODULE"
    assert queued.code == "queued"


async def test_a_task_that_no_worker_has_registered_is_named(open_app: OpenApp, tasks: TaskRegistry) -> None:
    await open_app(TaskRegistry(), name="w1")
    client = await open_app(worker=False)
    handle = await client.submit(call(tasks, "nap"))
    await asyncio.sleep(1)
    found = await reasons(client, handle.id)
    assert [one.code for one in found] == ["task-unregistered", "queued"]
    assert found[0].text == "none of the workers that serve queue default (w1) has task nap"


async def test_workers_without_a_free_slot_are_the_reason(open_app: OpenApp, tasks: TaskRegistry) -> None:
    app = await open_app(concurrency=1)
    await app.submit(call(tasks, "nap"))
    await asyncio.sleep(1)
    handle = await app.submit(call(tasks, "nap"))
    await asyncio.sleep(1)
    busy, queued = await reasons(app, handle.id)
    assert (busy.code, busy.advice) == ("workers-busy", "stemflow workers")
    assert busy.text == "all 1 slots of 1 worker that would run it are taken"
    assert (queued.code, queued.place) == ("queued", 0)


async def test_a_rate_limit_says_when_it_opens(tasks: TaskRegistry, app: Stemflow, clock: VirtualClock) -> None:
    started_ms = clock.now_ms()
    runs = [await app.submit(call(tasks, "hourly", 0)) for _ in range(3)]
    await asyncio.sleep(1)
    (limited,) = await reasons(app, runs[2].id)
    assert (limited.code, limited.place, limited.advice) == ("rate-limit", 1, "stemflow keys --kind rate")
    assert limited.until_ms is not None
    assert 0 <= limited.until_ms - started_ms - HOUR_MS < 1_000
    assert "1 per h for hourly" in limited.text
    # And the key and the queue say the same
    (rate,) = await rate_keys(app.store)
    assert (rate.queue, rate.limit, rate.per_ms, rate.waiting_count) == ("default", 1, HOUR_MS, 2)
    assert rate.until_ms == limited.until_ms
    (queue,) = await queues(app.store)
    assert (queue.ready, queue.limited, queue.running, queue.delayed) == (2, 2, 0, 0)


async def test_a_retry_says_when_it_starts_and_what_failed(
    tasks: TaskRegistry, app: Stemflow, clock: VirtualClock
) -> None:
    handle = await app.submit(call(tasks, "fails"))
    await asyncio.sleep(1)
    (retry,) = await reasons(app, handle.id)
    assert (retry.code, retry.advice) == ("retry", f"stemflow show {handle.id}")
    assert retry.text == "attempt 2 of 4 starts after a delay; the last one failed with ValueError: no answer"
    assert retry.until_ms is not None
    assert 0 < retry.until_ms - clock.now_ms() <= 600_000


async def test_a_delayed_start_says_when(tasks: TaskRegistry, app: Stemflow, clock: VirtualClock) -> None:
    began_ms = clock.now_ms()
    handle = await app.submit(structs.replace(call(tasks, "nap"), countdown_ms=HOUR_MS))
    (delayed,) = await reasons(app, handle.id)
    assert delayed.code == "delayed"
    assert delayed.until_ms is not None
    assert 0 <= delayed.until_ms - began_ms - HOUR_MS < 1_000


async def test_the_holder_of_a_concurrency_key_is_named_with_its_worker(open_app: OpenApp, tasks: TaskRegistry) -> None:
    app = await open_app(name="w1")
    holder = await app.submit(call(tasks, "alone"))
    await asyncio.sleep(2)
    waiting = [await app.submit(call(tasks, "alone")) for _ in range(2)]
    (one,) = await reasons(app, waiting[1].id)
    assert (one.code, one.holder, one.worker, one.place) == ("concurrency-key", holder.id, "w1", 1)
    assert one.advice == f"stemflow why {holder.id}"
    (key,) = await claim_keys(app.store, 10)
    assert (key.kind, key.limit, [held.key for held in key.holders]) == ("concurrency", 1, [(holder.id, "")])
    assert [held.worker for held in key.holders] == ["w1"]
    assert key.waiting == tuple((run.id, "") for run in waiting)


async def test_the_holder_of_a_unique_key_is_named(tasks: TaskRegistry, app: Stemflow) -> None:
    holder = await app.submit(call(tasks, "last"))
    await asyncio.sleep(1)
    waiter = await app.submit(call(tasks, "last"))
    (one,) = await reasons(app, waiter.id)
    assert (one.code, one.holder, one.place, one.advice) == ("unique-key", holder.id, 0, f"stemflow why {holder.id}")
    # And a member that shares the outcome of another run
    shares = await app.submit(Canvas.group(call(tasks, "once"), call(tasks, "once")))
    await asyncio.sleep(1)
    (shared,) = await reasons(app, shares.id, "[1]")
    assert (shared.code, shared.holder) == ("shares-outcome", f"{shares.id}/[0]")
    keys = {one.key: one for one in await claim_keys(app.store, 10)}
    assert {(one.kind, one.waiting_count, one.sharing) for one in keys.values()} == {("unique", 1, 0), ("unique", 0, 1)}
    # A listing goes on after a key, and one key is found alone
    first_key, second_key = sorted(keys)
    assert [one.key for one in await claim_keys(app.store, 1)] == [first_key]
    assert [one.key for one in await claim_keys(app.store, 1, first_key)] == [second_key]
    found = await key_overview(app.store, second_key)
    assert found is not None
    assert found.key == second_key
    assert await key_overview(app.store, "none") is None


async def test_members_name_what_they_wait_for(tasks: TaskRegistry, app: Stemflow) -> None:
    chain = Canvas.chain(call(tasks, "nap"), call(tasks, "nap"), call(tasks, "nap"))
    handle = await app.submit(Canvas.chord([chain, call(tasks, "nap", 0)], call(tasks, "nap")))
    await asyncio.sleep(2)
    found = await codes(app, handle.id)
    assert found == {
        "": ["members"], "[0]": ["members"], "[0][0]": ["running"], "[0][1]": ["steps"], "[0][2]": ["steps"],
        "then": ["steps"],
    }  # fmt: skip
    (body,) = await reasons(app, f"{handle.id}/then", "then")
    assert (body.text, body.holder) == ("waits for the end of [0]", f"{handle.id}/[0]")
    (third,) = await reasons(app, handle.id, "[0][2]")
    assert third.holder == f"{handle.id}/[0][1]"


async def test_items_of_a_map_wait_for_its_window(tasks: TaskRegistry, app: Stemflow) -> None:
    handle = await app.submit(Canvas.map(call(tasks, "nap"), [3_600] * 10, concurrency=2))
    await asyncio.sleep(1)
    (window,) = [one for one in (await app.why(handle.id)).nodes if one.state == "waiting"]
    assert (window.path, window.members, window.reasons[0].code) == ("[2]", 8, "window")
    # And a single item that has not opened has the reason of all
    asked = await app.why(f"{handle.id}/[7]")
    assert [(one.path, one.members) for one in asked.nodes] == [("[2]", 8)]
    assert asked.state == "waiting"


async def test_a_timer_says_when_it_is_due(tasks: TaskRegistry, app: Stemflow, clock: VirtualClock) -> None:
    began_ms = clock.now_ms()
    handle = await app.submit(Canvas.chain(Canvas.wait("1h"), call(tasks, "nap")))
    (timer,) = await reasons(app, f"{handle.id}/[0]", "[0]")
    assert timer.code == "timer"
    assert timer.until_ms is not None
    assert 0 <= timer.until_ms - began_ms - HOUR_MS < 1_000


async def test_a_task_that_does_not_stop_names_its_worker(open_app: OpenApp, tasks: TaskRegistry) -> None:
    release = asyncio.Event()

    @tasks.task("stubborn")
    async def stubborn() -> None:
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue

    app = await open_app(name="w1")
    handle = await app.submit(Canvas.group(stubborn.s()))
    await asyncio.sleep(2)
    client = await open_app(worker=False)
    await client.cancel(handle.id)
    found = {one.path: one for one in (await client.why(handle.id)).nodes}
    (one,) = found["[0]"].reasons
    assert (one.code, one.worker, one.advice) == ("stopping", "w1", f"stemflow cancel {handle.id} --force")
    assert [reason.code for reason in found[""].reasons] == ["stopping"]
    # A handler that is given up keeps its slot, and the next heartbeat says so
    await asyncio.sleep(60)
    (beat,) = [one for one in (await heartbeats(app.store)).values() if one.name == "w1"]
    assert [task.task for task in beat.disowned] == ["stubborn"]
    release.set()


async def test_steps_that_wait_for_an_event_or_a_person_say_so(app: Stemflow, clock: VirtualClock) -> None:
    began_ms = clock.now_ms()
    group = Canvas.group(Canvas.event("paid", timeout="1h"), Canvas.approval(by=["ann", "bob"]))
    handle = await app.submit(group)
    (event,) = await reasons(app, handle.id, "[0]")
    assert (event.code, event.text) == ("event", "waits for an event paid")
    assert event.until_ms is not None
    assert 0 <= event.until_ms - began_ms - HOUR_MS < 1_000
    (approval,) = await reasons(app, handle.id, "[1]")
    assert (approval.code, approval.text) == ("approval", "waits for an answer of ann and bob")


async def test_a_task_of_a_process_of_this_host_that_has_ended_says_so_before_its_lease_ends(
    open_app: OpenApp, tasks: TaskRegistry
) -> None:
    # Given a task that runs, and a heartbeat that says so of a process that has ended since
    app = await open_app(name="w1")
    handle = await app.submit(call(tasks, "nap"))
    await asyncio.sleep(2)
    ((owner, body),) = (await app.store.hints(TOPIC)).items()
    boot, namespace, pid, start = owner_id().split(".")
    await app.store.put_hint(TOPIC, f"{boot}.{namespace}.{pid}.{int(start) - 1}/w", body, 60_000)
    await app.store.put_hint(TOPIC, owner, body.replace(b'"running"', b'"stopped"'), 60_000)

    # Then the task does not run there, and no worker runs
    (reason,) = await reasons(app, handle.id)
    assert (reason.code, reason.worker, reason.advice) == ("worker-gone", "w1", "stemflow worker --tasks MODULE")
    assert reason.text == (
        "the process of worker w1, which ran it, has ended on this host; the task starts again on another worker "
        "once a worker runs"
    )
    assert reason.until_ms is not None

    # And with another worker it starts again at the latest when its lease ends
    await open_app(name="w2")
    await asyncio.sleep(1)
    (reason,) = await reasons(app, handle.id)
    assert "at the latest when its lease ends" in reason.text
    assert reason.advice is None
