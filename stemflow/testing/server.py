"""Real servers for tests: Redis or Valkey on a free port of this machine, started and ended by their pid."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType

_PATIENCE_S = 20.0

BUS = 10_000
"""A node of a cluster talks to the others on a port that is so much above its own."""


def free_port(*, with_bus: bool = False) -> int:
    """A port that is free now; `with_bus`: and the one on which a node of a cluster talks to others."""
    while True:
        with socket.socket() as probe, socket.socket() as other:
            probe.bind(("127.0.0.1", 0))
            port: int = probe.getsockname()[1]
            if not with_bus:
                return port
            try:
                other.bind(("127.0.0.1", port - BUS))
            except OSError:
                continue
            return port - BUS


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
        return self.ask_raw(*(word.encode() for word in words))

    def ask_raw(self, *words: bytes) -> bytes:
        """The same with words that are no text."""
        request = b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words)
        with socket.create_connection(("127.0.0.1", self.port), 5) as connection:
            connection.settimeout(10)
            connection.sendall(request)
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


COPIED = (
    "appendonly yes",
    "repl-diskless-sync-delay 0",
    "user copies on >copies ~* &* +@all",
    "masteruser copies",
    "masterauth copies",
)
"""Settings of a server with a replica: a replica logs in under a name of its own, so that it alone can be kept out."""


def cut_off(primary: Server, replica: Server) -> None:
    """The replica hears nothing more of its primary, who goes on."""
    _fine(primary.ask("ACL", "SETUSER", "copies", "off"))
    assert primary.ask("CLIENT", "KILL", "TYPE", "replica").startswith(b":")
    until_true(lambda: not follows(replica))


def follows(replica: Server) -> bool:
    """Whether it is told of all that its primary does."""
    return b"master_link_status:up" in replica.ask("INFO", "replication")


class Watched:
    """A primary with a replica, and sentinels that watch them."""

    def __init__(self, binary: str, folder: Path, *, sentinels: int = 1, down_ms: int = 500) -> None:
        self.primary = Server(binary, folder / "primary", COPIED)
        follow = f"replicaof 127.0.0.1 {self.primary.port}"
        self.replica = Server(binary, folder / "replica", (*COPIED, follow))
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
            until_true(lambda: follows(self.replica))
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


class Cluster:
    """Nodes over which all slots are spread evenly. Each keeps its data over a restart."""

    SLOTS = 16_384

    def __init__(self, binary: str, folder: Path, nodes: int = 3) -> None:
        settings = ("cluster-enabled yes", "cluster-node-timeout 2000", "appendonly yes", "appendfsync everysec")
        self.nodes = [Server(binary, folder / f"node-{n}", settings, free_port(with_bus=True)) for n in range(nodes)]

    @property
    def url(self) -> str:
        return "redis+cluster://" + ",".join(f"127.0.0.1:{node.port}" for node in self.nodes)

    def __enter__(self) -> Cluster:
        try:
            for node in self.nodes:
                node.start()
            for n, node in enumerate(self.nodes):
                first, end = (self.SLOTS * k // len(self.nodes) for k in (n, n + 1))
                _fine(node.ask("CLUSTER", "ADDSLOTS", *(str(slot) for slot in range(first, end))))
                _fine(node.ask("CLUSTER", "SET-CONFIG-EPOCH", str(n + 1)))
            for node in self.nodes[1:]:
                _fine(self.nodes[0].ask("CLUSTER", "MEET", "127.0.0.1", str(node.port)))
            until_true(lambda: all(self._whole(node) for node in self.nodes))
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def _whole(self, node: Server) -> bool:
        told = node.ask("CLUSTER", "INFO")
        return b"cluster_state:ok" in told and b"cluster_known_nodes:%d\r" % len(self.nodes) in told

    def owner(self, slot: int) -> Server:
        """The node that owns a slot, as it says itself."""
        for node in self.nodes:
            if _owns(node, slot):
                return node
        raise RuntimeError(f"nobody owns slot {slot}")

    def told(self) -> str:
        """What each node that answers says of all nodes and their slots."""
        lines = []
        for node in self.nodes:
            try:
                lines.append(f"{node.port}: {node.ask('CLUSTER', 'NODES').decode()}")
            except OSError as error:
                lines.append(f"{node.port}: {error}")
        return "\n".join(lines)

    def id_of(self, node: Server) -> str:
        return node.ask("CLUSTER", "MYID").split(b"\r\n")[1].decode()

    def move(self, slot: int, to: Server, pause_s: float = 0.0) -> int:
        """Move a slot key by key, as tools for resharding do, with a pause after each; how many keys there were."""
        source, count, until = self.owner(slot), 0, time.monotonic() + _PATIENCE_S
        _fine(to.ask("CLUSTER", "SETSLOT", str(slot), "IMPORTING", self.id_of(source)))
        _fine(source.ask("CLUSTER", "SETSLOT", str(slot), "MIGRATING", self.id_of(to)))
        while keys := words_of(source.ask("CLUSTER", "GETKEYSINSLOT", str(slot), "10")):
            for key in keys:
                told = source.ask_raw(b"MIGRATE", b"127.0.0.1", b"%d" % to.port, key, b"0", b"5000")
                if told not in (b"+OK\r\n", b"+NOKEY\r\n"):
                    raise RuntimeError(f"expected that {key!r} moves, got {told!r}")
                time.sleep(pause_s)
                count += 1
            if time.monotonic() > until:
                raise RuntimeError(f"slot {slot} still has keys at its old node after {count} were moved")
        mine = ("CLUSTER", "SETSLOT", str(slot), "NODE", self.id_of(to))

        def settled() -> bool:
            # The target first: only then does the source tell its clients where the slot is now.
            waiting = [node for node in (to, source) if _is_open(node, slot)]
            for node in waiting:
                node.ask(*mine)
            return not waiting and _owns(to, slot)

        until_true(settled)
        return count

    @property
    def moves_at_once(self) -> bool:
        """Whether the nodes know how to move a slot as a whole (Valkey from 9.0)."""
        return b"MIGRATESLOTS" in self.nodes[0].ask("CLUSTER", "HELP").upper()

    def move_at_once(self, slot: int, to: Server) -> None:
        """Move a slot as a whole."""
        source = self.owner(slot)
        _fine(source.ask("CLUSTER", "MIGRATESLOTS", "SLOTSRANGE", str(slot), str(slot), "NODE", self.id_of(to)))
        until_true(lambda: _owns(to, slot) and not _owns(source, slot))

    def flush(self) -> None:
        for node in self.nodes:
            node.flush()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for node in self.nodes:
            node.kill()


def _fine(answer: bytes) -> None:
    if answer != b"+OK\r\n":
        raise RuntimeError(f"expected OK of the server, got {answer!r}")


def _holds(part: str, slot: int) -> bool:
    first, _, last = part.partition("-")
    return first.isdecimal() and int(first) <= slot <= int(last or first)


def _owns(node: Server, slot: int) -> bool:
    """Whether the node says that it owns the slot. While a slot changes hands nobody or two may say so."""
    for line in node.ask("CLUSTER", "NODES").decode().splitlines():
        words = line.split()
        if len(words) > 8 and "myself" in words[2]:
            return any(_holds(part, slot) for part in words[8:])
    return False


def _is_open(node: Server, slot: int) -> bool:
    """Whether the node still takes the slot for one that moves."""
    return b"[%d-" % slot in node.ask("CLUSTER", "NODES")


def words_of(answer: bytes) -> list[bytes]:
    """The strings of an answer that is an array of them."""
    found, rest = [], answer.partition(b"\r\n")[2]
    while rest:
        head, _, rest = rest.partition(b"\r\n")
        size = int(head[1:])
        found.append(rest[:size])
        rest = rest[size + 2 :]
    return found


def until_true(condition: Callable[[], bool], patience_s: float = _PATIENCE_S) -> None:
    """Returns when `condition` holds; raises RuntimeError when it does not for too long."""
    until = time.monotonic() + patience_s
    while not condition():
        if time.monotonic() > until:
            raise RuntimeError("the servers did not become what was expected of them in time")
        time.sleep(0.02)
