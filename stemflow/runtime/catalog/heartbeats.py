"""Heartbeats of workers in the store: that they are alive and which queues they serve."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct, json

from stemflow.store.base import Store
from stemflow.store.damaged import decoded_hints

TOPIC = "workers"
HEARTBEAT_MS = 5_000
"""How often a worker stores its heartbeat."""
SILENT_AFTER_MS = 3 * HEARTBEAT_MS
"""A worker whose last heartbeat is older counts as dead."""


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

    def serves(self, queue: str) -> bool:
        """Whether it leases from this queue."""
        return self.queues is None or queue in self.queues

    def alive(self, now_ms: int) -> bool:
        return self.state != "stopped" and now_ms - self.at_ms < SILENT_AFTER_MS


_decoder = json.Decoder(Heartbeat)


async def heartbeats(store: Store) -> dict[str, Heartbeat]:
    """The last heartbeat of each worker, by owner; also of those that stopped or fell silent a short while ago."""
    return decoded_hints("the heartbeat of worker", _decoder.decode, await store.hints(TOPIC))
