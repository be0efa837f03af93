"""`stemflow pause`, `resume`, `audit`, and `stemflow worker drain|concurrency|dump|health`."""

from __future__ import annotations

import asyncio
import importlib
import re
from pathlib import Path

import pytest

from stemflow import Stemflow, TaskRegistry
from stemflow.cli.grammar.program import PROGRAM
from stemflow.cli.main import main
from tests.cli.test_run import follows_schema
from tests.cli.world import Cli, make_store


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


def test_where_there_is_nothing_it_says_so(project: Path, cli: Cli) -> None:
    # Given no store: a look makes none
    for words in (("pause",), ("audit",), ("runs",), ("bulk", "list"), ("workers",), ("keys",), ("cancel", "--all")):
        ran = cli(*words)
        assert ran.code == 3 and "expected the file .stemflow/stemflow.db, found none" in ran.err, words
    assert not Path(".stemflow").exists()
    # And one without any work
    make_store(project)
    for words, text in (
        (("pause",), "nothing is paused"), (("audit",), "no actions of operators in the last 30 days"),
        (("runs",), "no runs that fit"),
    ):  # fmt: skip
        ran = cli(*words)
        assert (ran.code, ran.out, ran.err) == (0, "", f"{text}\n")
    # And a mistyped kind of target is no run
    assert "did you mean queue:mail?" in cli("resume", "quue:mail").err


def test_an_interrupt_during_the_import_of_a_command_says_a_word(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(name: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(importlib, "import_module", interrupted)
    ran = cli("runs", "--store", "memory:")
    assert (ran.code, ran.err) == (130, "interrupted\n")


def test_the_help_lists_each_command_under_one_heading(cli: Cli) -> None:
    listed = re.findall(r"(?m)^  ([a-z]+) {2,}\S", cli("--help").out)
    assert sorted(listed) == sorted(PROGRAM.commands)
    assert "\nIntervene:\n  cancel " in cli("--help").out


@pytest.mark.usefixtures("empty")
def test_a_target_without_a_kind_is_refused(cli: Cli) -> None:
    refused = cli("pause", "mail")
    assert refused.code == 3
    assert "expected queue:NAME, workflow:NAME or task:NAME, got 'mail'" in refused.err


@pytest.mark.usefixtures("empty")
async def test_a_worker_is_well_while_its_heartbeats_come(capsys: pytest.CaptureFixture[str]) -> None:
    async with Stemflow("sqlite:", TaskRegistry(), name="w1") as app:
        await asyncio.sleep(0)
        while not app.service or not app.service.presence.published:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        for words, code in (((), 0), (("--ready",), 0), (("w1",), 0), (("w2",), 1)):
            assert await _in_thread("worker", "health", *words) == code
        assert await _in_thread("worker", "drain", "w1", "--json") == 0
        assert await _in_thread("worker", "health", "w1", "--ready") == 1
        assert await _in_thread("worker", "concurrency", "w1", "7") == 0
        assert app.service.slots.concurrency == 7
        assert await _in_thread("workers") == 0
        assert await _in_thread("worker", "drain", "w1", "--undo") == 0
        assert await _in_thread("worker", "dump", "w1") == 0
        assert await _in_thread("audit") == 0
    assert await _in_thread("worker", "health") == 1
    out = capsys.readouterr().out
    for text in (
        "worker w1: well; running", "worker w1: not well; running", "no worker of name w2 is known to the store",
        "worker w1 leases nothing new; what it runs goes on; it has 7 slots", "on hold", "no handler runs", "thread ",
        "worker worker:w1 drain=true concurrency=7",
        "no worker on host",
    ):  # fmt: skip
        assert text in out
    orders = [line for line in out.splitlines() if line.startswith('{"worker"')]
    assert follows_schema("worker_order", orders[0])["applied"] is True


async def _in_thread(*words: str) -> int:
    """The exit code of a command, next to the worker of this process."""
    return await asyncio.to_thread(main, words)


@pytest.mark.usefixtures("empty")
async def test_a_key_is_released_by_its_name(capsys: pytest.CaptureFixture[str]) -> None:
    registry = TaskRegistry()

    @registry.task("once", unique=True, unique_by="'order'", unique_for="1h")
    async def once() -> None: ...

    async with Stemflow("sqlite:", registry) as app:
        await app.run(once.s())
        assert await _in_thread("keys", "release", "nothing") == 3
        root = (await app.store.runs(1))[0].root
        assert root.claim is not None
        assert await _in_thread("keys", "release", root.claim, "--json") == 0
        assert await _in_thread("keys", "once", "more") == 3
        assert (await app.submit(once.s())).existing is False
    captured = capsys.readouterr()
    assert follows_schema("key_release", captured.out)["released"] is True
    assert "expected a key in use, found none" in captured.err
    assert "expected one KEY, or release KEY" in captured.err
