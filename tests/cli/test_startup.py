"""What a command imports: the cheap ones nothing that is slow, and none anything from the working directory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from stemflow.version import __version__

ROOT = Path(__file__).parents[2]
PROGRAM = """
import sys
sys.path.remove("")
sys.path.insert(0, sys.argv.pop(1))
before = set(sys.modules)
from stemflow.cli.main import main
try:
    main(sys.argv[1:])
except SystemExit:
    pass
SLOW = {"asyncio", "importlib.metadata", "jsonschema", "networkx", "redis", "sqlite3", "subprocess", "yaml"}
SLOW |= {"xml.etree.ElementTree"}
SLOW |= {"difflib", "hashlib", "tomllib"} if sys.argv[1] == "validate" else set()
SLOW |= {"json", "pathlib", "shutil"} if sys.argv[-1] == "--help" else set()
print("imported:", *sorted((SLOW | {"stemflow.runtime.engine"}) & (set(sys.modules) - before)))
"""


def run(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", PROGRAM, str(ROOT), *words]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("words", [("--help",), ("run", "--help"), ("--version",), ("explain", "SF101"), ("schema",),
    ("completion", "zsh"), ("rnu",)])
def test_a_command_that_only_prints_imports_nothing_slow(words: tuple[str, ...], tmp_path: Path) -> None:
    assert run(tmp_path, *words).stdout.splitlines()[-1] == "imported:"


@pytest.mark.parametrize("words", [("show", "0"), ("cancel", "0"), ("dlq", "list"), ("workers",), ("runs",)])
def test_a_command_that_compiles_nothing_loads_neither_the_graph_library_nor_the_schema_checker(
    words: tuple[str, ...], tmp_path: Path
) -> None:
    imported = set(run(tmp_path, *words).stdout.splitlines()[-1].split()[1:])
    assert not {"networkx", "jsonschema", "redis", "importlib.metadata"} & imported
    assert words != ("runs",) or "stemflow.runtime.engine" not in imported


def test_the_version_is_printed_before_the_command_line_is_parsed(tmp_path: Path) -> None:
    code = "import sys; from stemflow.cli.main import main; main(['--version']); print('click' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert ran.stdout.split() == ["stemflow", __version__, "False"]


def test_validate_of_a_sound_file_needs_the_yaml_parser_and_nothing_else_that_is_slow(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text('stemflow: "1"\nname: a\nsteps:\n  a: {task: say}\n')
    imported = run(tmp_path, "validate", "a.yaml").stdout.splitlines()[-1].split()[1:]
    assert set(imported) <= {"yaml", "json", "pathlib"}


def test_a_module_in_the_working_directory_is_not_imported(tmp_path: Path) -> None:
    # Given a checked-out folder with canaries that are called like modules that stemflow uses
    for name in ("yaml", "networkx", "msgspec", "stemflow_tasks"):
        (tmp_path / f"{name}.py").write_text("print('the canary ran')\n")
    (tmp_path / "tasks.py").write_text("from stemflow import TaskRegistry\n\nregistry = TaskRegistry()\n")
    (tmp_path / "a.yaml").write_text('stemflow: "1"\nname: a\nsteps:\n  a: {wait: {for: 0s}}\n')
    # When a workflow in it is run, none of them is
    ran = run(tmp_path, "run", "a.yaml")
    assert "succeeded" in ran.stderr
    assert "canary" not in ran.stdout + ran.stderr


@pytest.mark.parametrize("task", ["os.system", "builtins.eval", "stemflow.__init__", "a:b", "__import__", "ѕay"])
def test_a_task_name_is_never_a_module_to_import(task: str, tmp_path: Path) -> None:
    # Given a file that names what is not in the registry
    (tmp_path / "tasks.py").write_text("from stemflow import TaskRegistry\n\nregistry = TaskRegistry()\n")
    (tmp_path / "a.yaml").write_text(
        f'stemflow: "1"\nname: a\nsteps:\n  a: {{task: "{task}", args: {{command: touch x}}}}\n'
    )
    # When it is run, it is refused as an unknown task or a wrong name
    ran = run(tmp_path, "run", "a.yaml")
    assert "error SF" in ran.stderr
    assert not (tmp_path / "x").exists()


def test_the_package_is_run_as_the_command() -> None:
    command = [sys.executable, "-m", "stemflow", "--version"]
    told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert (told.returncode, told.stdout) == (0, f"stemflow {__version__}\n")
