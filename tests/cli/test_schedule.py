"""`stemflow schedule`: previewed, applied, paused and backfilled from a terminal."""

from __future__ import annotations

from pathlib import Path

import pytest

from stemflow.runtime.client.workflow_files import WorkflowFile
from tests.cli.test_run import follows_schema
from tests.cli.world import Cli

FLOW = """\
stemflow: "1"
name: nightly
on:
  schedule:
    nightly: {cron: "30 2 * * *", timezone: Europe/Berlin, dst: {gap: run}}
    yearly: {cron: "@yearly", timezone: UTC}
steps:
  a: {task: say, args: {word: hello}}
"""


@pytest.fixture
def flow(project: Path) -> Path:
    file = project / "nightly.yaml"
    file.write_text(FLOW)
    return file


def test_a_preview_needs_no_store_and_names_clock_changes(flow: Path, cli: Cli) -> None:
    ran = cli("schedule", "preview", "nightly.yaml", "--after", "2027-03-27", "--ticks", "2")
    assert ran.code == 0
    assert ran.out.splitlines()[:3] == [
        'nightly  "30 2 * * *" Europe/Berlin',
        "  Sat 2027-03-27 02:30 CET    2027-03-27T01:30:00Z",
        "  Sun 2027-03-28 03:00 CEST   2027-03-28T01:00:00Z  "
        "02:30 does not exist that day: the first instant after the gap",
    ]
    (nightly, _) = follows_schema(
        "schedule_preview", cli("schedule", "preview", "nightly.yaml", "--after", "2027-03-27", "--json").out
    )
    assert [tick["clock_change"] for tick in nightly["ticks"]][:2] == [None, "gap"]
    assert not (flow.parent / ".stemflow").exists()


def test_a_file_without_schedules_and_one_with_errors_are_refused(flow: Path, cli: Cli) -> None:
    assert cli("schedule", "preview", "hello.yaml").code == 2
    flow.write_text(FLOW.replace("@yearly", "99 * * * *"))
    ran = cli("schedule", "apply", "nightly.yaml")
    assert ran.code == 2
    assert "SF530" in ran.err


def test_a_schedule_of_a_task_that_nobody_knows_is_not_applied(flow: Path, cli: Cli) -> None:
    # Given a task that is not in tasks.py, and one with an argument that it does not have
    for task, code in (("sya", "SF401"), ("say, args: {wrod: a}", "SF303")):
        flow.write_text(FLOW.replace("say, args: {word: hello}", task))
        # When it is applied, then it is refused, and nothing is stored
        ran = cli("schedule", "apply", "nightly.yaml")
        assert (ran.code, code in ran.err) == (2, True), ran.err
        assert cli("schedule", "list", "--json").out == "[]\n"
    # But a task can be accepted that workers will declare later
    assert cli("schedule", "apply", "nightly.yaml", "--allow-unknown").code == 0


def test_schedules_are_applied_listed_and_removed(flow: Path, cli: Cli) -> None:
    assert cli("schedule", "apply", "nightly.yaml", "--dry-run").out == (
        "nightly: would be created\nyearly: would be created\n"
    )
    assert follows_schema("schedule_list", cli("schedule", "list", "--json").out) == []
    assert cli("schedule", "apply", "nightly.yaml").out == "nightly: created\nyearly: created\n"
    assert cli("schedule", "apply", "nightly.yaml").out == "nightly: unchanged\nyearly: unchanged\n"
    listed = cli("schedule", "list").out.splitlines()
    assert listed[0].split() == ["SCHEDULE", "STATE", "NEXT", "TICK", "WORKFLOW", "WHEN"]
    assert listed[1].startswith("nightly") and listed[1].endswith('"30 2 * * *" Europe/Berlin')
    # A schedule that is no longer in the files is removed when that is asked for.
    flow.write_text(FLOW.replace('    yearly: {cron: "@yearly", timezone: UTC}\n', ""))
    done = cli("schedule", "apply", ".", "--prune", "--json").out
    assert follows_schema("schedule_apply", done) == [
        {"schedule": "nightly", "result": "changed"}, {"schedule": "yearly", "result": "removed"},
    ]  # fmt: skip
    # Its own runs are not among those of users.
    assert cli("runs", "-q").out == ""
    assert cli("runs", "-q", "--internal").out.count("schedule/") >= 2
    assert cli("schedule", "remove", "nightly").out == "nightly: removed\n"
    missing = cli("schedule", "show", "nightly")
    assert missing.code == 3
    assert "there is no schedule 'nightly'" in missing.err


def test_a_pause_says_who_why_and_until_when(flow: Path, cli: Cli) -> None:
    cli("schedule", "apply", "nightly.yaml")
    ran = cli("schedule", "pause", "nightly", "--for", "2h", "--reason", "provider is down")
    assert 'until' in ran.out and '"provider is down"; its ticks are skipped' in ran.out
    (shown, _) = follows_schema("schedule_list", cli("schedule", "list", "--json").out)
    assert shown["state"] == "paused"
    assert shown["paused"]["reason"] == "provider is down"
    assert "nightly  active" in cli("schedule", "resume", "nightly").out


def test_a_run_by_hand_and_a_backfill(flow: Path, cli: Cli) -> None:
    cli("schedule", "apply", "nightly.yaml")
    # No worker has declared the task: the run is refused, and the answer says why.
    failed = cli("schedule", "run", "nightly", "--json")
    assert failed.code == 1
    assert "task say" in follows_schema("tick", failed.out)["reason"]
    dry = cli("schedule", "backfill", "nightly", "--from", "2026-11-01", "--to", "2026-11-04", "--dry-run", "--json")
    assert follows_schema("schedule_backfill", dry.out)["run"] is None
    made = cli("schedule", "backfill", "nightly", "--from", "2026-11-01", "--to", "2026-11-04", "--json")
    found = follows_schema("schedule_backfill", made.out)
    assert len(found["ticks"]) == 3
    assert found["run"].startswith("backfill/nightly/2026-11-0")
    shown = follows_schema("schedule", cli("schedule", "show", "nightly", "--json").out)
    assert shown["ticks"] == []


def test_what_events_start_is_applied_and_listed_as_a_schedule(project: Path, cli: Cli) -> None:
    # Given a file whose runs are started by events
    on = "on: {event: {type: order.paid, match: event.data.cents > 0, inputs: {word: '${{ event.id }}'}}}\n"
    body = "inputs: {word: {type: string}}\nsteps:\n  a: {task: say, args: {word: '${{ inputs.word }}'}}\n"
    (project / "paid.yaml").write_text(f'stemflow: "1"\nname: paid\n{on}{body}')
    # When it is applied, then it is listed, and runs cannot be started by hand
    assert cli("schedule", "apply", "paid.yaml").out == "paid.event: created\n"
    assert "on event order.paid when event.data.cents > 0" in cli("schedule", "list").out
    assert "at the next event" in cli("schedule", "show", "paid.event").out
    refused = cli("schedule", "run", "paid.event")
    assert refused.code != 0 and "stemflow event send order.paid" in refused.err
    assert cli("schedule", "preview", "paid.yaml").out == "paid.event  on event order.paid when event.data.cents > 0\n"


@pytest.mark.parametrize(
    ("on", "code"),
    [
        ("{type: 'a b'}", "SF011"),
        ("{type: a, match: event.x > inputs.word}", "SF204"),
        ("{type: a, match: event.dta.x}", "SF207"),
        ("{type: a}", "SF533"),
        ("{type: a, inputs: {wrd: x}}", "SF533"),
        ("{type: a, inputs: {word: x}, overlap: skip}", "SF010"),
    ],
)
def test_what_is_wrong_in_on_event_is_found(on: str, code: str) -> None:
    steps = "steps:\n  a: {task: say, args: {word: '${{ inputs.word }}'}}\n"
    text = f'stemflow: "1"\nname: paid\non: {{event: {on}}}\ninputs: {{word: {{type: string}}}}\n{steps}'
    assert code in [one.code for one in WorkflowFile.of(text, "paid.yaml").checked(None).found]
