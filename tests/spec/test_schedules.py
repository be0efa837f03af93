"""Schedules: ticks start runs once each, late ones are caught up as asked, and pauses and changes hold."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from stemflow import OptionError, Stemflow, TaskRegistry
from stemflow.runtime.schedules.schedules import UnknownSchedule
from tests.spec.conftest import OpenApp, pass_time

MINUTE = 1.0
HOUR = 60.0
"""Scaled: idle workers look at their store each second of virtual time."""
FLOW = """\
stemflow: "1"
name: report
inputs:
  start: {type: string}
  end: {type: string}
  kind: {type: string}
steps:
  note: {task: note, args: {text: "${{ inputs.start }} ${{ inputs.end }} ${{ inputs.kind }}"}}
"""


class Notes:
    """A task that notes its argument, and one that also takes a minute."""

    def __init__(self, registry: TaskRegistry) -> None:
        self.seen: list[str] = []

        @registry.task("note")
        async def note(text: str = "") -> str:
            self.seen.append(text)
            return text

        @registry.task("slow")
        async def slow() -> None:
            self.seen.append("begun")
            await asyncio.sleep(HOUR)
            self.seen.append("ended")

        self.note, self.slow = note, slow


@pytest.fixture
def notes(registry: TaskRegistry) -> Notes:
    return Notes(registry)


async def fates(app: Stemflow, name: str) -> list[str]:
    """What became of the ticks, the oldest first."""
    rows = await app.schedules.history(name, 100)
    return [row["fate"] + (f" {row['count']}" if "count" in row else "") for row in reversed(rows)]


async def test_an_interval_starts_a_run_at_each_tick(notes: Notes, app: Stemflow) -> None:
    assert (await app.schedule("poll", notes.note.s("x"), every="5s")).how == "created"
    await asyncio.sleep(21 * MINUTE)
    assert notes.seen == ["x"] * 4
    rows = await app.schedules.history("poll")
    assert [row["fate"] for row in rows] == ["started"] * 4
    assert all(row["late_ms"] <= 50 for row in rows)
    # The id of a run names its tick.
    assert rows[0]["run"] == f"poll@{rows[0]['at']}"
    assert (await app.result(rows[0]["run"])).value == "x"
    info = await app.schedules.info("poll")
    assert info.state == "active"
    assert info.next_ms is not None
    assert info.next_ms % 5_000 == 0
    assert 0 < info.next_ms - app.store.now_ms() <= 5_000


async def test_a_workflow_file_gets_the_interval_of_its_data(
    notes: Notes, app: Stemflow, tmp_path: Path
) -> None:
    file = tmp_path / "report.yaml"
    file.write_text(FLOW)
    inputs = {"start": "${{ tick.start }}", "end": "${{ tick.end }}", "kind": "${{ tick.kind }}"}
    await app.schedule("report", file, every="60s", inputs=inputs)
    await asyncio.sleep(2 * HOUR)
    first, second = notes.seen[:2]
    assert first.split()[1] == second.split()[0]
    assert first.split()[2] == "scheduled"


async def test_inputs_that_do_not_fit_are_a_fate_and_the_schedule_goes_on(
    notes: Notes, app: Stemflow, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "report.yaml"
    file.write_text(FLOW)
    await app.schedule("report", file, every="60s", inputs={"start": "${{ tick.start }}", "end": "x", "kind": 5})
    await asyncio.sleep(3 * HOUR)
    assert set(await fates(app, "report")) == {"failed"}
    assert len(await fates(app, "report")) in (2, 3)
    assert "kind" in (await app.schedules.history("report"))[0]["reason"]
    assert "schedule report" in caplog.text


@pytest.mark.parametrize(
    ("overlap", "seen", "expected"),
    [
        ("skip", ["begun", "ended", "begun"], ["started", "skipped", "started"]),
        ("allow", ["begun", "begun", "ended", "begun"], ["started"] * 3),
        ("queue_last", ["begun", "ended", "begun"], ["started"] * 3),
        ("cancel_running", ["begun", "begun", "begun"], ["started"] * 3),
    ],
)
async def test_a_run_that_has_not_ended_at_the_next_tick(
    overlap: str, seen: list[str], expected: list[str], notes: Notes, app: Stemflow
) -> None:
    await app.schedule("long", notes.slow.s(), every="40s", overlap=overlap)
    now_s = app.store.now_ms() / 1_000
    await asyncio.sleep(40 - now_s % 40 + 81 * MINUTE)
    assert await fates(app, "long") == expected
    assert notes.seen == seen
    if overlap == "skip":
        skipped = (await app.schedules.history("long"))[1]
        assert skipped["run"] == (await app.schedules.history("long"))[2]["run"]


@pytest.mark.parametrize(
    ("keep", "away_s", "expected"),
    [
        ("last", 30 * MINUTE, ["missed", "missed", "started"]),
        ("all", 30 * MINUTE, ["started", "started", "started"]),
        ("none", 30 * MINUTE, ["missed", "missed", "started"]),
        ("last", 3 * HOUR, ["missed 12", *["missed"] * 5, "started"]),
        ("all", 14 * 86_400, ["missed 120954", *["started"] * 6]),
    ],
)
async def test_ticks_that_nobody_made_are_caught_up(
    keep: str, away_s: float, expected: list[str], notes: Notes, open_app: OpenApp
) -> None:
    app = await open_app(worker=False)
    # Given a schedule, and no worker for a while
    anchor = _iso(app.store.now_ms())
    await app.schedule(
        "poll", notes.note.s(), every="10s", anchor=anchor, overlap="allow", catch_up={"keep": keep, "window": "60s"}
    )
    pass_time(away_s + 5 * MINUTE)
    # When a worker comes
    worker = await open_app()
    await asyncio.sleep(2)
    # Then each tick has its fate
    found = await fates(worker, "poll")
    assert found == expected
    assert len(notes.seen) == found.count("started")
    # and the next one is on time
    await asyncio.sleep(5 * MINUTE)
    assert (await worker.schedules.history("poll"))[0]["late_ms"] <= 50


async def test_a_paused_schedule_makes_no_ticks_until_it_resumes(notes: Notes, app: Stemflow) -> None:
    await app.schedule("poll", notes.note.s(), every="5s")
    info = await app.schedules.pause("poll", by="ops", reason="psp incident")
    assert info.state == "paused"
    assert info.head.paused is not None
    assert (info.head.paused.by, info.head.paused.reason) == ("ops", "psp incident")
    await asyncio.sleep(2 * HOUR)
    assert notes.seen == []
    assert (await app.schedules.resume("poll")).state == "active"
    await asyncio.sleep(11 * MINUTE)
    assert len(notes.seen) == 2


@pytest.mark.parametrize(("ticks", "expected"), [("skip", []), ("hold", ["missed", "missed", "missed", "started"])])
async def test_a_pause_ends_by_itself(ticks: Any, expected: list[str], notes: Notes, app: Stemflow) -> None:
    # Given a pause that begins a second before a tick
    await asyncio.sleep(10 - app.store.now_ms() / 1_000 % 10 + 9)
    await app.schedule("poll", notes.note.s(), every="10s")
    await app.schedules.pause("poll", ticks=ticks, for_="35s")
    await asyncio.sleep(36 * MINUTE)
    assert (await app.schedules.info("poll")).state == "active"
    assert await fates(app, "poll") == expected
    await asyncio.sleep(10 * MINUTE)
    assert (await fates(app, "poll"))[-1] == "started"


async def test_a_changed_schedule_replaces_the_one_before(notes: Notes, app: Stemflow) -> None:
    await app.schedule("poll", notes.note.s("old"), every="5s")
    assert (await app.schedule("poll", notes.note.s("old"), every="5s")).how == "unchanged"
    await asyncio.sleep(6 * MINUTE)
    assert (await app.schedule("poll", notes.note.s("new"), every="10s")).how == "changed"
    before = len(notes.seen)
    await asyncio.sleep(40 * MINUTE)
    assert notes.seen[before:] == ["new"] * 4
    with pytest.raises(OptionError, match="workflow note has a schedule of this name"):
        await app.schedule("poll", notes.slow.s(), every="10s")
    assert (await app.schedules.remove("poll")).how == "removed"
    await asyncio.sleep(HOUR)
    assert len(notes.seen) == before + 4
    assert await app.schedules.names() == []
    with pytest.raises(UnknownSchedule, match="poll"):
        await app.schedules.pause("poll")


async def test_one_instant_is_the_last(notes: Notes, app: Stemflow) -> None:
    at_ms = app.store.now_ms() + 60_000
    await app.schedule("once", notes.note.s("x"), at=f"{_iso(at_ms)}")
    await asyncio.sleep(3 * HOUR)
    assert notes.seen == ["x"]
    assert (await app.schedules.info("once")).state == "ended"


async def test_a_run_by_hand_respects_the_overlap(notes: Notes, app: Stemflow) -> None:
    await app.schedule("long", notes.slow.s(), cron="0 0 1 1 *")
    first = await app.schedules.run_now("long")
    assert first["fate"] == "started"
    await asyncio.sleep(1)
    assert (await app.schedules.run_now("long"))["fate"] == "skipped"
    info = await app.schedules.info("long")
    assert info.running == first["run"]


async def test_a_backfill_runs_each_tick_of_the_past_once(notes: Notes, app: Stemflow, tmp_path: Path) -> None:
    file = tmp_path / "report.yaml"
    file.write_text(FLOW)
    inputs = {"start": "${{ tick.start }}", "end": "${{ tick.end }}", "kind": "${{ tick.kind }}"}
    await app.schedule("daily", file, cron="@daily", inputs=inputs)
    now_ms = app.store.now_ms()
    week = (now_ms - 7 * 86_400_000, now_ms)
    handle = await app.schedules.backfill("daily", *week, concurrency=2)
    assert handle is not None
    result = await handle.wait()
    assert [row["fate"] for row in result.value] == ["started"] * 7
    assert len(notes.seen) == 7
    assert notes.seen[0].endswith(" backfill")
    # What has run is not run again, unless that is asked for.
    again = await app.schedules.backfill("daily", week[0] + 86_400_000, now_ms)
    assert again is not None
    assert {row["fate"] for row in (await again.wait()).value} == {"done before"}
    other = await app.schedules.backfill("daily", *week, again="second")
    assert other is not None
    assert {row["fate"] for row in (await other.wait()).value} == {"started"}
    assert len(notes.seen) == 14


async def test_a_tick_that_is_made_twice_starts_one_run(notes: Notes, app: Stemflow) -> None:
    await app.schedule("poll", notes.note.s("x"), every="5s")
    await asyncio.sleep(6 * MINUTE)
    _, head = await app.schedules._get("poll")
    at_ms = app.store.now_ms() // 5_000 * 5_000
    rows = await app.schedules.ticker.make(head, at_ms, app.store.now_ms())
    assert [row["fate"] for row in rows] == ["started"]
    await asyncio.sleep(1)
    assert notes.seen == ["x"]


async def test_the_next_tick_of_a_head_that_was_left_behind_ends_it(
    notes: Notes, app: Stemflow, monkeypatch: pytest.MonkeyPatch
) -> None:
    await app.schedule("poll", notes.note.s("old"), every="5s")
    await asyncio.sleep(1)

    async def die(*args: Any, **kwargs: Any) -> str:
        raise RuntimeError("killed")

    # When the process that applies a newer one dies before it ends the old one
    with monkeypatch.context() as broken:
        broken.setattr(type(app.parts), "cancel", die)
        with pytest.raises(RuntimeError):
            await app.schedule("poll", notes.note.s("new"), every="5s")
    await asyncio.sleep(26 * MINUTE)
    assert "old" not in notes.seen
    assert 3 <= notes.seen.count("new") <= 5


def _iso(at_ms: int) -> str:
    from stemflow.expr.dates import instant_of, iso

    return iso(instant_of(at_ms))



@pytest.mark.parametrize("url", ["memory"], indirect=True)
async def test_a_schedule_keeps_the_workflows_that_its_workflow_calls(
    notes: Notes, app: Stemflow, tmp_path: Path
) -> None:
    (tmp_path / "child.yaml").write_text(
        'stemflow: "1"\nname: child\nsteps: {note: {task: note, args: {text: first}, retry: {max: 1}}}\n', "utf-8"
    )
    file = tmp_path / "parent.yaml"
    file.write_text('stemflow: "1"\nname: parent\nsteps: {sub: {workflow: {ref: ./child.yaml}}}\n', "utf-8")
    await app.schedule("poll", file, every="5s")
    assert (await app.schedule("poll", file, every="5s")).how == "unchanged"
    (tmp_path / "child.yaml").unlink()
    await asyncio.sleep(11 * MINUTE)
    assert notes.seen == ["first"] * 2
