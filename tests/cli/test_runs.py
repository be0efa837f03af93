"""`stemflow runs`: filters, pages and formats."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from tests.cli.test_run import follows_schema
from tests.cli.world import Cli, make_store

LABELLED = """\
stemflow: "1"
name: labelled
labels: {team: pay, tier: "1"}
steps:
  greet: {task: say, args: {word: hi}}
"""


def ids(cli: Cli, *words: str) -> list[str]:
    ran = cli("runs", "-q", *words)
    assert ran.code == 0
    return ran.out.split()


def test_runs_are_chosen_by_what_is_known_of_them(project: Path, cli: Cli) -> None:
    # Given a run that failed, one that succeeded, and two that wait, one of them with labels
    (project / "labelled.yaml").write_text(LABELLED)
    cli("run", "flaky.yaml")
    cli("run", "hello.yaml")
    cli("submit", "hello.yaml")
    cli("submit", "labelled.yaml")
    labelled, waiting, done, failed = ids(cli)
    # Then each filter finds its runs, newest first
    assert ids(cli, "--state", "failed") == [failed]
    assert ids(cli, "--state", "failed", "--state", "succeeded") == [done, failed]
    assert ids(cli, "--state", "active", "--name", "hello") == [waiting]
    assert ids(cli, "--label", "team=pay", "--label", "tier=1") == [labelled]
    assert ids(cli, "--label", "team=sales") == []
    assert ids(cli, "--task", "flaky") == [failed]
    assert ids(cli, "--task", "say", "--not", "name:hello", "--not", "label:team=pay") == [failed]
    assert ids(cli, "--not", "state:active", "--not", "task:flaky") == [done]
    assert ids(cli, "--since", "1h") == [labelled, waiting, done, failed]
    assert ids(cli, "--since", "2999-01-01T00:00") == []
    # And pages follow each other
    first = cli("runs", "--limit", "2", "-q")
    assert first.out.split() == [labelled, waiting]
    assert ids(cli, "--limit", "2", "--after", waiting) == [done, failed]
    assert "add --after" in cli("runs", "--limit", "2").err
    assert cli("runs").err == ""


def test_a_failed_run_is_listed_with_its_step_and_error_in_every_format(project: Path, cli: Cli) -> None:
    cli("run", "flaky.yaml")
    head, line = cli("runs").out.splitlines()
    assert head.split() == ["run", "state", "created", "took", "name"]
    assert line.endswith("flaky  second: Reject: not mended yet")
    (one,) = follows_schema("runs", cli("runs", "--json").out)
    assert (one["failed_at"], one["error"]) == ("second", {"type": "Reject", "message": "not mended yet"})
    (row,) = csv.DictReader(io.StringIO(cli("runs", "--csv").out))
    assert (row["id"], row["state"], row["failed_at"]) == (one["id"], "failed", "second")
    assert (row["error_type"], row["error_message"]) == ("Reject", "not mended yet")


def test_filters_that_make_no_sense_are_refused(project: Path, cli: Cli) -> None:
    make_store(project)
    assert "expected NAME=VALUE, got 'team'" in cli("runs", "--label", "team").err
    assert "--not: expected name:NAME" in cli("runs", "--not", "order").err
    assert "label:NAME=VALUE" in cli("runs", "--not", "id:3").err
