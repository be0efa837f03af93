"""Several worker processes under one small parent, which starts again those that die."""

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
LOOK_S: Final = 0.1
SETTLED_MS: Final = 10_000
"""A worker that lived so long counts as well started."""
MOST_DEATHS: Final = 5
"""So many deaths of one worker in a row, none of them well started, and the fleet gives up."""


class Told:
    """The signals that came, in order; who waits is woken by the next one."""

    def __init__(self) -> None:
        self.signals: list[int] = []
        self._news = threading.Event()

    def hear(self, number: int, frame: FrameType | None) -> None:
        self.signals.append(number)
        self._news.set()

    def wait(self) -> None:
        """Until the next signal, or until it is time to look at the processes again."""
        self._news.wait(LOOK_S)
        self._news.clear()


class Member:
    """One place of the fleet and the process that fills it."""

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
    """Keep `--processes` workers alive until told to stop; FINE when all of them ended well."""
    members = [Member(number, _command(arguments, number)) for number in range(1, arguments.processes + 1)]
    told = Told()
    before = {number: signal.signal(number, told.hear) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT)}
    try:
        for member in members:
            member.start()
        log.info("%d worker processes: %s", len(members), ", ".join(str(pid) for pid in _pids(members)))
        code = _watch(members, told)
        return max(code, _wait(members, told))
    finally:
        for member in members:
            if member.process is not None and member.process.poll() is None:
                member.process.kill()
        for number, handler in before.items():
            signal.signal(number, handler)


def _watch(members: list[Member], told: Told) -> int:
    """Start again what dies, until a signal came or it makes no sense to go on."""
    while not told.signals:
        for member in members:
            code = None if member.process is None else member.process.poll()
            if code in (WRONG_USAGE, INVALID_FILE):
                log.error("worker process %d cannot start; the others are stopped", member.number)
                told.signals.append(signal.SIGTERM)
                member.process = None
                return code
            if code is not None:
                member.died(code)
                if member.backoff.tries >= MOST_DEATHS:
                    log.error("worker process %d died %d times in a row; the others are stopped",
                              member.number, MOST_DEATHS)  # fmt: skip
                    told.signals.append(signal.SIGTERM)
                    return RUN_FAILED
            if member.process is None and _clock.monotonic_ms() >= member.next_at_ms:
                member.start()
        told.wait()
    return FINE


def _wait(members: list[Member], told: Told) -> int:
    """Pass every signal on until all have ended; the worst exit code."""
    passed = 0
    codes = [FINE]
    while any(member.process is not None for member in members):
        while passed < len(told.signals):
            for member in members:
                if member.process is not None:
                    member.process.send_signal(told.signals[passed])
            passed += 1
        for member in members:
            code = None if member.process is None else member.process.poll()
            if code is not None:
                member.process = None
                codes.append(code if code >= 0 else 128 - code)
        told.wait()
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
    words += ["--verbose"] if arguments.verbose else []
    return [sys.executable, "-m", "stemflow.cli.main", "worker", *words]


def _pids(members: list[Member]) -> Iterator[int]:
    return (member.process.pid for member in members if member.process is not None)


def _how(code: int) -> str:
    return f"exit code {code}" if code >= 0 else signal.Signals(-code).name
