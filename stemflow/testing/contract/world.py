"""Fixtures of the store contract: two users of one store, a manual clock, and records."""

from __future__ import annotations

import copy
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from msgspec import structs

from stemflow.model.effects import Decision, Put
from stemflow.model.records import CANCELLED, READY, RUNNING, SUCCEEDED, Header, Key, Node, Record, Tally
from stemflow.store.base import Exchange, Lease, Request, Store, Want
from stemflow.testing.simulation.virtual_loop import EPOCH_MS

RUN = "r"


class ManualClock:
    """A clock that changes only when it is set."""

    def __init__(self) -> None:
        self.at_ms = EPOCH_MS
        self.step_ms = 0
        """How far somebody has put the wall clock forward."""

    def now_ms(self) -> int:
        return self.at_ms + self.step_ms

    def monotonic_ms(self) -> int:
        return self.at_ms - EPOCH_MS

    def advance(self, ms: int) -> int:
        """Advance the clock by `ms`; returns the new time in epoch milliseconds."""
        self.at_ms += ms
        return self.at_ms


def leaf(path: str, run: str = RUN, **fields: Any) -> Node:
    """A ready task, as written by the first decision about it."""
    return Node(**{"run": run, "path": path, "plan": "p", "node": 1, "state": READY, "rev": 1, **fields})


def scope(path: str = "", run: str = RUN, size: int = 3, **fields: Any) -> Node:
    """An open scope."""
    return leaf(path, run, **{"node": 0, "state": RUNNING, "tally": Tally(size), **fields})


def create(record: Record) -> Put:
    key = record.key if isinstance(record, Node) else ("", record.key)
    return Put(key, 0, 0, record)


def change(node: Node, **fields: Any) -> Put:
    """A Put of the next version of a node, guarded by the version that was read."""
    twin = copy.copy(node)
    for name, value in {"rev": node.rev + 1, **fields}.items():
        setattr(twin, name, value)
    return Put(node.key, node.rev, node.delivery, twin)


def succeed(lease: Lease) -> Put:
    return change(lease.node, state=SUCCEEDED, result=b"1")


def cancel(node: Node) -> Put:
    return change(node, state=CANCELLED)


def begun(run: str = RUN, *nodes: Node, **effects: Any) -> Decision:
    """The decision that creates a run with these nodes."""
    puts = (create(scope(run=run)), *map(create, nodes))
    return Decision(puts=puts, headers=(Header(run=run, plan="p"),), **effects)


def paths(leases: tuple[Lease, ...] | list[Lease]) -> list[str]:
    return [lease.node.path for lease in leases]


class User:
    """One caller of a store, with its own channel."""

    def __init__(self, store: Store, name: str) -> None:
        self.store, self.name, self.sequence = store, name, 0

    async def exchange(self, *decisions: Decision, want: Want | None = None) -> Exchange:
        self.sequence += 1
        return await self.store.exchange(Request(self.name, self.sequence), decisions, want)

    async def repeat(self, *decisions: Decision, want: Want | None = None) -> Exchange:
        """Send the last request again."""
        return await self.store.exchange(Request(self.name, self.sequence), decisions, want)

    async def commit(self, *puts: Put, **effects: Any) -> bool:
        return (await self.exchange(Decision(puts=puts, **effects))).committed[0]

    async def begin(self, *nodes: Node, run: str = RUN, reply_to: str = "") -> None:
        headers = (Header(run=run, plan="p", reply_to=reply_to),)
        assert (await self.exchange(structs.replace(begun(run, *nodes), headers=headers))).committed == (True,)

    async def lease(self, limit: int = 10, **fields: Any) -> tuple[Lease, ...]:
        return (await self.ask(limit, **fields)).leases

    async def ask(self, limit: int = 10, **fields: Any) -> Exchange:
        return await self.exchange(want=self.want(limit, **fields))

    def want(self, limit: int = 10, **fields: Any) -> Want:
        return Want(**{"owner": self.name, "limit": limit, **fields})

    async def node(self, path: str, run: str = RUN) -> Node:
        (found,) = await self.store.read([(run, path)])
        assert isinstance(found, Node)
        return found

    async def record(self, key: Key) -> Record | None:
        return (await self.store.read([key]))[0]


class World:
    """`one` and `two` are users of the same data, through two store instances if the store supports that."""

    def __init__(self, one: User, two: User, clock: ManualClock) -> None:
        self.one, self.two, self.clock = one, two, clock


class Promises:
    """The base of all groups of promises. A test class provides the stores."""

    def make_store(self, clock: ManualClock) -> Store:
        """An empty store, not opened yet."""
        raise NotImplementedError

    def second(self, store: Store, clock: ManualClock) -> Store:
        """Another instance on the same data, not opened yet; `store` itself if there can be only one."""
        raise NotImplementedError

    @asynccontextmanager
    async def world(self) -> AsyncIterator[World]:
        clock = ManualClock()
        store = self.make_store(clock)
        await store.open()
        try:
            second = self.second(store, clock)
            await second.open()
            try:
                yield World(User(store, "one"), User(second, "two"), clock)
            finally:
                await second.close()
        finally:
            await store.close()
