"""Events start runs: one for each that matches, once for each id, and none is lost."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from stemflow import OptionError, Stemflow, TaskRegistry
from stemflow.runtime.client.submitter import Submitter
from stemflow.schedule import ScheduleError, spec_of
from stemflow.store.base import StoreError
from tests.spec.conftest import OpenApp

FLOW = """\
stemflow: "1"
name: pay
on:
  event:
    type: order.paid
    match: event.data.cents > 100
    inputs: {order: "${{ event.data.order }}", id: "${{ event.id }}"}
inputs: {order: {type: string}, id: {type: string}}
steps:
  note: {task: note, args: {text: "${{ inputs.order }} ${{ inputs.id }}"}}
"""
WHEN: dict[str, Any] = {"event": "order.paid", "match": "event.data.cents > 100", "inputs": {
    "order": "${{ event.data.order }}", "id": "${{ event.id }}"}}  # fmt: skip


@pytest.fixture
def notes(registry: TaskRegistry) -> list[str]:
    seen: list[str] = []

    @registry.task("note")
    async def note(text: str = "") -> str:
        seen.append(text)
        return text

    return seen


@pytest.fixture
def flow(tmp_path: Path) -> Path:
    path = tmp_path / "pay.yaml"
    path.write_text(FLOW, "utf-8")
    return path


async def send(app: Stemflow, *ids: str, cents: int = 500) -> None:
    for id in ids:
        await app.send_event("order.paid", {"order": f"o-{id}", "cents": cents}, id=id)


async def test_each_event_that_matches_starts_one_run_with_its_inputs(
    app: Stemflow, notes: list[str], flow: Path
) -> None:
    await send(app, "early")
    assert (await app.schedule("pay", flow, **WHEN)).how == "created"
    # When events come, one of them twice, and one that does not match
    await send(app, "a", "b", "a")
    await send(app, "cheap", cents=5)
    await asyncio.sleep(20)
    await send(app, "c")
    await asyncio.sleep(20)
    # Then each of the others has started a run, whose id names it
    assert sorted(notes) == ["o-a a", "o-b b", "o-c c"]
    assert (await app.result("pay@c")).value == {"note": "o-c c"} or (await app.result("pay@c")).status == "succeeded"
    rows = await app.schedules.history("pay")
    assert [(row["event"], row["fate"], row["run"]) for row in rows] == [
        ("c", "started", "pay@c"), ("b", "started", "pay@b"), ("a", "started", "pay@a")
    ]  # fmt: skip
    info = await app.schedules.info("pay")
    assert (info.state, info.next_ms) == ("active", None)


async def test_no_event_is_lost_and_none_starts_two_runs_if_a_tick_is_made_again(
    app: Stemflow, notes: list[str], flow: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await app.schedule("pay", flow, **WHEN)
    submit, left = Submitter.submit, [3]

    async def submit_badly(self: Submitter, asked: Any) -> Any:
        """The store fails after some of the submissions of a tick, and before others."""
        if left[0] and (asked.run_id or "").startswith(("pay@", "tick/pay/")):
            left[0] -= 1
            if left[0] % 2 == 0:
                await submit(self, asked)
            raise StoreError("memory:", "read", "gone")
        return await submit(self, asked)

    await asyncio.sleep(5)
    monkeypatch.setattr(Submitter, "submit", submit_badly)
    await send(app, *"abcde")
    await asyncio.sleep(120)
    assert left == [0]
    assert sorted(notes) == [f"o-{id} {id}" for id in "abcde"]


async def test_events_wait_for_a_worker_and_for_more_than_one_tick(
    open_app: OpenApp, notes: list[str], flow: Path
) -> None:
    # Given a trigger and 130 events, and no worker
    client = await open_app(worker=False)
    await client.schedule("pay", flow, **WHEN)
    await send(client, *(f"{number:03}" for number in range(130)))
    assert notes == []
    # When there is one, more events come than one tick looks at
    await open_app(concurrency=20)
    await asyncio.sleep(300)
    assert sorted(notes) == [f"o-{number:03} {number:03}" for number in range(130)]


@pytest.mark.parametrize(("ticks", "expected"), [("hold", ["a", "b", "c"]), ("skip", ["a", "c"])])
async def test_a_pause_holds_events_or_skips_them(
    app: Stemflow, notes: list[str], flow: Path, ticks: Any, expected: list[str]
) -> None:
    await app.schedule("pay", flow, **WHEN)
    await send(app, "a")
    await asyncio.sleep(10)
    await app.schedules.pause("pay", ticks=ticks)
    await send(app, "b")
    await asyncio.sleep(60)
    assert notes == ["o-a a"]
    await app.schedules.resume("pay")
    await send(app, "c")
    await asyncio.sleep(60)
    assert [note[-1] for note in notes] == expected


async def test_a_change_goes_on_where_the_old_one_was_and_a_removed_one_starts_nothing(
    app: Stemflow, notes: list[str], flow: Path
) -> None:
    await app.schedule("pay", flow, **WHEN)
    await send(app, "a")
    await asyncio.sleep(10)
    await app.schedule("pay", flow, **{**WHEN, "match": "event.data.cents > 1"})
    await send(app, "b", cents=5)
    await asyncio.sleep(10)
    await app.schedules.remove("pay")
    await send(app, "c")
    await asyncio.sleep(60)
    assert notes == ["o-a a", "o-b b"]


@pytest.mark.parametrize("url", ["memory:"], indirect=True)
async def test_inputs_and_conditions_that_fail_are_fates_and_the_trigger_goes_on(
    app: Stemflow, notes: list[str], flow: Path
) -> None:
    await app.schedule("pay", flow, **WHEN)
    await app.send_event("order.paid", {"order": "x"}, id="no-cents")
    await app.send_event("order.paid", {"order": 7, "cents": 500}, id="no-text")
    await send(app, "fine")
    await asyncio.sleep(30)
    assert notes == ["o-fine fine"]
    rows = await app.schedules.history("pay")
    assert [(row["event"], row["fate"]) for row in rows] == [
        ("fine", "started"), ("no-text", "failed"), ("no-cents", "failed")
    ]  # fmt: skip
    assert "match" in rows[2]["reason"] and "inputs.order" in rows[1]["reason"]
    with pytest.raises(OptionError, match=r"event send order\.paid"):
        await app.schedules.run_now("pay")


@pytest.mark.parametrize(
    ("given", "key"),
    [
        ({"event": "a b"}, "event"),
        ({"event": "a", "cron": "@daily"}, "event"),
        ({"event": "a", "overlap": "skip"}, "overlap"),
        ({"event": "a", "match": "evnt.x"}, "match"),
        ({"every": "1h", "match": "event.x"}, "every"),
    ],
)
def test_what_cannot_be_meant_is_refused(given: dict[str, Any], key: str) -> None:
    with pytest.raises(ScheduleError) as refused:
        spec_of(given)
    assert refused.value.key == key
