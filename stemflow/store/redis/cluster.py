"""A cluster: which node owns the slot of a partition, and how a client learns of changes.

All keys of a partition share a hash tag and so a slot. While a slot is moved key by key, its old owner answers ASK for
whatever it does not hold (the name under which scripts are called is never a key), so no script runs in it until the
move is over, and none ever meets a part of its keys: such an answer means that the partition is away for a while.
"""

# mypy: disable-error-code="no-untyped-call"
from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable
from functools import partial
from typing import Any

import redis
from redis.asyncio.connection import AbstractConnection
from redis.crc import key_slot
from redis.exceptions import ClusterDownError, MovedError, RedisError
from redis.exceptions import ConnectionError as Broken
from redis.exceptions import TimeoutError as Slow

from stemflow.store.redis.connections import FIND_S, at, blocking, finder
from stemflow.store.redis.url import Host, RedisLocation


class ClusterConnections:
    """The connections to the nodes of a cluster, of which `place.hosts` are some."""

    def __init__(self, place: RedisLocation) -> None:
        self._place = place
        self._make = finder(place.url)
        self._ranges: list[tuple[int, int, Host]] = []
        self._moved: dict[int, Host] = {}
        self._others: list[Host] = []
        """Replicas, which can be asked, too."""
        self._silent: set[Host] = set()
        """Who did not answer when asked last."""
        self.changes = 0
        self.doubt = True
        self._asking: asyncio.Task[None] | None = None
        self._turn = 0

    # -- the table of slots

    async def owner(self, slot: int) -> Host:
        """The node that owns this slot. Raises ClusterDownError when nobody does, ConnectionError when none answers."""
        if self.doubt:
            await self._learned()
        return self._known(slot)

    async def ask(self) -> None:
        # Where no node answers, connecting fails.
        with contextlib.suppress(Broken):
            await self._learned()

    async def _learned(self) -> None:
        """Learn the slots; concurrent callers share one request."""
        if self._asking is None or self._asking.done():
            self._asking = asyncio.get_running_loop().create_task(self._learn())
        await asyncio.shield(self._asking)

    def _known(self, slot: int) -> Host:
        found = self._moved.get(slot)
        if found is None:
            found = next((host for first, last, host in self._ranges if first <= slot <= last), None)
        if found is None:
            raise ClusterDownError(f"CLUSTERDOWN no node serves slot {slot}")
        return found

    def _nodes(self) -> Iterable[Host]:
        """Every known node once: beginning with another one each time, nodes that did not answer last."""
        known = [*(host for _, _, host in self._ranges), *self._others, *self._place.hosts]
        nodes = list(dict.fromkeys(known))
        self._turn += 1
        first = self._turn % len(nodes)
        return sorted((*nodes[first:], *nodes[:first]), key=self._silent.__contains__)

    async def _learn(self) -> None:
        """Ask for the slots until one node answers."""
        last: Exception | None = None
        for host in self._nodes():
            try:
                async with asyncio.timeout(FIND_S):
                    answer = await self._slots_by(host)
            except (RedisError, OSError, TimeoutError) as error:
                self._silent.add(host)
                last = error
            else:
                self._silent.discard(host)
                return self._take(host, answer)
        raise Broken(f"no node of the cluster answers: {last}")

    async def _slots_by(self, host: Host) -> Any:
        connection = self._make(partial(_at, host))
        try:
            await connection.connect()
            await connection.send_command("CLUSTER", "SLOTS")
            return await connection.read_response(disable_decoding=True)
        finally:
            await connection.disconnect(nowait=True)

    def _take(self, asked: Host, answer: Any) -> None:
        ranges, others = [], []
        for first, last, owner, *replicas in answer:
            ranges.append((int(first), int(last), _host(owner, asked)))
            others += [_host(one, asked) for one in replicas]
        if self._ranges and sorted(ranges) != sorted(self._ranges):
            self.changes += 1
        self._ranges, self._others, self.doubt = ranges, others, False
        self._moved.clear()

    # -- connections

    def connection(self, prefix: bytes) -> AbstractConnection:
        return self._make(partial(self.owner, key_slot(prefix)))

    def subscriber_connection(self) -> AbstractConnection:
        """Nodes pass on to each other what is published; each new connection is to another one."""
        return self._make(self._anyone)

    async def _anyone(self) -> Host:
        if not self._ranges:
            await self.owner(0)
        owners = sorted({host for _, _, host in self._ranges})
        self._turn += 1
        return owners[self._turn % len(owners)]

    def blocking(self, prefix: bytes) -> redis.Redis:
        return blocking(at(self._place.url, self._known(key_slot(prefix))))

    def on_error(self, prefix: bytes, error: Exception) -> bool:
        if isinstance(error, MovedError):
            # The node that was asked no longer owns the slot, and says who does.
            slot = key_slot(prefix)
            host = str(error.host) or self._known(slot)[0]
            again = self._moved.get(slot) != (host, int(error.port))
            self._moved[slot] = (host, int(error.port))
            return again
        if isinstance(error, Broken | Slow | OSError | ClusterDownError):
            self.doubt = True
        return False

    async def close(self) -> None:
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.wait((self._asking,))


async def _at(host: Host) -> Host:
    return host


def _host(node: Any, asked: Host) -> Host:
    """A node as CLUSTER SLOTS names it; where it does not say its address, it is the one that was asked."""
    return bytes(node[0] or b"").decode() or asked[0], int(node[1])
