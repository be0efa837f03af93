"""kill -9 before and after every store call of a run: `stemflow resume` ends it, and what had finished is not run
again."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from collections import Counter
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from stemflow.cli.main import main
from stemflow.store.codec import STATES

pytestmark = pytest.mark.faults

HERE = Path(__file__).parent
FLOW = HERE / "flow" / "flow.yaml"
EXPECTED = {"value": 16}
MOST_CALLS = 60


def _stemflow(
    arguments: list[str], folder: Path, killed: tuple[str, int] | None = None
) -> subprocess.CompletedProcess[str]:
    program = [str(HERE / "killed_run.py"), killed[0], str(killed[1])] if killed else ["-m", "stemflow.cli.main"]
    return subprocess.run(
        [sys.executable, *program, *arguments],
        check=False,
        cwd=folder,
        env={**os.environ, "WITNESS": str(folder / "witness")},
        capture_output=True,
        text=True,
        timeout=60,
    )


def _runs(store: list[str]) -> list[dict[str, Any]]:
    """What `stemflow runs` lists; nothing if the process died before it made the file."""
    if not Path(store[1].removeprefix("sqlite:")).exists():
        return []
    with redirect_stdout(StringIO()) as out:
        assert main(["runs", "--json", *store]) == 0
    listed: list[dict[str, Any]] = json.loads(out.getvalue())
    return listed


def _starts(folder: Path) -> Counter[str]:
    path = folder / "witness"
    lines = path.read_text().splitlines() if path.exists() else []
    return Counter(line.split()[0] for line in lines if line.endswith("start"))


def _finished(folder: Path) -> set[str]:
    """Paths of the nodes that the store held as final when the process died."""
    database = folder / "runs.db"
    if not database.exists():
        return set()
    with sqlite3.connect(database) as connection:
        try:
            rows = connection.execute("SELECT path FROM nodes WHERE state = ?", (STATES.index("succeeded"),)).fetchall()
        except sqlite3.OperationalError:
            return set()
    return {path for (path,) in rows}


def _survives(folder: Path, when: str, at: int) -> bool:
    """One point; False when the run ended before its `at`-th store call."""
    store = ["--store", f"sqlite:{folder / 'runs.db'}"]
    dead = _stemflow(["run", str(FLOW), "--json", *store], folder, (when, at))
    if dead.returncode == 0:
        assert json.loads(dead.stdout)["outputs"] == EXPECTED
        return False
    assert dead.returncode == -9, dead.stderr
    done, before = _finished(folder), _starts(folder)
    listed = _runs(store)
    if not listed:
        assert not before, "a task ran for a run that was never stored"
        return True
    (run,) = listed
    resumed = _stemflow(["resume", run["id"], "--tasks", str(FLOW.with_name("tasks.py")), "--json", *store], folder)
    assert resumed.returncode == 0, resumed.stderr
    assert json.loads(resumed.stdout)["outputs"] == EXPECTED
    after = _starts(folder)
    again = {path for path in done if after[path] != before[path]}
    assert not again, f"killed {when} call {at}: finished tasks ran again: {again}"
    assert all(count <= 2 for count in after.values())
    if "both.then" not in before:
        assert after["both.then"] == 1, f"killed {when} call {at}: the callback ran {after['both.then']} times"
    return True


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_run_survives_kill_9_at_every_store_call(when: str, tmp_path: Path) -> None:
    tried = 0
    for at in range(1, MOST_CALLS):
        folder = tmp_path / str(at)
        folder.mkdir()
        if not _survives(folder, when, at):
            break
        tried += 1
    print(f"killed {when} {tried} store calls; every run was resumed to its end")
    assert 8 <= tried < MOST_CALLS - 1
