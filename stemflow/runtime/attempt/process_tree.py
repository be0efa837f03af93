"""Killing a process of the pool with every program that its handlers have started.

Its process group misses programs that were started in a session of their own, and a walk over parents misses those
whose parent has ended. So each process of the pool carries a mark in its environment, which programs inherit: on Linux
a process belongs to the tree if it has the mark, or descends from one that has it. Elsewhere the group is killed.
"""

from __future__ import annotations

import os
import signal
from contextlib import suppress

MARK = "STEMFLOW_POOL_PROCESS"
"""The environment variable with the mark."""
_PASSES = 5
"""How often the list of processes is read: a program that is being started may be missed by one reading."""


def kill_tree(leader: int, mark: str) -> None:
    """Kill the process `leader` with its group, and every program that was started under `mark`.

    The calling process is killed last, if it belongs to the tree.
    """
    own = os.getpid()
    if leader != own and _has_mark(leader, mark):
        _signal(leader, signal.SIGSTOP)  # it starts nothing more, and its children keep it as their parent
    for _ in range(_PASSES):
        found = _marked(mark) - {leader, own}
        for pid in found:
            _signal(pid, signal.SIGKILL)
        if not found:
            break
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, signal.SIGKILL)


def _signal(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)


def _marked(mark: str) -> set[int]:
    """The ids of running processes that have the mark, or descend from one that has it."""
    children: dict[int, list[int]] = {}
    marked: list[int] = []
    for pid in _process_ids():
        with suppress(OSError):
            state, parent = _state_and_parent(pid)
            if state == b"Z":
                continue
            children.setdefault(parent, []).append(pid)
            if _has_mark(pid, mark):
                marked.append(pid)
    found: set[int] = set()
    while marked:
        pid = marked.pop()
        if pid not in found:
            found.add(pid)
            marked += children.get(pid, ())
    return found


def _process_ids() -> list[int]:
    try:
        return [int(name) for name in os.listdir("/proc") if name.isdigit()]
    except OSError:
        return []


def _has_mark(pid: int, mark: str) -> bool:
    """Whether a process was started with the mark; False for processes of other users."""
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            return f"{MARK}={mark}".encode() in file.read().split(b"\0")
    except OSError:
        return False


def _state_and_parent(pid: int) -> tuple[bytes, int]:
    with open(f"/proc/{pid}/stat", "rb") as file:
        # The name, in parentheses, may contain anything.
        state, parent = file.read().rpartition(b")")[2].split()[:2]
    return state, int(parent)
