"""As process 1 of a container: signals are passed on, orphans are reaped, the exit code is that of the program."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

if sys.platform == "win32":
    pytest.skip("a container of Windows has no process 1", allow_module_level=True)

PARENT = """
import ctypes, os, signal, subprocess, sys
from stemflow.cli.process_one import go_on_in_child
ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # orphans come to this process, as they come to process 1
go_on_in_child()
"""


def started(program: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", PARENT + program], stdout=subprocess.PIPE, text=True)


def test_the_exit_code_is_that_of_the_program() -> None:
    with started("sys.exit(7)") as process:
        assert process.wait(20) == 7


def test_a_signal_that_comes_before_any_handler_ends_the_program() -> None:
    with started("print('up', flush=True); signal.pause()") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 128 + signal.SIGTERM


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="a subreaper is needed in place of process 1")
def test_orphans_are_reaped_while_the_program_goes_on() -> None:
    program = """
orphan = subprocess.run([sys.executable, "-c", "import subprocess; print(subprocess.Popen(['true']).pid)"],
                        capture_output=True, text=True).stdout.strip()
import time
until = time.monotonic() + 10
while os.path.exists(f"/proc/{orphan}") and time.monotonic() < until:
    time.sleep(0.01)
print("reaped" if not os.path.exists(f"/proc/{orphan}") else "a zombie", flush=True)
"""
    with started(program) as process:
        assert process.communicate(timeout=30)[0] == "reaped\n"
        assert process.returncode == 0
