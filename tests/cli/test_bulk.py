"""`stemflow cancel`, `rerun`, `dlq replay` and `dlq purge` of many, and `stemflow bulk`."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from stemflow.cli import bulk as bulk_command
from stemflow.cli.main import main
from stemflow.runtime.client.bulk import BulkActions
from tests.cli.test_run import follows_schema, submit
from tests.cli.world import Cli, make_store


def states(cli: Cli, *words: str) -> dict[str, str]:
    return {one["id"]: one["state"] for one in follows_schema("runs", cli("runs", "--json", *words).out)}


def test_filters_choose_what_is_cancelled(project: Path, cli: Cli) -> None:
    hello, flaky = submit("hello.yaml"), submit("flaky.yaml")
    # Given a dry run, nothing is changed, and without --yes nobody agrees
    would = cli("cancel", "--name", "flaky", "--dry-run")
    assert would.out.splitlines()[1].split() == [flaky, "active", "flaky"]
    assert would.err == "cancel: 1 run fit; nothing was changed, without --dry-run it is done\n"
    assert follows_schema("bulk_dry_run", cli("cancel", flaky, "--dry-run", "--json").out)["runs"] == [flaky]
    refused = cli("cancel", "--name", "flaky")
    assert (refused.code, refused.err) == (
        3, "error: cancel: 1 run fit; nothing was done: add --yes, or --dry-run to list them\n"
    )
    assert set(states(cli).values()) == {"active"}
    # When it is done, then only what fits is cancelled
    done = cli("cancel", "--name", "flaky", "--yes", "--rate", "100/s", "--by", "ann", "--reason", "a mistake")
    assert (done.code, done.out) == (0, f"{flaky}  done\n")
    assert states(cli) == {hello: "active", flaky: "cancelled"}
    # And the audit and the list name it
    (action,) = follows_schema("audit", cli("audit", "--json").out)
    assert (action["action"], action["by"], action["reason"]) == ("bulk", "ann", "a mistake")
    (listed,) = follows_schema("bulk_list", cli("bulk", "list", "--json").out)
    assert (listed["action"], listed["total"], listed["done"]) == ("cancel", 1, 1)
    assert "cancel  1/1  0 refused" in cli("bulk", "list").out
    assert "bulk bulk:" in cli("audit").out and "action=cancel total=1" in cli("audit").out
    # And again nothing fits
    assert cli("cancel", "--name", "flaky", "--yes").err == "no runs fit; nothing was done\n"
    again = follows_schema("bulk", cli("cancel", "--all", "--yes", "--json").out)
    assert [one["run"] for one in again["results"]] == [hello]


def test_one_run_is_accounted_for_as_well(project: Path, cli: Cli) -> None:
    run = submit("hello.yaml")
    cli("cancel", run, "--by", "bob", "--reason", "no")
    cli("cancel", run)  # it has ended: nothing is done
    cli("run", "flaky.yaml")
    (letter,) = follows_schema("dlq_list", cli("dlq", "list", "--json").out)
    cli("rerun", letter["run"], "--failed", "--by", "bob")
    (left,) = follows_schema("dlq_list", cli("dlq", "list", "--json").out)
    cli("dlq", "purge", left["id"], "--by", "bob", "--note", "known")
    account = follows_schema("audit", cli("audit", "--json").out)
    assert [(one["action"], one["target"], one["reason"]) for one in account] == [
        ("purge", f"run:{left['run']}", "known"), ("rerun", f"run:{letter['run']}", ""), ("cancel", f"run:{run}", "no"),
    ]  # fmt: skip


def test_many_are_rerun_once(project: Path, cli: Cli) -> None:
    for _ in range(2):
        cli("run", "flaky.yaml")
    old = states(cli)
    done = follows_schema("bulk", cli("rerun", "--failed", "--name", "flaky", "--yes", "--json").out)
    assert {one["run"] for one in done["results"]} == set(old)
    assert len(states(cli)) == 4
    # And another bulk action takes nothing up twice
    again = cli("rerun", "--failed", "--name", "flaky", "--yes")
    assert again.out.count("had been done before") == 2
    assert len(states(cli)) == 4
    wrong = cli("rerun", "--failed", "--state", "active")
    assert (wrong.code, wrong.err) == (
        3, "error: rerun: --state: expected failed or cancelled or succeeded, got active\n"
    )


def test_letters_are_chosen_by_their_error(project: Path, cli: Cli) -> None:
    cli("run", "flaky.yaml")
    assert cli("dlq", "purge", "--error", "ValueError").err == "no dead letters fit; nothing was done\n"
    ran = cli("dlq", "replay", "--error", "Reject", "--rate", "50/s", "--note", "it is back")
    assert ran.err.startswith("1 dead letter of 1 run, frozen at ")
    assert follows_schema("dlq_list", cli("dlq", "list", "--json").out) == []
    (action,) = follows_schema("audit", cli("audit", "--json").out)
    assert (action["details"]["action"], action["reason"]) == ("replay", "it is back")
    cli("resume", ran.out.split()[0])
    assert cli("dlq", "purge", "--error", "Reject").out.startswith("purged  ")


def test_what_was_interrupted_goes_on(
    project: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [submit("hello.yaml") for _ in range(3)]
    # When Ctrl-C comes after the first
    once = BulkActions.carry_out

    async def interrupted(self: BulkActions, id: str, **given: Any) -> Any:
        def first(one: Any) -> None:
            given["on_result"](one)
            raise asyncio.CancelledError

        return await once(self, id, per_second=None, on_result=first)

    with monkeypatch.context() as patched, pytest.raises(asyncio.CancelledError):
        patched.setattr(BulkActions, "carry_out", interrupted)
        main(["cancel", "--all", "--yes"])
    assert "stopped; `stemflow bulk resume 0" in capsys.readouterr().err
    # Then the list says how far it is, and the rest is done
    (listed,) = follows_schema("bulk_list", cli("bulk", "list", "--json").out)
    assert (listed["done"], listed["total"]) == (1, 3)
    ran = cli("bulk", "resume", listed["bulk"])
    assert ran.out.count("  done\n") == 2 and "cancel  3/3  0 refused" in ran.err
    assert states(cli) == dict.fromkeys(runs, "cancelled")


def test_a_person_at_a_terminal_is_asked(project: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    submit("hello.yaml")
    monkeypatch.setattr(bulk_command.sys.stdin, "isatty", lambda: True)
    for answer, code in (("n\n", 3), ("y\n", 0)):
        monkeypatch.setattr(bulk_command.sys.stdin, "readline", lambda answer=answer: answer)
        ran = cli("cancel", "--all")
        assert (ran.code, "cancel 1 run? [y/N] " in ran.err) == (code, True)


def test_what_was_meant_must_be_said(project: Path, cli: Cli) -> None:
    make_store(project)
    for words, text in (
        (("cancel",), "expected RUN, filters (as of `stemflow runs`), or --all"),
        (("cancel", "0123", "--name", "x"), "expected RUN or filters, got both"),
        (("rerun", "0123", "--failed", "--yes"), "expected RUN or filters, got both"),
        (("cancel", "--all", "--rate", "fast"), "expected a rate such as 10/s"),
        (("bulk", "resume", "0123"), "found none; `stemflow bulk list` lists them"),
    ):
        ran = cli(*words)
        assert ran.code == 3 and text in ran.err, (words, ran)
    assert cli("bulk", "list").err == "no bulk actions in the last 30 days\n"
