"""The heartbeats and declarations that a worker stores: that it is alive, what it serves, which tasks it has."""

from __future__ import annotations

import asyncio
import logging
import os
import platform
from collections.abc import Iterable
from contextlib import suppress
from typing import Literal

from msgspec import json

from stemflow.model.facts import Failed, HandedBack
from stemflow.model.records import ErrorInfo, Key, Node
from stemflow.runtime.attempt.in_flight import Running
from stemflow.runtime.attempt.runner import UNKNOWN_TASK_DELAY_MS
from stemflow.runtime.catalog.heartbeats import (
    HEARTBEAT_MS,
    HELD_MS,
    MOST_HELD,
    SILENT_AFTER_MS,
    TOPIC,
    Heartbeat,
    HeldTask,
    heartbeats,
)
from stemflow.runtime.catalog.published import Declaration, declared_by, digest_of, publish, published
from stemflow.runtime.payloads.signing import Trust
from stemflow.runtime.tasks.registry import TaskRegistry
from stemflow.runtime.worker.slots import Slots
from stemflow.store.base import Store, StoreError

log = logging.getLogger("stemflow.presence")

LOOK_S = 0.5
"""How often a worker that runs something checks whether its last heartbeat names it."""
PUBLISH_EVERY_MS = 3_600_000
"""How often a worker stores the declarations of its tasks again, before they expire."""


class Presence:
    """Stores the heartbeats of one worker, and knows whether any worker has registered a task that this one lacks.

    A task that no worker has declared for `unroutable_after_ms` milliseconds fails.
    """

    def __init__(
        self,
        store: Store,
        registry: TaskRegistry,
        slots: Slots,
        unroutable_after_ms: int,
        trust: Trust | None = None,
    ) -> None:
        self._trust = trust or Trust()
        self._store, self._registry, self._slots = store, registry, slots
        self.name = slots.name
        self.unroutable_after_ms = unroutable_after_ms
        self.tasks: dict[str, Declaration] = {}
        self.digest = ""
        self.started_at_ms = 0
        self._published_at_ms: int | None = None
        self._epoch = store.epoch
        self._named: set[tuple[Key, int]] = set()
        """What the last heartbeat names, by key and fencing token."""
        self.published = False
        """A heartbeat was stored."""

    def begin(self) -> None:
        """Take the start time of the worker from the store, which must be open: only then is a server's time known."""
        self.started_at_ms = self._store.now_ms()

    async def run(self, every_ms: int = HEARTBEAT_MS) -> None:
        """Store a heartbeat at once, then every `every_ms` milliseconds; a store that fails is tried again then.

        A worker that serves a single run stores the first one when it has run a task for HELD_MS. A heartbeat comes
        early when a task has run for so long that the last one does not name.
        """
        if self._slots.only_run is not None:
            await self._wait_for_new_work(None)
        while True:
            try:
                await self.publish("stopping" if self._slots.draining else "running")
            except StoreError as error:
                log.warning("%s; the next heartbeat of this worker is due in %.0f s", error, every_ms / 1_000)
                await asyncio.sleep(every_ms / 1_000)
            else:
                await self._wait_for_new_work(every_ms)

    async def _wait_for_new_work(self, timeout_ms: int | None) -> None:
        """Wait until a task has run for HELD_MS that the last heartbeat does not name, at most `timeout_ms`."""
        loop = asyncio.get_running_loop()
        end = None if timeout_ms is None else loop.time() + timeout_ms / 1_000
        while end is None or loop.time() < end:
            left_s = None if end is None else max(end - loop.time(), 0.001)
            if not self._slots.running:
                self._slots.started.clear()
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._slots.started.wait(), left_s)
                continue
            await asyncio.sleep(LOOK_S if left_s is None else min(LOOK_S, left_s))
            if any((one.key, one.token) not in self._named for one in self._held(self._slots.running.values())):
                return

    def _held(self, running: Iterable[Running]) -> tuple[HeldTask, ...]:
        """What has run for HELD_MS, the longest first."""
        before_ms = self._store.now_ms() - HELD_MS
        old = sorted((one for one in running if one.started_at_ms <= before_ms), key=lambda one: one.started_at_ms)
        return tuple(
            HeldTask(
                one.node.run, one.node.path, one.node.delivery, one.context.name if one.context is not None else "",
                one.node.queue, one.started_at_ms,
            )
            for one in old[:MOST_HELD]
        )  # fmt: skip

    async def publish(self, state: Literal["running", "stopping", "stopped"]) -> None:
        """Store one heartbeat, and the declarations of the tasks if they are new or due. Raises StoreError."""
        store, slots, now_ms = self._store, self._slots, self._store.now_ms()
        if len(self.tasks) != len(self._registry) or self._epoch != store.epoch:
            self._epoch = store.epoch
            self.tasks, self._published_at_ms = declared_by(self._registry), None
            self.digest = digest_of(self.tasks)
        if self._published_at_ms is None or now_ms - self._published_at_ms >= PUBLISH_EVERY_MS:
            await publish(store, self.digest, self.tasks, self._trust)
            self._published_at_ms = now_ms
        holds, disowned = self._held(slots.running.values()), self._held(slots.leaked.values())
        heartbeat = Heartbeat(
            name=self.name, host=platform.node(), pid=os.getpid(), state=state, queues=slots.queues,
            concurrency=slots.concurrency, running=len(slots.running), started_at_ms=self.started_at_ms,
            at_ms=now_ms, declares=self.digest, only_run=slots.only_run, holds=holds, disowned=disowned,
            controls=slots.controls.digest, on_hold=slots.on_hold,
        )  # fmt: skip
        kept_ms = max(self.unroutable_after_ms, SILENT_AFTER_MS) + HEARTBEAT_MS
        await store.put_hint(TOPIC, slots.owner, json.encode(heartbeat), kept_ms)
        self._named = {(one.key, one.token) for one in holds}
        self.published = True

    async def unregistered(self, task: str, node: Node) -> Failed | HandedBack:
        """The outcome of an attempt at a task that is not registered here.

        It is handed back for another worker, and fails once no worker has declared it for `unroutable_after_ms`.
        """
        now_ms = self._store.now_ms()
        since_ms = max(self.started_at_ms, node.opened_at_ms, await self._last_declared_at_ms(task))
        left_ms = since_ms + self.unroutable_after_ms - now_ms
        if left_ms > 0:
            after_ms = min(UNKNOWN_TASK_DELAY_MS, left_ms)
            log.warning("task %s is not registered here; it is handed back for %d ms", task, after_ms)
            return HandedBack(after_ms)
        text = (
            f"task {task}: expected a worker that has registered it, found none for {self.unroutable_after_ms} ms; "
            "start one, then run it again"
        )
        error = ErrorInfo("UnregisteredTask", text, "stemflow.UnregisteredTask")
        return Failed(error, "final", dead="unregistered-task")

    async def _last_declared_at_ms(self, task: str) -> int:
        known = {digest for digest, one in (await published(self._store, self._trust)).items() if task in one.tasks}
        found = (await heartbeats(self._store)).values()
        return max((one.at_ms for one in found if one.declares in known), default=0)
