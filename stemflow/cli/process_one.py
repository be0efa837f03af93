"""As process 1 of a container: a small parent that passes signals on and reaps every orphan.

A system gives process 1 no default action for signals, so a SIGTERM would be ignored until a handler is installed, and
it makes process 1 the parent of every process whose own parent has died. The program goes on in a child, which is an
ordinary process.
"""

from __future__ import annotations

import os
import signal
from types import FrameType
from typing import Final

FORWARDED: Final = tuple(
    getattr(signal, name)
    for name in ("SIGTERM", "SIGINT", "SIGQUIT", "SIGHUP", "SIGUSR1", "SIGUSR2")
    if hasattr(signal, name)
)


def leave_process_one() -> None:
    """Go on in a child if this is process 1, which then never returns: it ends with the exit code of the child."""
    if os.getpid() == 1:
        go_on_in_child()


def go_on_in_child() -> None:
    """Return in a child with a process group of its own; in the parent, forward signals and reap until it has ended."""
    signal.pthread_sigmask(signal.SIG_BLOCK, FORWARDED)  # none is lost before the handlers are there
    child = os.fork()
    if child == 0:
        os.setpgid(0, 0)  # Ctrl-C of a terminal reaches the parent alone, which passes it on once
        signal.pthread_sigmask(signal.SIG_UNBLOCK, FORWARDED)
        return

    def forward(number: int, frame: FrameType | None) -> None:
        os.kill(child, number)

    for number in FORWARDED:
        signal.signal(number, forward)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, FORWARDED)
    while True:
        pid, status = os.wait()
        if pid == child:
            code = os.waitstatus_to_exitcode(status)
            os._exit(code if code >= 0 else 128 - code)
