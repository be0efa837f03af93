"""The wording of errors: what a command that cannot do its work says, word by word, in golden files.

`STEMFLOW_GOLDEN=write pytest tests/cli/test_errors.py` writes the files again.
"""

from __future__ import annotations

import os
import re
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from stemflow.store.open import DEFAULT_PATH
from tests.cli.world import Cli, make_store, plain

GOLDEN = Path(__file__).parent / "golden"
HEAD = 'stemflow: "1"\nname: demo\n'


class Case(NamedTuple):
    """`command` as it is typed; `text` becomes demo.yaml; `prepare` makes the rest of the world."""

    command: str
    text: str = ""
    prepare: Callable[[Path], object] = lambda folder: None


def tasks_that_raise(folder: Path) -> None:
    (folder / "tasks.py").write_text("limits = {}\nprint(limits['orders'])\n")


def tasks_without_registry(folder: Path) -> None:
    (folder / "tasks.py").write_text("registry = None\n")


def no_tasks(folder: Path) -> None:
    (folder / "tasks.py").unlink()


def open_to_all(folder: Path) -> None:
    (folder / "tasks.py").chmod(0o666)


def foreign_database(folder: Path) -> None:
    with sqlite3.connect(folder / "other.db") as db:
        db.execute("CREATE TABLE customers (id INTEGER)")
    db.close()


def in_latin_1(folder: Path) -> None:
    (folder / "latin.yaml").write_bytes(b"name: caf\xe9")


def pyproject(text: str) -> Callable[[Path], object]:
    return lambda folder: (folder / "pyproject.toml").write_text(text)


STEPS = HEAD + "steps:\n"
CASES = {
    "missing-file": Case("run helo.yaml"),
    "folder": Case("run ."),
    "not-utf8": Case("validate latin.yaml", prepare=in_latin_1),
    "bad-yaml": Case("run demo.yaml", HEAD + "steps:\n  a: {task: say, args: {word: [one}}\n"),
    "schema": Case("run demo.yaml", STEPS + "  a: {task: say, arg: {word: one}, priority: high}\n"),
    "unknown-task": Case("run demo.yaml", STEPS + "  a: {task: sya, args: {word: one}}\n"),
    "cycle": Case("run demo.yaml", STEPS + "  a: {needs: [c], task: say, args: {word: a}}\n"
                  "  b: {needs: [a], task: say, args: {word: b}}\n"
                  "  c: {task: say, args: {word: '${{ steps.b.output }}'}}\n"),
    "undefined-reference": Case("run demo.yaml", STEPS + "  first: {task: say, args: {word: one}}\n"
                                "  second: {task: say, args: {word: 'and ${{ steps.fist.output }}'}}\n"),
    "bad-expression": Case("run demo.yaml", STEPS + "  a: {when: 'true && false', task: say, args: {word: one}}\n"),
    "all-at-once": Case("validate demo.yaml hello.yaml", STEPS + "  a: {when: 'x ==', task: say, args: {word: one}}\n"
                        "  b: {needs: [a], wait: {for: soon}}\n  b: {task: say}\n"),
    "bad-input": Case("run hello.yaml -i times=0 -i whom=ann"),
    "input-without-value": Case("run hello.yaml -i who"),
    "inputs-not-a-mapping": Case("run hello.yaml --inputs list.json",
                                 prepare=lambda folder: (folder / "list.json").write_text("[1]")),
    "inputs-missing": Case("run hello.yaml --inputs nothing.yaml"),
    "store-unknown": Case("run hello.yaml --store postgres://here"),
    "store-unwritable": Case("run hello.yaml --store sqlite:tasks.py/runs.db"),
    "store-foreign": Case("run hello.yaml --store sqlite:other.db", prepare=foreign_database),
    "store-not-a-database": Case("runs --store sqlite:hello.yaml"),
    "tasks-raise": Case("run hello.yaml", prepare=tasks_that_raise),
    "tasks-do-not-parse": Case("run hello.yaml", prepare=lambda folder: (folder / "tasks.py").write_text("def (:\n")),
    "tasks-without-registry": Case("run hello.yaml", prepare=tasks_without_registry),
    "tasks-missing": Case("run hello.yaml", prepare=no_tasks),
    "tasks-open-to-all": Case("run hello.yaml", prepare=open_to_all),
    "tasks-module-missing": Case("run hello.yaml --tasks nowhere.to.be.found"),
    "tasks-module-malformed": Case("run hello.yaml --tasks ../tasks"),
    "pyproject-malformed": Case("run hello.yaml", prepare=pyproject("[tool.stemflow\n")),
    "pyproject-wrong-type": Case("run hello.yaml", prepare=pyproject("[tool.stemflow]\ntasks = 3\n")),
    "result-not-json": Case("run demo.yaml", STEPS + "  a: {task: a_set}\n"),
    "unspeakable-error": Case("run demo.yaml", STEPS + "  a: {task: unspeakable}\n"),
    "escapes": Case("run demo.yaml", STEPS + "  a: {task: escape}\n"),
    "wrong-arguments": Case("run demo.yaml", STEPS + "  a: {task: each, args: {m: 1}}\n"
                            "  b: {map: {items: [1], do: {task: each, args: {n: [one]}, compensate: {task: say}}}}\n"
                            "  c: {chain: [{task: each}, {task: each, args: {n: '${{ prev }}'}}]}\n"),
    "unknown-run": Case("show 0123", prepare=make_store),
    "store-missing": Case("runs --store sqlite:typo.db"),
    "resume-near-a-pause": Case("resume quue:mail", prepare=make_store),
    "unknown-code": Case("explain SF999"),
    "rerun-nothing-said": Case("rerun 0123"),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_the_error_reads_as_in_its_golden_file(name: str, project: Path, cli: Cli) -> None:
    # Given a world in which the command cannot do its work
    case = CASES[name]
    if case.text:
        (project / "demo.yaml").write_text(case.text)
    case.prepare(project)
    # When it is given
    compare_with_golden(name, case.command, project, cli)


@pytest.mark.faults
def test_a_locked_database_is_reported_as_in_its_golden_file(project: Path, cli: Cli) -> None:
    # Given a store that another process keeps locked
    cli("runs", "--store", "sqlite:locked.db")
    other = sqlite3.connect(project / "locked.db")
    other.execute("BEGIN EXCLUSIVE")
    # When a run is asked for, it learns which file is locked
    compare_with_golden("store-locked", "run hello.yaml --store sqlite:locked.db", project, cli)
    other.close()


def compare_with_golden(name: str, command: str, project: Path, cli: Cli) -> None:
    ran = cli(*command.split())
    err = re.sub(r"(?s)usage: .*?(?=error: )", "usage: ...\n", ran.err)
    told = (
        f"$ stemflow {command}\n{plain(err, project)}-- standard output\n{plain(ran.out, project)}-- exit {ran.code}\n"
    )
    golden = GOLDEN / f"{name}.txt"
    if os.environ.get("STEMFLOW_GOLDEN") == "write":
        golden.write_text(told)
    # Then it says what the golden file holds, and nothing was left half done
    assert told == golden.read_text("utf-8")


def test_every_golden_file_belongs_to_a_case() -> None:
    assert {path.stem for path in GOLDEN.glob("*.txt")} == {*CASES, "store-locked"}


@pytest.mark.parametrize("name", [name for name in CASES if not CASES[name].command.startswith(("runs", "show"))])
def test_a_command_that_is_refused_leaves_no_run_behind(name: str, project: Path, cli: Cli) -> None:
    # Given the same worlds
    case = CASES[name]
    if case.text:
        (project / "demo.yaml").write_text(case.text)
    case.prepare(project)
    # When the command was refused before anything ran
    if cli(*case.command.split()).code == 1:
        return
    # Then there is no run, and a command that looks for one makes no store
    existed = (project / DEFAULT_PATH).exists()
    assert cli("runs", "--json").out == ("[]\n" if existed else "")
    assert (project / DEFAULT_PATH).exists() == existed
