"""`stemflow submit` and `stemflow workers`; `worker` runs as a process in tests/faults."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from stemflow import Stemflow, TaskRegistry
from tests.cli.test_run import follows_schema
from tests.cli.world import Cli


def test_submit_stores_a_run_and_runs_nothing(project: Path, cli: Cli) -> None:
    # When a file is submitted
    ran = cli("submit", "hello.yaml", "--json", "-i", "who=you")
    # Then its id is printed, and the run waits for a worker
    run = follows_schema("submit", ran.out)["run_id"]
    assert ran.code == 0
    (listed,) = follows_schema("runs", cli("runs", "--json").out)
    assert (listed["id"], listed["state"]) == (run, "active")
    # And resume, a worker of its own, ends it
    assert "said: \"you\"" in cli("resume", run).out


def test_submit_refuses_tasks_that_nobody_knows(project: Path, cli: Cli) -> None:
    # Given a folder without tasks, and a store of which no worker ever told
    (project / "tasks.py").unlink()
    ran = cli("submit", "hello.yaml")
    assert (ran.code, ran.out) == (2, "")
    assert "SF401" in ran.err
    # Then only --allow-unknown takes it
    assert cli("submit", "hello.yaml", "--allow-unknown").code == 0


async def _serve(store: str) -> None:
    registry = TaskRegistry()

    @registry.task("say", queue="talk")
    async def say(word: str) -> str:
        return word

    @registry.task("each")
    async def each(n: int) -> int:
        return n

    async with Stemflow(store, registry, name="one") as app:
        assert app.service is not None
        await app.service.presence.publish("running")


def test_what_workers_have_declared_can_be_submitted_without_importing_it(project: Path, cli: Cli) -> None:
    # Given a folder without tasks, and a worker that has been there
    (project / "tasks.py").unlink()
    asyncio.run(_serve("sqlite:"))
    # When the file is submitted
    run = follows_schema("submit", cli("submit", "hello.yaml", "--json").out)["run_id"]
    # Then its first task is in the queue that was declared
    show = follows_schema("show", cli("show", run, "--json").out)
    assert [node["path"] for node in show["nodes"] if node["state"] == "ready"] == ["greet"]


def test_workers_lists_those_that_live(project: Path, cli: Cli) -> None:
    async def ask() -> None:
        async with Stemflow("sqlite:", TaskRegistry(), name="one") as app:
            assert app.service is not None
            await app.service.presence.publish("running")
            nonlocal listed
            listed = await asyncio.to_thread(cli, "workers", "--json")

    listed = None
    asyncio.run(ask())
    assert listed is not None
    (one,) = follows_schema("workers", listed.out)
    assert (one["name"], one["state"], one["queues"], one["tasks"]) == ("one", "running", None, [])
    # And it is gone when it has stopped
    assert follows_schema("workers", cli("workers", "--json").out) == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--queues", "a,,b"), "expected names with commas between them, got 'a,,b'"),
        (("--grace", "soon"), "expected a duration such as 30s, 1m30s or 200ms, got 'soon'"),
        (("--tasks", "nowhere_at_all"), "expected a module nowhere_at_all, found none"),
    ],
)
def test_a_worker_that_cannot_start_says_why(project: Path, cli: Cli, words: tuple[str, ...], said: str) -> None:
    ran = cli("worker", "--tasks", "tasks", *words) if "--tasks" not in words else cli("worker", *words)
    assert ran.code == 3
    assert said in ran.err
