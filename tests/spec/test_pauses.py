"""Pauses: nothing of what is paused starts, on any worker, until it is resumed."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from stemflow import OptionError, SigningKeys, Stemflow, TaskRegistry
from stemflow.runtime.catalog.controls import TOPIC
from stemflow.runtime.client.overview import queues
from stemflow.runtime.client.unserved import unserved
from tests.spec.conftest import OpenApp


@pytest.fixture
def tasks(registry: TaskRegistry) -> TaskRegistry:
    """`work` and `other` in their queues return at once; `nap` takes a minute."""

    async def done() -> str:
        return "done"

    registry.task("work", queue="busy")(done)
    registry.task("other")(done)
    registry.task("limited", queue="busy", rate_limit="100/s")(done)

    @registry.task("nap", queue="busy")
    async def nap() -> str:
        await asyncio.sleep(60)
        return "rested"

    return registry


async def ended(app: Stemflow, tasks: TaskRegistry, name: str, timeout_s: float = 5) -> bool:
    """Whether a new run of this task ends in time."""
    task = tasks.get(name)
    assert task is not None
    handle = await app.submit(task.s())
    return not (await handle.wait(timeout_s)).timed_out


@pytest.mark.parametrize(
    ("target", "stopped", "free"),
    [("queue:busy", ("work", "limited"), "other"), ("task:work", ("work",), "limited"),
     ("workflow:work", ("work",), "limited")],
)  # fmt: skip
async def test_what_is_paused_waits_and_starts_after_resume(
    app: Stemflow, tasks: TaskRegistry, target: str, stopped: tuple[str, ...], free: str
) -> None:
    await app.control.pause(target)
    assert await app.control.silent_workers() == []
    waiting = [await app.submit(tasks.get(name).s()) for name in stopped]  # type: ignore[union-attr]
    assert await ended(app, tasks, free)
    assert all([(await handle.wait(30)).timed_out for handle in waiting])
    assert (await app.control.resume(target)) is not None
    assert [(await handle.wait(60)).value for handle in waiting] == ["done"] * len(stopped)
    assert await app.control.resume(target) is None


async def test_a_worker_that_starts_later_obeys_and_what_runs_goes_on(open_app: OpenApp, tasks: TaskRegistry) -> None:
    # Given
    client, worker = await open_app(worker=False), await open_app()
    napping = await client.submit(tasks.get("nap").s())  # type: ignore[union-attr]
    await asyncio.sleep(1)
    # When
    await client.control.pause("queue:busy")
    assert await client.control.silent_workers() == []
    assert (await napping.wait(90)).value == "rested"
    await worker.hand_back()
    await open_app()
    # Then
    assert not await ended(client, tasks, "work", 30)
    assert await ended(client, tasks, "other")


async def test_a_pause_ends_by_itself(app: Stemflow, tasks: TaskRegistry) -> None:
    pause = await app.control.pause("queue:busy", for_="20s")
    assert await app.control.silent_workers() == []
    handle = await app.submit(tasks.get("work").s())  # type: ignore[union-attr]
    assert (await handle.wait(15)).timed_out
    assert (await handle.wait(10)).value == "done"
    assert pause.until_ms is not None
    assert await app.control.pauses() == []


async def test_a_worker_that_is_cut_off_is_named(open_app: OpenApp, tasks: TaskRegistry) -> None:
    client = await open_app(worker=False)
    await open_app(name="deaf")
    await asyncio.sleep(1)
    for task in asyncio.all_tasks():
        if task.get_name() == "control":
            task.cancel()
    await client.control.pause("queue:busy")
    assert await client.control.silent_workers(3) == ["deaf"]


async def test_a_pause_is_the_first_reason_and_names_who_and_why(app: Stemflow, tasks: TaskRegistry) -> None:
    await app.control.pause("queue:busy", by="ann", reason="psp incident")
    await app.control.silent_workers()
    handle = await app.submit(tasks.get("work").s())  # type: ignore[union-attr]
    (node,) = (await app.why(handle.id)).nodes
    paused = node.reasons[0]
    assert (paused.code, paused.text) == ("paused", "queue busy is paused by ann: psp incident")
    assert paused.advice == "stemflow resume queue:busy"
    said = await unserved(app.store, app.library, handle.id, tasks=True)
    assert said is not None
    assert said.endswith("psp incident; `stemflow resume queue:busy --store URL` resumes it")
    (busy,) = [one for one in await queues(app.store) if one.queue == "busy"]
    assert busy.paused is not None
    assert (busy.ready, busy.paused.by) == (1, "ann")


async def test_the_account_names_what_was_done_the_newest_first(open_app: OpenApp, tasks: TaskRegistry) -> None:
    app = await open_app(worker=False)
    assert await app.control.audit() == []
    for number in range(3):
        await app.control.pause(f"queue:q{number}", by="ann", reason="why not", for_=60)
    await app.control.resume("queue:q1", by="bob")
    found = await app.control.audit()
    assert [(one.action, one.target, one.by, one.reason) for one in found] == [
        ("resume", "queue:q1", "bob", ""), ("pause", "queue:q2", "ann", "why not"),
        ("pause", "queue:q1", "ann", "why not"), ("pause", "queue:q0", "ann", "why not"),
    ]  # fmt: skip
    assert [one.target for one in await app.control.audit(2)] == ["queue:q1", "queue:q2"]


@pytest.mark.parametrize("target", ["busy", "queue:", "schedule:nightly", "worker:w1", "queue:" + "x" * 501, 7])
async def test_other_targets_are_refused(open_app: OpenApp, target: Any) -> None:
    app = await open_app(worker=False)
    with pytest.raises(OptionError, match="queue:NAME, workflow:NAME or task:NAME"):
        await app.control.pause(target)
    assert await app.control.audit() == []


async def test_an_unsigned_pause_is_passed_over(open_app: OpenApp, tasks: TaskRegistry) -> None:
    # Given
    app = await open_app(signing=SigningKeys({"k": b"sixteen bytes or more"}, "k"))
    # When somebody without a key writes one
    body = b'{"kind":"queue","name":"busy","at_ms":0}'
    await app.store.put_hint(TOPIC, "queue:busy", body, 60_000)
    # Then it has no effect, and a signed one has
    assert await ended(app, tasks, "work")
    await app.control.pause("queue:busy")
    assert await app.control.silent_workers() == []
    assert not await ended(app, tasks, "work")
