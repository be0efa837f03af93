"""Tasks that wait and that no live worker has: a worker leases them all the same, so that their runs end in time."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable

from stemflow.runtime.catalog.heartbeats import heartbeats
from stemflow.runtime.catalog.published import published
from stemflow.runtime.tasks.registry import TaskRegistry
from stemflow.runtime.worker.slots import Slots
from stemflow.store.base import Store, StoreError

log = logging.getLogger("stemflow.presence")

LOOK_EVERY_MS = 5_000
"""How often a worker looks for tasks that nobody has."""


class DeclaredTasks:
    """The tasks that a worker asks the store for: those of its registry, those of the engine itself (`own`), and those
    that no live worker has."""

    def __init__(self, store: Store, registry: TaskRegistry, own: Callable[[], Iterable[str]]) -> None:
        self._store, self._registry, self._own = store, registry, own
        self._count = -1
        self._registered: frozenset[str] = frozenset()
        self._orphans: frozenset[str] = frozenset()
        self._all: frozenset[str] = frozenset()

    def __call__(self) -> frozenset[str]:
        """Their names."""
        if self._count != len(self._registry):
            self._count = len(self._registry)
            self._registered = frozenset((*self._registry, *self._own()))
            self._all = self._registered | self._orphans
        return self._all

    async def watch(self, slots: Slots, every_ms: int) -> None:
        """Look for tasks that nobody has, every `every_ms` milliseconds; wake the worker when there are others."""
        while True:
            try:
                orphans = await self._look(slots)
            except StoreError as error:
                log.warning("%s; tasks that no worker has are looked for again in %.1f s", error, every_ms / 1_000)
            else:
                if orphans != self._orphans:
                    self._orphans, self._all = orphans, self._registered | orphans
                    slots.wake()
            await asyncio.sleep(every_ms / 1_000)

    async def _look(self, slots: Slots) -> frozenset[str]:
        waiting = {
            task
            for queue, task in await self._store.waiting_tasks()
            if task not in self._registered and (slots.queues is None or queue in slots.queues)
        }
        if not waiting:
            return frozenset()
        now_ms, declared = self._store.now_ms(), await published(self._store)
        for heartbeat in (await heartbeats(self._store)).values():
            if heartbeat.alive(now_ms) and heartbeat.declares in declared:
                waiting -= declared[heartbeat.declares].tasks.keys()
        return frozenset(waiting)
