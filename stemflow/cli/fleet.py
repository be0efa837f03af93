"""Several worker processes under one small parent, which restarts those that die."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Final

from stemflow.cli.arguments import Arguments
from stemflow.cli.exits import FINE, INVALID_FILE, RUN_FAILED, WRONG_USAGE
from stemflow.runtime.clock import SystemClock
from stemflow.runtime.worker.reconnect_backoff import ReconnectBackoff

_clock = SystemClock()
log = logging.getLogger("stemflow.cli.fleet")

PARENT: Final = "STEMFLOW_FLEET"
"""The variable that tells a worker which process started it as part of a fleet."""
_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT)
LOOK_S: Final = 0.1
SETTLED_MS: Final = 10_000
"""A worker that has lived this long counts as started successfully."""
MOST_DEATHS: Final = 5
"""After this many deaths of one worker in a row, without a successful start between them, the fleet gives up."""


class Signals:
    """The signals received so far, in order; the next one wakes `wait`."""

    def __init__(self) -> None:
        self.numbers: list[int] = []
        self._woken = threading.Event()

    def record(self, number: int, frame: FrameType | None) -> None:
        self.numbers.append(number)
        self._woken.set()

    def wait(self) -> None:
        """Until the next signal, or until it is time to look at the processes again."""
        self._woken.wait(LOOK_S)
        self._woken.clear()


class Member:
    """One worker of the fleet: its number and its current process."""

    def __init__(self, number: int, command: list[str]) -> None:
        self.number, self.command = number, command
        self.process: subprocess.Popen[bytes] | None = None
        self.backoff = ReconnectBackoff(f"{os.getpid()}/{number}", 0.5, 30.0)
        self.started_at_ms = self.next_at_ms = 0

    def start(self) -> None:
        # A session of its own: Ctrl-C of the terminal reaches the parent alone, which passes it on once.
        environment = {**os.environ, PARENT: str(os.getpid())}
        self.process = subprocess.Popen(self.command, env=environment, start_new_session=True)
        self.started_at_ms = _clock.monotonic_ms()

    def died(self, code: int) -> None:
        """Plan the next start."""
        if _clock.monotonic_ms() - self.started_at_ms >= SETTLED_MS:
            self.backoff.reset()
        pause = self.backoff.next_s()
        self.process, self.next_at_ms = None, _clock.monotonic_ms() + int(pause * 1_000)
        log.warning("worker process %d ended with %s; it is started again in %.1f s", self.number, _how(code), pause)


def serve_many(arguments: Arguments) -> int:
    """Keep `--processes` workers alive until a signal stops them; FINE when all of them ended well."""
    members = [Member(number, _command(arguments, number)) for number in range(1, arguments.processes + 1)]
    received = Signals()
    before = {number: signal.signal(number, received.record) for number in _SIGNALS}
    try:
        for member in members:
            member.start()
        log.info("%d worker processes: %s", len(members), ", ".join(str(pid) for pid in _pids(members)))
        code = _watch(members, received)
        return max(code, _wait(members, received))
    finally:
        for member in members:
            if member.process is not None and member.process.poll() is None:
                member.process.kill()
        for number, handler in before.items():
            signal.signal(number, handler)


def _watch(members: list[Member], received: Signals) -> int:
    """Restart dead workers until a signal arrives or a restart is pointless."""
    while not received.numbers:
        for member in members:
            code = None if member.process is None else member.process.poll()
            if code in (WRONG_USAGE, INVALID_FILE):
                log.error("worker process %d cannot start; the others are stopped", member.number)
                received.numbers.append(signal.SIGTERM)
                member.process = None
                return code
            if code is not None:
                member.died(code)
                if member.backoff.tries >= MOST_DEATHS:
                    log.error("worker process %d died %d times in a row; the others are stopped",
                              member.number, MOST_DEATHS)  # fmt: skip
                    received.numbers.append(signal.SIGTERM)
                    return RUN_FAILED
            if member.process is None and _clock.monotonic_ms() >= member.next_at_ms:
                member.start()
        received.wait()
    return FINE


def _wait(members: list[Member], received: Signals) -> int:
    """Forward every signal until all workers have ended; the worst exit code."""
    passed = 0
    codes = [FINE]
    while any(member.process is not None for member in members):
        while passed < len(received.numbers):
            for member in members:
                if member.process is not None:
                    member.process.send_signal(received.numbers[passed])
            passed += 1
        for member in members:
            code = None if member.process is None else member.process.poll()
            if code is not None:
                member.process = None
                codes.append(code if code >= 0 else 128 - code)
        received.wait()
    return max(codes)


def _command(arguments: Arguments, number: int) -> list[str]:
    given = {
        "--store": arguments.store, "--concurrency": arguments.concurrency,
        "--grace": f"{arguments.grace}ms", "--unroutable-after": f"{arguments.unroutable_after}ms",
    }  # fmt: skip
    words = [str(word) for pair in given.items() for word in pair]
    words += ["--queues", ",".join(arguments.queues)] if arguments.queues else []
    words += [word for module in arguments.tasks for word in ("--tasks", module)]
    words += ["--name", f"{arguments.name}-{number}"] if arguments.name else []
    if number == 1 and arguments.metrics_port is not None:
        words += ["--metrics-port", str(arguments.metrics_port), "--metrics-bind", arguments.metrics_bind]
    words += ["--verbose"] if arguments.verbose else []
    return [sys.executable, "-m", "stemflow.cli.main", "worker", *words]


def _pids(members: list[Member]) -> Iterator[int]:
    return (member.process.pid for member in members if member.process is not None)


def _how(code: int) -> str:
    return f"exit code {code}" if code >= 0 else signal.Signals(-code).name
