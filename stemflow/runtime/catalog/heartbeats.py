"""Heartbeats of workers in the store: that they are alive, which queues they serve, and what they run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from msgspec import Struct, json, structs

from stemflow.model.records import Key
from stemflow.store.base import Lease, Store, StoreError
from stemflow.store.damaged import decoded_hints
from stemflow.store.process_owner import is_dead

TOPIC = "workers"
HEARTBEAT_MS = 5_000
"""How often a worker stores its heartbeat."""
SILENT_AFTER_MS = 3 * HEARTBEAT_MS
"""A worker whose last heartbeat is older counts as dead."""
HELD_MS = 250
"""How long a task runs before a heartbeat names it."""
MOST_HELD = 200
"""The most tasks that a heartbeat names."""


class HeldTask(Struct, frozen=True, array_like=True):
    """A task that a worker runs, under the fencing token `token`, since `since_ms` (epoch ms). `task` is its name."""

    run: str
    path: str
    token: int
    task: str
    queue: str
    since_ms: int

    @property
    def key(self) -> Key:
        return (self.run, self.path)


class Heartbeat(Struct, frozen=True, kw_only=True):
    """A worker as it last described itself. `declares` is the digest of the declarations of its tasks."""

    name: str
    host: str
    pid: int
    state: Literal["running", "stopping", "stopped"]
    queues: tuple[str, ...] | None
    concurrency: int
    running: int
    started_at_ms: int
    at_ms: int
    declares: str
    only_run: str | None = None
    """The one run that it serves, of a worker that was started for it."""
    holds: tuple[HeldTask, ...] = ()
    """What it has run for at least HELD_MS, the longest first; at most MOST_HELD."""
    disowned: tuple[HeldTask, ...] = ()
    """Handlers that were to end and have not: each takes a slot. At most MOST_HELD."""
    controls: str = ""
    """The digest of what operators want, as far as it was applied; see `catalog.controls`."""
    on_hold: bool = False
    """It leases nothing new, since an operator wants that."""

    gone: bool = False
    """Its process was one of this host, and has ended. It is found out by those that read the heartbeat."""

    def serves(self, queue: str, run: str | None = None) -> bool:
        """Whether it leases from this queue; with `run`, tasks of this run."""
        return (self.queues is None or queue in self.queues) and self.only_run in (None, run)

    @property
    def free(self) -> int:
        """Slots in which nothing ran."""
        return max(0, self.concurrency - self.running - len(self.disowned))

    def alive(self, now_ms: int) -> bool:
        return self.state != "stopped" and not self.gone and now_ms - self.at_ms < SILENT_AFTER_MS


_decoder = json.Decoder(Heartbeat)


async def heartbeats(store: Store) -> dict[str, Heartbeat]:
    """The last heartbeat of each worker, by owner; also of those that stopped or fell silent a short while ago."""
    found = decoded_hints("the heartbeat of worker", _decoder.decode, await store.hints(TOPIC))
    return {owner: structs.replace(beat, gone=is_dead(owner)) for owner, beat in found.items()}


async def holders(store: Store) -> dict[tuple[Key, int], tuple[str, int]]:
    """(name of the worker, since when it runs in epoch ms) by the key and the fencing token of each task that the last
    heartbeats name."""
    return {(one.key, one.token): (beat.name, one.since_ms) for beat in (await heartbeats(store)).values()
            for one in beat.holds}  # fmt: skip


async def losers(store: Store, leases: Sequence[Lease]) -> list[tuple[str, int]]:
    """Which worker ran each of these leases, just taken over, and since when; `("", 0)` where no heartbeat tells."""
    if not leases:
        return []
    try:
        held = await holders(store)
    except StoreError:
        held = {}  # the losses must be reported all the same
    return [held.get((lease.node.key, lease.node.delivery - 1), ("", 0)) for lease in leases]
