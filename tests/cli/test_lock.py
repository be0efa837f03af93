"""The lock file of tasks: it says of a workflow what the registry says, and shows when it is out of date."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from stemflow.cli.explain import codes
from stemflow.compile.arguments import TypedTasks
from stemflow.runtime.catalog.lock import LockedTasks, decode, differences, encode, locked_by
from stemflow.runtime.client.workflow_files import WorkflowFile
from tests.cli.test_explain import NO_EXAMPLE, REGISTERED, examples
from tests.cli.world import TASKS, Cli

LOCK = "stemflow.tasks.lock.json"
LOCKED = LockedTasks(decode(encode(locked_by(REGISTERED)), LOCK))


def test_a_lock_knows_what_a_registry_knows() -> None:
    assert isinstance(LOCKED, TypedTasks)
    assert set(LOCKED) == set(REGISTERED)
    assert len(LOCKED) == len(REGISTERED)


OF_REGISTERED_WORKFLOWS = {"SF312"}
"""A lock has the tasks of a registry, not its workflows."""
COMPARED = [code for code in codes() if code[:3] in ("SF3", "SF4") and code not in OF_REGISTERED_WORKFLOWS]


@pytest.mark.parametrize("code", [code for code in COMPARED if code not in NO_EXAMPLE])
def test_findings_are_the_same_with_the_registry_and_with_its_lock(code: str) -> None:
    for text in examples(code):
        file = WorkflowFile.of(text, "page.yaml")
        by_registry, by_lock = (
            [(one.code, one.line, one.column) for one in file.checked(known).found] for known in (REGISTERED, LOCKED)
        )
        assert by_registry == by_lock


@pytest.fixture
def locked(project: Path, cli: Cli) -> Path:
    assert cli("tasks", "lock", "--tasks", "tasks").code == 0
    return project


def test_the_file_is_the_same_each_time_and_up_to_date(locked: Path, cli: Cli) -> None:
    before = (locked / LOCK).read_text()
    assert cli("tasks", "lock", "--tasks", "tasks", "--check").code == 0
    assert cli("tasks", "lock", "--tasks", "tasks").code == 0
    assert (locked / LOCK).read_text() == before
    assert json.loads(before)["lock"] == 1


def test_validate_uses_the_nearest_lock_and_imports_nothing(locked: Path, cli: Cli) -> None:
    # Given a lock above the folder of the file, and tasks that cannot be imported
    (locked / "tasks.py").write_text("raise RuntimeError('imported')\n")
    (locked / "deep").mkdir()
    (locked / "deep" / "wrong.yaml").write_text(
        'stemflow: "1"\nname: wrong\nsteps:\n  a: {task: say, args: {word: 3}}\n  b: {task: eech}\n'
    )
    ran = cli("validate", "deep/wrong.yaml")
    assert ran.code == 2
    assert "4:31: error SF304: args.word: `say` expects a text" in ran.out
    assert "did you mean `each`?" in ran.out


def test_a_change_of_the_tasks_is_listed(locked: Path, cli: Cli) -> None:
    # Given one task renamed, one with another parameter, one with other options
    text = TASKS.replace('"say"', '"tell"').replace("each(n: int)", "each(n: float)")
    (locked / "later.py").write_text(text.replace('task("flaky")', 'task("flaky", max_retries=3)'))
    ran = cli("tasks", "lock", "--tasks", "later", "--check")
    assert ran.code == 1
    assert "each: arguments, function changed" in ran.out
    assert "flaky: options, function changed" in ran.out
    assert "say: is in the lock file and not registered" in ran.out
    assert "tell: is registered and not in the lock file" in ran.out
    assert f"{LOCK} is out of date" in ran.err


def test_nothing_differs_from_itself() -> None:
    assert differences(LOCKED.tasks, LOCKED.tasks) == []


@pytest.mark.parametrize("text", ["", "{}", '{"lock": 2, "tasks": {}}', '{"lock": 1, "tasks": {"a": 1}}'])
def test_a_lock_that_cannot_be_read_is_wrong_usage(locked: Path, cli: Cli, text: str) -> None:
    (locked / LOCK).write_text(text)
    ran = cli("validate", "hello.yaml")
    assert ran.code == 3
    assert "expected a lock file of tasks" in ran.err


def test_check_without_a_file_fails(project: Path, cli: Cli) -> None:
    ran = cli("tasks", "lock", "--tasks", "tasks", "--check")
    assert (ran.code, "write it with `stemflow tasks lock`" in ran.err) == (1, True)
