"""How tasks are found, and what is never imported."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from stemflow.runtime.discovery import TasksNotFound, find_tasks
from stemflow.runtime.registry import DuplicateTask

MODULE = """
from stemflow import TaskRegistry

{name} = TaskRegistry()


@{name}.task("{task}")
async def work() -> None: ...
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def write(path: Path, task: str, name: str = "registry") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(MODULE.format(name=name, task=task))
    return path


def test_the_tasks_beside_the_file_are_loaded_by_path(tmp_path: Path) -> None:
    # Given tasks.py beside a workflow in another folder
    write(tmp_path / "flows" / "tasks.py", "beside")
    # When its tasks are looked for
    found = find_tasks([], tmp_path / "flows" / "flow.yaml")
    # Then they are found, no module is called `tasks`, and the search path is as it was
    assert list(found) == ["beside"]
    assert "tasks" not in sys.modules
    assert not [entry for entry in sys.path if entry.startswith(str(tmp_path))]


def test_pyproject_goes_before_the_tasks_beside_the_file(tmp_path: Path) -> None:
    # Given both, and the project file in a folder above
    write(tmp_path / "flows" / "tasks.py", "beside")
    write(tmp_path / "shop_jobs.py", "project")
    (tmp_path / "pyproject.toml").write_text('[tool.stemflow]\ntasks = ["shop_jobs"]\n')
    # Then what the project says is taken
    assert list(find_tasks([], tmp_path / "flows" / "flow.yaml")) == ["project"]


def test_a_pyproject_that_says_nothing_of_tasks_leaves_them_beside_the_file(tmp_path: Path) -> None:
    write(tmp_path / "tasks.py", "beside")
    (tmp_path / "pyproject.toml").write_text("[tool.other]\nx = 1\n")
    assert list(find_tasks([], tmp_path / "flow.yaml")) == ["beside"]


def test_named_modules_go_before_all_and_are_joined(tmp_path: Path) -> None:
    write(tmp_path / "tasks.py", "beside")
    write(tmp_path / "jobs_a.py", "a")
    write(tmp_path / "jobs_b.py", "b", name="mine")
    assert sorted(find_tasks(["jobs_a", "jobs_b:mine"], tmp_path / "flow.yaml")) == ["a", "b"]


def test_two_modules_with_one_task_name_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "jobs_c.py", "same")
    write(tmp_path / "jobs_d.py", "same")
    with pytest.raises(DuplicateTask, match="task same"):
        find_tasks(["jobs_c", "jobs_d"], None)


def test_the_registry_of_an_app_is_taken(tmp_path: Path) -> None:
    write(tmp_path / "tasks.py", "inside", name="_tasks")
    with (tmp_path / "tasks.py").open("a") as file:
        file.write("\n\nclass app:\n    registry = _tasks\n")
    assert list(find_tasks([], tmp_path / "flow.yaml")) == ["inside"]


def test_a_file_of_the_working_directory_shadows_nothing_that_is_installed(tmp_path: Path) -> None:
    # Given a folder with a yaml.py that must never run
    (tmp_path / "yaml.py").write_text("raise SystemExit('ran')\n")
    write(tmp_path / "jobs_e.py", "e")
    # When a module of that folder is named
    find_tasks(["jobs_e"], None)
    # Then the folder stands behind everything installed
    assert sys.path[-1] == str(tmp_path)
    assert sys.modules["yaml"].__file__ != str(tmp_path / "yaml.py")


def test_tasks_that_leave_the_process_are_told_as_an_error(tmp_path: Path) -> None:
    (tmp_path / "tasks.py").write_text("raise SystemExit(3)\n")
    with pytest.raises(TasksNotFound, match=r"tasks\.py:1: expected to import the tasks, got SystemExit: 3"):
        find_tasks([], tmp_path / "flow.yaml")
