"""Names of processes that hold leases, so that the leases of a process that died are known to be lost at once."""

from __future__ import annotations

import os
import platform
from typing import Final, NamedTuple

_UNKNOWN: Final = "-"


class _Process(NamedTuple):
    boot: str
    namespace: str
    pid: str
    start: str


def owner_id(suffix: str = "") -> str:
    """The name of this process (boot id, pid namespace, pid and start); `suffix` tells its workers apart."""
    name = ".".join((_boot(), _namespace(), str(os.getpid()), _start(os.getpid()) or _UNKNOWN))
    return f"{name}/{suffix}" if suffix else name


def is_dead(owner: str) -> bool:
    """Whether the process is known to have ended; False where that cannot be known, as in another container."""
    parts = owner.partition("/")[0].split(".")
    if len(parts) != len(_Process._fields) or not parts[2].isdecimal():
        return False
    process = _Process(*parts)
    if process.boot != _boot():
        # Without a boot id the first part is a host's name, which says nothing about another host's processes.
        return process.start != _UNKNOWN and _start(os.getpid()) is not None
    if process.namespace != _namespace():
        return False
    if process.start != _UNKNOWN:
        return _start(int(process.pid)) != process.start
    return not _exists(int(process.pid))


def _boot() -> str:
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return platform.node().replace(".", "_").replace("/", "_") or _UNKNOWN


def _namespace() -> str:
    try:
        return os.readlink("/proc/self/ns/pid").removeprefix("pid:[").removesuffix("]")
    except OSError:
        return _UNKNOWN


def _start(pid: int) -> str | None:
    """When the process began, in clock ticks since boot; None if there is no such process or no /proc."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            fields = file.read().rpartition(")")[2].split()
    except OSError:
        return None
    # A zombie has ended, though its parent has not asked for its status yet.
    return None if fields[0] in ("Z", "X") else fields[19]


def _exists(pid: int) -> bool:
    if os.name != "posix":
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
