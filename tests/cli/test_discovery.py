"""How tasks are found, and what is never imported."""

from __future__ import annotations

import importlib
import os
import re
import sys
from pathlib import Path

import pytest

from stemflow.runtime.tasks import code_trust
from stemflow.runtime.tasks.discovery import TasksNotFound, find_tasks
from stemflow.runtime.tasks.registry import DuplicateTask

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


def test_the_tasks_next_to_the_file_are_loaded_by_path(tmp_path: Path) -> None:
    # Given tasks.py next to a workflow in another folder
    write(tmp_path / "flows" / "tasks.py", "beside")
    # When its tasks are looked for
    found = find_tasks([], tmp_path / "flows" / "flow.yaml")
    # Then they are found, no module is called `tasks`, and the search path is as it was
    assert list(found) == ["beside"]
    assert "tasks" not in sys.modules
    assert not [entry for entry in sys.path if entry.startswith(str(tmp_path))]


def test_pyproject_has_priority_over_the_tasks_next_to_the_file(tmp_path: Path) -> None:
    # Given both, and the project file in a folder above
    write(tmp_path / "flows" / "tasks.py", "beside")
    write(tmp_path / "shop_jobs.py", "project")
    (tmp_path / "pyproject.toml").write_text('[tool.stemflow]\ntasks = ["shop_jobs"]\n')
    # Then what the project says is taken
    assert list(find_tasks([], tmp_path / "flows" / "flow.yaml")) == ["project"]


def test_a_pyproject_without_tasks_leaves_those_next_to_the_file(tmp_path: Path) -> None:
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


def test_modules_that_share_a_registry_may_all_be_named(tmp_path: Path) -> None:
    write(tmp_path / "jobs_f.py", "f")
    (tmp_path / "jobs_g.py").write_text("from jobs_f import registry\n\n\n@registry.task('g')\ndef g() -> None: ...\n")
    assert sorted(find_tasks(["jobs_f", "jobs_g"], None)) == ["f", "g"]


SETTINGS = """
from shared import keys, Stamp, strategy
from stemflow import Middleware, TaskPayloadEncoderRegistry


class Mine(Middleware):
    async def on_execute(self, context, call_next):
        return await call_next()


registry.encoders = TaskPayloadEncoderRegistry({encoders})
registry.signing = keys
registry.retry_strategy = strategy
registry.use(Mine())
registry.signals.failed.connect(print)
"""
SHARED = """
from stemflow import GzipEncoder, SigningKeys


class Stamp(GzipEncoder):
    def __init__(self, id):
        super().__init__()
        self.id = id


class Strategy:
    def next_delay(self, attempt, error):
        return 1


one, two, keys, strategy = Stamp("one"), Stamp("two"), SigningKeys({"k": b"k" * 16}, "k"), Strategy()
"""


def two_modules(tmp_path: Path, first: str, second: str) -> list[str]:
    """Modules with a registry each, and these settings; their names are new each time."""
    (tmp_path / "shared.py").write_text(SHARED)
    sys.modules.pop("shared", None)
    names = [f"{tmp_path.name}_{n}".replace("-", "_") for n in ("first", "second")]
    for name, settings in zip(names, (first, second), strict=True):
        path = write(tmp_path / f"{name}.py", name)
        path.write_text(path.read_text() + settings)
    return names


def test_encoders_middleware_listeners_keys_and_strategy_of_several_registries_are_joined(tmp_path: Path) -> None:
    # Given two registries with an encoder in common, one each, and the same keys and strategy
    settings = [SETTINGS.format(encoders=f'one, Stamp("{n}"), args="one"') for n in "ab"]
    settings = [one.replace("keys, Stamp", "keys, one, Stamp") for one in settings]

    # When both are named
    found = find_tasks(two_modules(tmp_path, *settings), None)

    # Then nothing of either is lost
    assert [encoder.id for encoder in found.encoders] == ["one", "a", "b"]
    assert (found.encoders.args, found.encoders.results) == ("one", "json")
    assert found.signing is not None and found.retry_strategy is not None
    assert len(found.middleware.on_execute) == 2
    assert found.signals.failed.listeners == [print, print]


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ("registry.signing = shared.keys", "signing: expected registries that agree, got None and SigningKeys"),
        ("registry.retry_strategy = shared.strategy", "retry_strategy: expected registries that agree, got None and"),
        ("registry.defaults = {'priority': 3}", "defaults: expected registries that agree, got {} and"),
        ("registry.encoders.register(shared.Stamp('same'))", "encoder 'same': expected one, got two; let the modules"),
        ("registry.encoders.accept_plain = True", "encoders.accept_plain: expected registries that agree, got"),
        ("registry.encoders.register(shared.one); registry.encoders.args = 'one'", "encoders.args: expected regis"),
    ],
)
def test_registries_that_cannot_be_joined_are_refused(tmp_path: Path, settings: str, told: str) -> None:
    first = "registry.encoders.register(shared.Stamp('same'))" if "same" in settings else ""
    named = two_modules(tmp_path, f"\nimport shared\n{first}\n", f"\nimport shared\n{settings}\n")
    with pytest.raises(TasksNotFound, match=f"^--tasks: {re.escape(told)}"):
        find_tasks(named, None)


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
    # Then the folder is behind everything installed
    assert sys.path[-1] == str(tmp_path)
    assert importlib.import_module("yaml").__file__ != str(tmp_path / "yaml.py")


def test_without_a_workflow_file_tasks_py_is_named_but_not_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(TasksNotFound, match=r"in a pyproject\.toml; pass --tasks MODULE$"):
        find_tasks([], None)
    write(tmp_path / "tasks.py", "t")
    with pytest.raises(TasksNotFound, match=r"pass --tasks MODULE \(`--tasks tasks` for the tasks\.py that is here\)$"):
        find_tasks([], None)


def test_tasks_that_exit_the_process_are_reported_as_an_error(tmp_path: Path) -> None:
    (tmp_path / "tasks.py").write_text("raise SystemExit(3)\n")
    with pytest.raises(TasksNotFound, match=r"tasks\.py:1: expected to import the tasks, got SystemExit: 3"):
        find_tasks([], tmp_path / "flow.yaml")


@pytest.mark.skipif(os.name != "posix", reason="owners and modes of files are those of POSIX")
@pytest.mark.parametrize("named", [["jobs_x"], ["jobs_x.py"], ["package_x"]])
@pytest.mark.parametrize("mode", [0o777, 0o775])
def test_code_in_a_folder_that_others_may_write_is_refused(
    named: list[str], mode: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given modules in a folder that everybody, or a group of several users, may write
    write(tmp_path / "jobs_x.py", "x")
    write(tmp_path / "package_x" / "__init__.py", "x")
    monkeypatch.setattr(code_trust, "_group", lambda gid: "staff")
    folder = tmp_path / "package_x" if named == ["package_x"] else tmp_path
    folder.chmod(mode)
    if os.stat(folder).st_gid == 0:
        os.chown(folder, -1, 4242)
    # Then none of them is imported
    with pytest.raises(TasksNotFound, match="chmod"):
        find_tasks(named, None)
    assert not {"jobs_x", "package_x"} & set(sys.modules)
    folder.chmod(0o755)
    assert list(find_tasks(named, None)) == ["x"]


@pytest.mark.skipif(os.name != "posix", reason="owners and modes of files are those of POSIX")
def test_code_of_another_user_is_refused_unless_that_user_is_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a module, and a process of another user than its owner
    write(tmp_path / "jobs_y.py", "y")
    owner = os.stat(tmp_path / "jobs_y.py").st_uid
    if owner == 0:
        os.chown(tmp_path / "jobs_y.py", 4243, -1)
        owner = 4243
    else:
        monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    with pytest.raises(TasksNotFound, match="expected code of this user or root"):
        find_tasks(["jobs_y"], None)
    # Then it is loaded once that user is named
    monkeypatch.setenv("STEMFLOW_TRUSTED_USERS", f"root,{owner}")
    assert list(find_tasks(["jobs_y"], None)) == ["y"]
    monkeypatch.setenv("STEMFLOW_TRUSTED_USERS", "nobody-of-this-name")
    with pytest.raises(TasksNotFound, match="names or ids of users"):
        find_tasks(["jobs_y.py"], None)


@pytest.mark.skipif(os.name != "posix", reason="owners and modes of files are those of POSIX")
def test_a_pyproject_that_others_may_write_names_no_module(tmp_path: Path) -> None:
    write(tmp_path / "jobs_z.py", "z")
    (tmp_path / "pyproject.toml").write_text('[tool.stemflow]\ntasks = ["jobs_z"]\n')
    (tmp_path / "pyproject.toml").chmod(0o666)
    with pytest.raises(TasksNotFound, match="chmod o-w"):
        find_tasks([], tmp_path / "flow.yaml")
