"""A server with a replica for tests, and sentinels that promote the replica."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType

from stemflow.testing.servers.server import Server, fine, until_true

COPIED = (
    "appendonly yes",
    "repl-diskless-sync-delay 0",
    "user copies on >copies ~* &* +@all",
    "masteruser copies",
    "masterauth copies",
)
"""Settings of a server with a replica. The replica has its own login, so that it can be locked out separately."""


def cut_off(primary: Server, replica: Server) -> None:
    """Disconnect the replica from its primary, which continues."""
    fine(primary.ask("ACL", "SETUSER", "copies", "off"))
    assert primary.ask("CLIENT", "KILL", "TYPE", "replica").startswith(b":")
    until_true(lambda: not follows(replica))


def follows(replica: Server) -> bool:
    """Whether the replica receives the writes of its primary."""
    return b"master_link_status:up" in replica.ask("INFO", "replication")


def copied(primary: Server, replica: Server) -> None:
    """Wait until the replica has received everything that its primary has written until now.

    WAIT would not help: on a connection that has written nothing, it waits for nothing."""
    written = _field(primary, "master_repl_offset")
    until_true(lambda: follows(replica) and _field(replica, "slave_repl_offset") >= written)


def _field(server: Server, name: str) -> int:
    answer = server.ask("INFO", "replication").decode()
    return int(answer.partition(f"\r\n{name}:")[2].partition("\r\n")[0])


class Sentinel(Server):
    """Monitors `primary` under a name, and promotes its replica when it is unreachable for `down_ms`."""

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
    """A primary with a replica, and sentinels that monitor them."""

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
        """Whether it knows the replica and all other sentinels."""
        answer = sentinel.ask("SENTINEL", "MASTER", "main")
        others = b"num-other-sentinels\r\n$1\r\n%d" % (len(self.sentinels) - 1)
        return b"num-slaves\r\n$1\r\n1" in answer and others in answer
