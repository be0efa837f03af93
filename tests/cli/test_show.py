"""`stemflow show`: attempts, failed members by name, the timeline, following, and the whole run as JSON."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

from stemflow import Stemflow, TaskRegistry
from stemflow.cli.arguments import DEFAULT_STORE
from stemflow.cli.timeline import MOST_ROWS, timeline_lines
from stemflow.model.records import Node, Tally
from tests.cli.test_run import follows_schema
from tests.cli.test_runs import ids
from tests.cli.world import Cli

RETRIED = """\
stemflow: "1"
name: retried
labels: {team: pay}
inputs:
  words: {type: array, default: [x]}
steps:
  first: {task: say, args: {word: one}}
  each:
    needs: [first]
    on_error: continue
    map:
      items: ${{ range(12) }}
      do: {task: escape, retry: {max: 1, backoff: {initial: 1ms}}}
"""


def test_attempts_and_failed_members_are_shown_and_the_object_has_all_of_the_run(project: Path, cli: Cli) -> None:
    # Given a run of which twelve members failed twice each
    (project / "retried.yaml").write_text(RETRIED)
    cli("run", "retried.yaml")
    (run,) = ids(cli)

    # Then the tree names those that failed
    tree = cli("show", run).out
    assert "[0] failed: ValueError: \\x1b[2Jgone" in tree
    assert "and 2 more have failed" in tree

    # And the object has every attempt of them, and what another store needs to run it
    data = follows_schema("show", cli("show", run, "--json", "--timeline").out)
    nodes = {one["path"]: one for one in data["nodes"]}
    attempts = nodes["each[3]"]["attempts"]
    assert [(one["attempt"], one["outcome"]) for one in attempts] == [(1, "failed"), (2, "failed")]
    assert all(one["worker"] and one["started_at_ms"] for one in attempts)
    assert all("raise ValueError" in one["traceback"] for one in attempts)
    assert [one["outcome"] for one in nodes["first"]["attempts"]] == ["succeeded"]
    assert (data["inputs"], data["labels"]) == ({"words": ["x"]}, {"team": "pay"})
    assert data["plans"][0]["digest"]
    assert data["timeline"]["critical_path"][0] == "first"
    assert len(data["timeline"]["spans"]) == 13


def test_each_attempt_is_a_line_and_equal_tracebacks_are_shown_once(project: Path, cli: Cli) -> None:
    (project / "one.yaml").write_text(
        'stemflow: "1"\nname: one\nsteps:\n  bad: {task: escape, retry: {max: 2, backoff: {initial: 1ms}}}\n'
    )
    cli("run", "one.yaml")
    tree = cli("show", *ids(cli)).out
    attempts = [line.strip().split("  ")[0] for line in tree.splitlines() if "UTC" in line]
    assert attempts == ["attempt 1", "attempt 2", "attempt 3"]
    assert tree.count("Traceback") == 1


def test_the_timeline_marks_the_critical_path(project: Path, cli: Cli) -> None:
    cli("run", "hello.yaml")
    (run,) = ids(cli)
    head, *rows, path, slowest = cli("show", run, "--timeline").out.splitlines()
    assert head.split()[:2] == ["step", "state"]
    assert [row.split()[:3] for row in rows] == [["*", "greet", "succeeded"], ["*", "again", "succeeded"]]
    assert path.startswith("critical path (*), ")
    assert path.endswith("greet > again")
    assert slowest.startswith("slowest: ")


def test_a_timeline_of_many_steps_draws_those_on_the_critical_path() -> None:
    def node(path: str, ended: int, **fields: Tally) -> Node:
        return Node(
            run="r", path=path, plan="p", node=0, state="succeeded", opened_at_ms=1, started_at_ms=ended - 1,
            ended_at_ms=ended, **fields,  # type: ignore[arg-type]
        )  # fmt: skip

    members = [node(f"[{i}]", 10 + i) for i in range(MOST_ROWS + 1)]
    lines = list(timeline_lines([node("", 99, tally=Tally(len(members))), *members], 100))
    assert [line.split()[1] for line in lines[1:2]] == [f"[{MOST_ROWS}]"]
    assert lines[2] == f"and {MOST_ROWS} more steps"


def test_following_ends_with_the_run_that_another_process_works_on(project: Path, cli: Cli) -> None:
    # Given a run that nobody works on yet
    run = cli("submit", "hello.yaml").out.strip()

    # When another engine takes it up while it is followed
    def work() -> None:
        registry = TaskRegistry()
        registry.task("say")(lambda word: word)
        registry.task("each")(lambda n: n)

        async def serve() -> None:
            async with Stemflow(DEFAULT_STORE, registry) as app:
                await (await app.handle(run)).wait(10)

        asyncio.run(serve())

    other = threading.Thread(target=work)
    other.start()
    followed = cli("show", run, "--follow")
    other.join()

    # Then its changes are on standard error, and the tree on standard output
    assert followed.code == 0
    assert "greet  succeeded" in followed.err
    assert followed.out.startswith(f"run {run}  succeeded")
