"""Nodes of a cluster for tests, and slots that move from one to another."""

from __future__ import annotations

import time
from pathlib import Path
from types import TracebackType

from stemflow.testing.servers.replicas import COPIED, follows
from stemflow.testing.servers.server import PATIENCE_S, Server, fine, until_true, words_of


class Cluster:
    """Nodes over which all slots are spread evenly. Each keeps its data over a restart.

    With `replicas`, each node has one, which takes over when the other nodes cannot reach it for `timeout_ms`.
    """

    SLOTS = 16_384

    def __init__(
        self, binary: str, folder: Path, nodes: int = 3, *, replicas: bool = False, timeout_ms: int = 2_000
    ) -> None:
        common = ("cluster-enabled yes", f"cluster-node-timeout {timeout_ms}", "appendfsync everysec")

        def server(name: str) -> Server:
            return Server(binary, folder / name, (*common, *COPIED))

        self.nodes = [server(f"node-{n}") for n in range(nodes)]
        self.replicas = [server(f"replica-{n}") for n in range(nodes if replicas else 0)]

    @property
    def url(self) -> str:
        return "redis+cluster://" + ",".join(f"127.0.0.1:{node.port}" for node in self.nodes)

    def __enter__(self) -> Cluster:
        try:
            for node in self.all:
                node.start()
            for n, (node, (first, last)) in enumerate(zip(self.nodes, self.ranges(), strict=True)):
                fine(node.ask("CLUSTER", "ADDSLOTS", *(str(slot) for slot in range(first, last + 1))))
                fine(node.ask("CLUSTER", "SET-CONFIG-EPOCH", str(n + 1)))
            for node in self.all[1:]:
                fine(self.nodes[0].ask("CLUSTER", "MEET", "127.0.0.1", str(node.port)))
            until_true(self.is_whole)
            for node, replica in zip(self.nodes, self.replicas, strict=False):
                fine(replica.ask("CLUSTER", "REPLICATE", self.id_of(node)))
            until_true(lambda: all(self._knows_replicas(node) for node in self.all))
            until_true(lambda: all(follows(replica) for replica in self.replicas))
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def ranges(self) -> list[tuple[int, int]]:
        """The slots that each node has at the start: the first and the last."""
        count = len(self.nodes)
        return [(self.SLOTS * n // count, self.SLOTS * (n + 1) // count - 1) for n in range(count)]

    def is_whole(self) -> bool:
        """Whether all nodes know of each other, and serve all slots."""
        return all(self._whole(node) for node in self.all)

    def _whole(self, node: Server) -> bool:
        answer = node.ask("CLUSTER", "INFO")
        return b"cluster_state:ok" in answer and b"cluster_known_nodes:%d\r" % len(self.all) in answer

    def _knows_replicas(self, node: Server) -> bool:
        answer = node.ask("CLUSTER", "NODES").decode().splitlines()
        return sum("slave" in line.split()[2] for line in answer if len(line.split()) > 7) == len(self.replicas)

    @property
    def all(self) -> list[Server]:
        """Nodes and replicas, as they were at the start."""
        return [*self.nodes, *self.replicas]

    def replica_of(self, node: Server) -> Server:
        """Its replica at the start."""
        return self.replicas[self.nodes.index(node)]

    def owner(self, slot: int) -> Server:
        """The running node that says that it owns the slot."""
        for node in self.all:
            if node.runs and _owns(node, slot):
                return node
        raise RuntimeError(f"nobody owns slot {slot}")

    def describe(self) -> str:
        """The view of all nodes and their slots, from each node that answers."""
        lines = []
        for node in self.all:
            try:
                lines.append(f"{node.port}: {node.ask('CLUSTER', 'NODES').decode()}")
            except OSError as error:
                lines.append(f"{node.port}: {error}")
        return "\n".join(lines)

    def id_of(self, node: Server) -> str:
        return node.ask("CLUSTER", "MYID").split(b"\r\n")[1].decode()

    def move(self, slot: int, to: Server, pause_s: float = 0.0) -> int:
        """Move a slot key by key, with a pause after each key; returns the number of keys."""
        move = Move(self, slot, to)
        move.begin()
        count = move.carry(pause_s=pause_s)
        move.end()
        return count

    @property
    def moves_at_once(self) -> bool:
        """Whether the nodes support moving a slot as a whole (Valkey 9.0 or later)."""
        return b"MIGRATESLOTS" in self.nodes[0].ask("CLUSTER", "HELP").upper()

    def move_at_once(self, to: Server, *slots: int | tuple[int, int]) -> None:
        """Move slots or ranges of slots that one node owns, each as a whole."""
        ranges = [slot if isinstance(slot, tuple) else (slot, slot) for slot in slots]
        source = self.owner(ranges[0][0])
        words = [word for first, last in ranges for word in ("SLOTSRANGE", str(first), str(last))]
        fine(source.ask("CLUSTER", "MIGRATESLOTS", *words, "NODE", self.id_of(to)))
        firsts = [first for first, _ in ranges]
        until_true(lambda: all(_owns(to, slot) and not _owns(source, slot) for slot in firsts))

    def flush(self) -> None:
        for node in self.nodes:
            node.flush()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for node in self.all:
            node.kill()


class Move:
    """A move of a slot from its owner key by key, as resharding tools do it. It can continue after a fault."""

    def __init__(self, cluster: Cluster, slot: int, to: Server) -> None:
        self.slot, self.source, self.to = slot, cluster.owner(slot), to
        self._from_id, self._to_id = cluster.id_of(self.source), cluster.id_of(to)

    def begin(self) -> None:
        fine(self.to.ask("CLUSTER", "SETSLOT", str(self.slot), "IMPORTING", self._from_id))
        fine(self.source.ask("CLUSTER", "SETSLOT", str(self.slot), "MIGRATING", self._to_id))

    def left(self) -> int:
        """The number of keys that the old owner still has."""
        return int(self.source.ask("CLUSTER", "COUNTKEYSINSLOT", str(self.slot))[1:])

    def carry(self, most: int = 1_000_000, pause_s: float = 0.0) -> int:
        """Move keys, with a pause after each, until none are left or `most` have been moved; returns how many."""
        count, until = 0, time.monotonic() + PATIENCE_S
        while count < most and (keys := self._keys(min(10, most - count))):
            for key in keys:
                # A key that exists on both nodes was being moved when a node died.
                answer = self.source.ask_raw(
                    b"MIGRATE", b"127.0.0.1", b"%d" % self.to.port, key, b"0", b"5000", b"REPLACE"
                )
                if answer not in (b"+OK\r\n", b"+NOKEY\r\n"):
                    raise RuntimeError(f"expected that {key!r} moves, got {answer!r}")
                time.sleep(pause_s)
                count += 1
            if time.monotonic() > until:
                raise RuntimeError(f"slot {self.slot} still has keys at its old node after {count} were moved")
        return count

    def _keys(self, most: int) -> list[bytes]:
        return words_of(self.source.ask("CLUSTER", "GETKEYSINSLOT", str(self.slot), str(most)))

    def end(self) -> None:
        """Finish the move; returns when both nodes know the new owner."""
        mine = ("CLUSTER", "SETSLOT", str(self.slot), "NODE", self._to_id)

        def settled() -> bool:
            # The target first: only then does the source redirect its clients.
            waiting = [node for node in (self.to, self.source) if _is_open(node, self.slot)]
            for node in waiting:
                node.ask(*mine)
            return not waiting and _owns(self.to, self.slot)

        until_true(settled)


def _holds(part: str, slot: int) -> bool:
    first, _, last = part.partition("-")
    return first.isdecimal() and int(first) <= slot <= int(last or first)


def _owns(node: Server, slot: int) -> bool:
    """Whether the node says that it owns the slot. During a change of owner, no node or two nodes may say so."""
    for line in node.ask("CLUSTER", "NODES").decode().splitlines():
        words = line.split()
        if len(words) > 8 and "myself" in words[2]:
            return any(_holds(part, slot) for part in words[8:])
    return False


def _is_open(node: Server, slot: int) -> bool:
    """Whether the node still considers the slot to be moving."""
    return b"[%d-" % slot in node.ask("CLUSTER", "NODES")
