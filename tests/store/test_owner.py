"""Names of processes, and what they tell of a process's life."""

import subprocess
import sys

import pytest

from stemflow.store import process_owner as owner
from stemflow.store.process_owner import is_dead, owner_id

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc")


def changed(part: int, value: str) -> str:
    parts = owner_id().split(".")
    parts[part] = value
    return ".".join(parts)


def test_this_process_lives() -> None:
    assert not is_dead(owner_id())
    assert not is_dead(owner_id("worker-1.a"))


def test_a_process_that_has_ended_is_dead() -> None:
    program = "from stemflow.store.process_owner import owner_id; print(owner_id())"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert is_dead(done.stdout.strip())


@linux
def test_a_process_that_took_over_the_pid_is_another() -> None:
    assert is_dead(changed(3, "1"))


@linux
def test_processes_do_not_outlive_the_boot() -> None:
    assert is_dead(changed(0, "0" * 36))


@linux
def test_nothing_is_known_of_another_container() -> None:
    assert not is_dead(changed(1, "1"))


@pytest.mark.parametrize("name", ["", "someone", "a.b.c.d", "a.b.1"])
def test_nothing_is_known_of_a_name_of_another_form(name: str) -> None:
    assert not is_dead(name)


def test_without_proc_a_pid_that_is_free_is_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait(30)
    monkeypatch.setattr(owner, "_start", lambda pid: None)
    monkeypatch.setattr(owner, "_namespace", lambda: "-")
    mine = owner_id()
    assert not is_dead(mine)
    assert is_dead(mine.replace(f".{mine.split('.')[2]}.", f".{process.pid}."))
