"""Two processes on one SQLite file: what one of them commits is not lost when the other comes and goes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.faults

SLOW = """
stemflow: "1"
name: slow
chain:
  - {task: nap, args: {seconds: 4}}
  - {task: nap, args: {seconds: 30}}
"""
TASKS = """
import asyncio
from stemflow import TaskRegistry
registry = TaskRegistry()

@registry.task("nap")
async def nap(seconds: float) -> float:
    await asyncio.sleep(seconds)
    return seconds
"""


def _command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "stemflow.cli.main", *arguments]


def _answer(folder: Path, *arguments: str) -> Any:
    command = _command(*arguments, "--json")
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60, check=True)
    return json.loads(done.stdout)


def test_other_commands_come_and_go_while_a_run_goes_on_and_cancel_reaches_it(tmp_path: Path) -> None:
    # Given a run in a process of its own
    (tmp_path / "slow.yaml").write_text(SLOW)
    (tmp_path / "tasks.py").write_text(TASKS)
    run = subprocess.Popen(_command("run", "slow.yaml", "--json"), cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    try:
        deadline = time.monotonic() + 30
        listed: list[dict[str, Any]] = []
        while not listed:
            assert time.monotonic() < deadline
            if (tmp_path / ".stemflow" / "stemflow.db").exists():
                listed = _answer(tmp_path, "runs")
        # When other processes list it, show it, and leave, long enough for its leases to be renewed in between
        for _ in range(3):
            _answer(tmp_path, "show", listed[0]["id"])
            time.sleep(0.5)
        # Then it still writes to the file that others read
        opened = [os.readlink(f"/proc/{run.pid}/fd/{fd}") for fd in os.listdir(f"/proc/{run.pid}/fd")]
        assert not [path for path in opened if "stemflow.db" in path and path.endswith("(deleted)")]
        # And when it is cancelled from outside it ends
        _answer(tmp_path, "cancel", listed[0]["id"])
        out, _ = run.communicate(timeout=30)
        assert (run.returncode, json.loads(out)["state"]) == (1, "cancelled")
        assert [one["state"] for one in _answer(tmp_path, "runs")] == ["cancelled"]
    finally:
        run.kill()
        run.wait()
