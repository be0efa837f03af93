"""`stemflow pause`, `resume` and `audit`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.test_run import follows_schema
from tests.cli.world import Cli


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("empty")
def test_a_pause_is_listed_ended_and_accounted_for(cli: Cli) -> None:
    # When
    made = cli("pause", "queue:mail", "task:pay", "--for", "2h", "--by", "ann", "--reason", "an\x1b[2J incident")
    # Then
    assert made.code == 0
    assert made.out.startswith("queue:mail is paused until ")
    assert "by ann" in (listed := cli("pause").out)
    assert "an\\x1b[2J incident" in listed
    assert [one["target"] for one in follows_schema("pauses", cli("pause", "--json").out)] == ["queue:mail", "task:pay"]
    (queue,) = follows_schema("queues", cli("queues", "--json").out)
    assert (queue["queue"], queue["paused"]["by"]) == ("mail", "ann")
    assert "paused by ann" in cli("queues").out
    # When it is resumed
    assert cli("resume", "queue:mail").out == "queue:mail is resumed\n"
    assert cli("resume", "queue:mail").out == "queue:mail is not paused\n"
    ended = follows_schema("paused", cli("resume", "task:pay", "--json").out)
    assert (ended["resumed"][0]["target"], ended["silent_workers"]) == ("task:pay", [])
    # Then
    account = follows_schema("audit", cli("audit", "--json").out)
    assert [(one["action"], one["target"]) for one in account] == [
        ("resume", "task:pay"), ("resume", "queue:mail"), ("pause", "task:pay"), ("pause", "queue:mail"),
    ]  # fmt: skip
    assert "ann  pause queue:mail: an\\x1b[2J incident" in cli("audit").out
    assert len(cli("audit", "--limit", "1").out.splitlines()) == 1


@pytest.mark.usefixtures("empty")
def test_a_target_without_a_kind_is_refused(cli: Cli) -> None:
    refused = cli("pause", "mail")
    assert refused.code == 3
    assert "expected queue:NAME, workflow:NAME or task:NAME, got 'mail'" in refused.err
