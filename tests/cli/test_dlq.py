"""`stemflow dlq`: what an operator does about tasks that failed for good."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest

from stemflow import Canvas, Reject, Stemflow, TaskRegistry
from tests.cli.test_run import follows_schema
from tests.cli.world import Cli, make_store


@pytest.fixture
def failed(project: Path, cli: Cli) -> str:
    """The id of a run that has left a dead letter."""
    cli("run", "flaky.yaml")
    (letter,) = follows_schema("dlq_list", cli("dlq", "list", "--json").out)
    return str(letter["run"])


def letters(cli: Cli, *words: str) -> list[str]:
    return [letter["id"] for letter in follows_schema("dlq_list", cli("dlq", "list", "--json", *words).out)]


def test_an_empty_list_says_so(project: Path, cli: Cli) -> None:
    make_store(project)
    ran = cli("dlq", "list")
    assert (ran.code, ran.out, ran.err) == (0, "", "no dead letters\n")
    assert letters(cli) == []


def test_the_list_has_a_line_a_letter_and_names_the_next_command(failed: str, cli: Cli) -> None:
    ran = cli("dlq", "list")
    assert re.fullmatch(
        rf"{failed}/second  \S+ \S+ \(\S+ ago\)  default  flaky  "
        r"max-retries-exhausted after 1 attempt: Reject: not mended yet\n",
        ran.out,
    )
    assert ran.err == f"next: `stemflow dlq show {failed}/second` shows the details of the newest\n"


def test_the_story_says_what_failed_why_when_and_what_to_do(failed: str, project: Path, cli: Cli) -> None:
    ran = cli("dlq", "show", failed[:12])
    assert "what      flaky at second, flaky of" in ran.out
    assert "why       max-retries-exhausted, after 1 attempt" in ran.out
    assert "error     Reject: not mended yet" in ran.out
    assert "to do     correct what the error says" in ran.out
    assert re.search(r"when      \d{4}-\d\d-\d\d \d\d:\d\d:\d\d, \S+ ago", ran.out)
    assert 'tasks.py", line' in ran.out and "stemflow/runtime" not in ran.out
    assert f"`stemflow dlq replay {failed}` runs again what failed" in ran.err
    (data,) = follows_schema("dlq_show", cli("dlq", "show", f"{failed}/second", "--json").out)
    assert "not mended yet" in data["traceback"] and data["file"] == str(project / "flaky.yaml")


def test_a_replay_makes_a_run_that_keeps_what_succeeded(failed: str, project: Path, cli: Cli) -> None:
    # Given a task that was fixed, when a dry run is asked for, then nothing is changed
    (project / "mended").touch()
    would = follows_schema("dlq_replay", cli("dlq", "replay", failed, "--dry-run", "--json").out)
    assert letters(cli) == [f"{failed}/second"]
    # When it is replayed, then the run is the one that was named
    ran = cli("dlq", "replay", failed)
    (run,) = [one["run_id"] for one in would["runs"]]
    assert ran.out == f"{run}  takes up {failed}: flaky\n"
    assert f"`stemflow resume {run}`" in ran.err
    assert letters(cli) == []
    # And asked again, it is the same run
    again = cli("dlq", "replay", failed)
    assert (again.code, again.out) == (0, f"{run}  has taken up {failed}\n")
    assert follows_schema("dlq_replay", cli("dlq", "replay", failed, "--json").out)["runs"][0]["run_id"] == run
    # And it ends well
    assert "succeeded" in cli("resume", run).err


def test_what_was_meant_must_be_said(failed: str, cli: Cli) -> None:
    for action in ("replay", "purge"):
        ran = cli("dlq", action)
        assert ran.code == 3
        assert f"dlq {action}: expected letters by id, a filter, or `--all`" in ran.err
        assert "no dead letters fit" in cli("dlq", action, "--queue", "other").err
        ran = cli("dlq", action, "feed")
        assert (ran.code, "dead letter feed: expected it in the store, found none" in ran.err) == (3, True)
        ran = cli("dlq", action, f"{failed}/first")
        assert (ran.code, "found none" in ran.err) == (3, True)
    assert letters(cli) == [f"{failed}/second"]


def test_filters_choose(failed: str, cli: Cli) -> None:
    one = [f"{failed}/second"]
    for words, expected in (
        (("--queue", "default"), one),
        (("--queue", "other"), []),
        (("--task", "flaky"), one),
        (("--task", "say"), []),
        (("--reason", "poison"), []),
        (("--since", "1h"), one),
        (("--since", "2001-01-31T03:00"), one),
        (("--since", "2101-01-31T03:00Z"), []),
        (("--run", failed[:10]), one),
        (("--run", "feed"), []),
        (("--limit", "1"), one),
    ):
        assert letters(cli, *words) == expected, words
    assert "expected an instant" in cli("dlq", "list", "--since", "2001-13-99").err
    assert "expected a duration" in cli("dlq", "list", "--since", "soon").err


def test_a_purge_throws_away_and_keeps_the_run(failed: str, cli: Cli) -> None:
    dry = follows_schema("dlq_purge", cli("dlq", "purge", "--all", "--dry-run", "--json").out)
    assert dry == {"dry_run": True, "purged": [f"{failed}/second"]}
    assert cli("dlq", "purge", "--all", "--dry-run").out == f"would be purged  {failed}/second  flaky\n"
    assert cli("dlq", "purge", "--task", "flaky").out == f"purged  {failed}/second  flaky\n"
    assert letters(cli) == []
    assert cli("show", failed).code == 0


def test_what_cannot_be_replayed_is_refused_and_stays(failed: str, project: Path, cli: Cli) -> None:
    # Given a task that cannot be found any more
    (project / "tasks.py").unlink()
    ran = cli("dlq", "replay", failed, "--json")
    (one,) = follows_schema("dlq_replay", ran.out)["runs"]
    assert (ran.code, one["run_id"]) == (3, None)
    assert "or that a worker has declared, got flaky" in one["refused"] and one["refused"] in ran.err
    assert letters(cli) == [f"{failed}/second"]
    # Then it is replayed only where that is meant
    assert cli("dlq", "replay", failed, "--allow-unknown").code == 0
    assert letters(cli) == []


async def _fail_often(store: str) -> None:
    registry = TaskRegistry()

    @registry.task("bad")
    async def bad(number: int) -> None:
        raise Reject("\x1b[2Jno")

    async with Stemflow(store, registry) as app:
        members = [bad.s(number) for number in range(3)]
        await (await app.submit(Canvas.group(*members, on_member_error="collect"))).wait(timeout=30)


def test_the_rest_is_counted_and_no_error_steers_the_terminal(project: Path, cli: Cli) -> None:
    asyncio.run(_fail_often("sqlite:"))
    ran = cli("dlq", "list", "--limit", "2")
    assert len(ran.out.splitlines()) == 2
    assert "and 1 more" in ran.err
    assert "\x1b" not in ran.out + cli("dlq", "show", letters(cli)[0]).out
