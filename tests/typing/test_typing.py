"""Static types reach through chain, group, chord and map: right programs pass, wrong links are refused."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

PROGRAMS = Path(__file__).parent / "programs"
ROOT = Path(__file__).parents[2]
MARK = re.compile(r"#\s*expect-error\b")

Complaints = dict[tuple[str, int], str]
"""(file, line) -> what the checker says of it."""


def _mypy() -> Complaints:
    command = [sys.executable, "-m", "mypy", "--strict", "--follow-imports=silent", "--output=json", str(PROGRAMS)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    said = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert done.returncode in (0, 1) and (said or done.returncode == 0), done.stdout + done.stderr
    return {(Path(one["file"]).name, one["line"]): one["message"] for one in said if one["severity"] == "error"}


def _pyright() -> Complaints:
    command = [sys.executable, "-m", "pyright", "--outputjson", "--pythonpath", sys.executable, str(PROGRAMS)]
    env = {**os.environ, "PYRIGHT_PYTHON_IGNORE_WARNINGS": "1"}
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, env=env, timeout=300)
        said = json.loads(done.stdout)["generalDiagnostics"]
    except (OSError, ValueError, KeyError, subprocess.TimeoutExpired) as broken:
        _without_pyright(f"pyright: expected its answer as JSON, got {broken}; install pyright[nodejs]")
    return {
        (Path(one["file"]).name, one["range"]["start"]["line"] + 1): one["message"]
        for one in said
        if one["severity"] == "error"
    }


def _without_pyright(reason: str) -> None:
    """A laptop without node may go without; CI may not."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(
    scope="module",
    params=[pytest.param(_mypy, id="mypy"), pytest.param(_pyright, id="pyright", marks=pytest.mark.long)],
)
def complaints(request: pytest.FixtureRequest) -> Complaints:
    checker: Callable[[], Complaints] = request.param
    return checker()


def test_right_programs_pass(complaints: Complaints) -> None:
    # Given programs whose links fit; when a type checker reads them; then it has nothing to say.
    assert {place: said for place, said in complaints.items() if place[0] != "wrong.py"} == {}


def test_every_wrong_link_is_refused_and_nothing_else(complaints: Complaints) -> None:
    # Given a program in which each wrong line is marked
    lines = (PROGRAMS / "wrong.py").read_text().splitlines()
    marked = {number: line for number, line in enumerate(lines, 1) if MARK.search(line)}

    # When a type checker reads it
    refused = {line: said for (name, line), said in complaints.items() if name == "wrong.py"}

    # Then it complains of the marked lines and of no others
    assert {number: line for number, line in marked.items() if number not in refused} == {}
    assert {number: said for number, said in refused.items() if number not in marked} == {}
    assert len(marked) > 30
