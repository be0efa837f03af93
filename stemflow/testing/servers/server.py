"""Real servers for tests: Redis or Valkey on a free port of this machine."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType

PATIENCE_S = 20.0

BUS = 10_000
"""The offset of the port on which the nodes of a cluster communicate."""


FIRST_PORT, LAST_PORT = 10_000, 22_767
"""Below the ports that the system gives to connections, as are those of the bus that belong to them."""
STARTS = 10
"""So often a server is started whose port another program has taken."""


def free_port() -> int:
    """A free port, whose corresponding cluster bus port is free as well."""
    while True:
        port = FIRST_PORT + int.from_bytes(os.urandom(4), "big") % (LAST_PORT - FIRST_PORT + 1)
        with socket.socket() as probe, socket.socket() as other, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            other.bind(("127.0.0.1", port + BUS))
            return port


class Server:
    """A server that listens on the loopback only. `settings` are lines of its configuration, such as `appendonly
    yes`."""

    mode: tuple[str, ...] = ()
    """Arguments that select the mode of the program."""
    common: tuple[str, ...] = ("save ''",)

    def __init__(self, binary: str, folder: Path, settings: Sequence[str] = (), port: int | None = None) -> None:
        self.binary, self.folder, self.settings = binary, folder, tuple(settings)
        self.port = port or free_port()
        self.process: subprocess.Popen[bytes] | None = None
        self._may_move = port is None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    @property
    def runs(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def start(self, core: int | None = None) -> Server:
        """Start the server, optionally pinned to a core, and wait until it answers.

        If another program has taken the port since it was chosen, the first start takes another port.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        failure: str | None = ""
        for _ in range(STARTS):
            logged = self._log.stat().st_size if self._log.exists() else 0
            self._launch(core)
            failure = self._failure(logged)
            if failure is None:
                self._may_move = False
                return self
            if "Address already in use" not in failure:
                break
            if self._may_move:
                self.port = free_port()
            else:
                time.sleep(0.5)
        raise RuntimeError(f"{self.binary} did not start on port {self.port}: {(failure or '')[-2_000:]}")

    def _launch(self, core: int | None) -> None:
        lines = [f"port {self.port}", "bind 127.0.0.1", *self.common, f"dir {self.folder}", *self.settings]
        config = self.folder / f"server-{self.port}.conf"
        config.write_text("\n".join(lines).replace("''", '""') + "\n")
        with self._log.open("ab") as log:
            self.process = subprocess.Popen([self.binary, str(config), *self.mode], stdout=log, stderr=log)
        if core is not None:
            os.sched_setaffinity(self.pid, {core})

    @property
    def _log(self) -> Path:
        return self.folder / f"server-{self.port}.log"

    def _failure(self, logged: int) -> str | None:
        """Wait until the server answers; otherwise what it has logged behind the first `logged` bytes."""
        until = time.monotonic() + PATIENCE_S
        while time.monotonic() < until:
            assert self.process is not None
            if self.process.poll() is not None:
                break
            try:
                if self.ask("PING") == b"+PONG\r\n":
                    return None
            except OSError:
                pass
            time.sleep(0.02)
        return self._log.read_bytes()[logged:].decode("utf-8", "replace")

    def ask(self, *words: str) -> bytes:
        """Send one command over a new connection; returns the first bytes of the reply."""
        return self.ask_raw(*(word.encode() for word in words))

    def ask_raw(self, *words: bytes) -> bytes:
        """The same with arguments as bytes."""
        request = b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words)
        with socket.create_connection(("127.0.0.1", self.port), 5) as connection:
            connection.settimeout(10)
            connection.sendall(request)
            return connection.recv(1 << 20)

    def flush(self) -> None:
        """Delete all data."""
        assert self.ask("FLUSHALL") == b"+OK\r\n"

    def kill(self, how: int = signal.SIGKILL) -> None:
        """Send a signal and wait until the process has ended."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(how)
            self.process.wait(PATIENCE_S)

    def kill_between_syncs(self) -> None:
        """Kill it while it is not syncing its append-only file; during a sync, `everysec` delays further writes to the
        file."""
        until_true(lambda: b"aof_pending_bio_fsync:0" in self.ask("INFO", "persistence"))
        self.kill()

    def stop(self) -> None:
        """Stop it regularly."""
        self.kill(signal.SIGTERM)

    def __enter__(self) -> Server:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()


def fine(answer: bytes) -> None:
    """Raise RuntimeError unless the server answered OK."""
    if answer != b"+OK\r\n":
        raise RuntimeError(f"expected OK of the server, got {answer!r}")


def words_of(answer: bytes) -> list[bytes]:
    """The strings of a reply that is an array of strings."""
    found, rest = [], answer.partition(b"\r\n")[2]
    while rest:
        head, _, rest = rest.partition(b"\r\n")
        size = int(head[1:])
        found.append(rest[:size])
        rest = rest[size + 2 :]
    return found


def until_true(condition: Callable[[], bool], patience_s: float = PATIENCE_S) -> None:
    """Wait until `condition` is true; raises RuntimeError if that takes too long."""
    until = time.monotonic() + patience_s
    while not condition():
        if time.monotonic() > until:
            raise RuntimeError("the servers did not become what was expected of them in time")
        time.sleep(0.02)
