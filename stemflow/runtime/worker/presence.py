"""The presence of workers: each tells the store that it lives, what it serves and which tasks it knows."""

from __future__ import annotations

import asyncio
import logging
import os
import platform
from typing import Literal

from msgspec import Struct, json

from stemflow.model.facts import Failed, HandedBack
from stemflow.model.records import ErrorInfo, Node
from stemflow.runtime.attempt.runner import UNKNOWN_TASK_DELAY_MS
from stemflow.runtime.catalog.published import Declaration, declared_by, digest_of, publish, published
from stemflow.runtime.worker.worker import Worker
from stemflow.store.base import Store, StoreError

log = logging.getLogger("stemflow.presence")

TOPIC = "workers"
BEAT_MS = 5_000
SILENT_AFTER_MS = 3 * BEAT_MS
"""A worker that has not told of itself for this long is taken for dead."""
UNROUTABLE_AFTER_MS = 60_000
PUBLISH_EVERY_MS = 3_600_000


class Beat(Struct, frozen=True, kw_only=True):
    """What a worker last told of itself. `declares` is the digest of its declarations."""

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

    def alive(self, now_ms: int) -> bool:
        return self.state != "stopped" and now_ms - self.at_ms < SILENT_AFTER_MS


_beat = json.Decoder(Beat)


async def beats(store: Store) -> dict[str, Beat]:
    """What workers last told, by owner; also of those that have stopped or fallen silent a short while ago."""
    return {owner: _beat.decode(body) for owner, body in (await store.hints(TOPIC)).items()}


class Presence:
    """Tells of one worker, and knows whether anybody serves a task that this worker lacks."""

    def __init__(self, worker: Worker, name: str | None, unroutable_after_ms: int) -> None:
        self.worker = worker
        self.name = name or f"{platform.node()}-{os.getpid()}"
        self.unroutable_after_ms = unroutable_after_ms
        self.tasks: dict[str, Declaration] = {}
        self.digest = ""
        self.started_at_ms = 0
        self._published_at_ms: int | None = None
        self._epoch = worker.store.epoch

    def begin(self) -> None:
        """The worker starts now, on the clock of a store that is open: before, a server's time is not known."""
        self.started_at_ms = self.worker.store.now_ms()

    async def run(self, every_ms: int = BEAT_MS) -> None:
        """Tell at once, then every `every_ms`; a store that cannot be reached is tried again at the next beat."""
        while True:
            try:
                await self.tell("stopping" if self.worker.draining else "running")
            except StoreError as error:
                log.warning("%s; this worker tells of itself again in %.0f s", error, every_ms / 1_000)
            await asyncio.sleep(every_ms / 1_000)

    async def tell(self, state: Literal["running", "stopping", "stopped"]) -> None:
        worker, now_ms = self.worker, self.worker.store.now_ms()
        if len(self.tasks) != len(worker.registry) or self._epoch != worker.store.epoch:
            self._epoch = worker.store.epoch
            self.tasks, self._published_at_ms = declared_by(worker.registry), None
            self.digest = digest_of(self.tasks)
        if self._published_at_ms is None or now_ms - self._published_at_ms >= PUBLISH_EVERY_MS:
            await publish(worker.store, self.digest, self.tasks)
            self._published_at_ms = now_ms
        beat = Beat(
            name=self.name, host=platform.node(), pid=os.getpid(), state=state, queues=worker.queues,
            concurrency=worker.concurrency, running=len(worker.running), started_at_ms=self.started_at_ms,
            at_ms=now_ms, declares=self.digest,
        )  # fmt: skip
        kept_ms = max(self.unroutable_after_ms, SILENT_AFTER_MS) + BEAT_MS
        await worker.store.put_hint(TOPIC, worker.owner, json.encode(beat), kept_ms)

    async def without(self, task: str, node: Node) -> Failed | HandedBack:
        """The outcome of an attempt at a task that is not registered here: back for another worker, until none has
        declared it for so long that nobody will."""
        now_ms = self.worker.store.now_ms()
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
        known = {digest for digest, one in (await published(self.worker.store)).items() if task in one.tasks}
        told = (await beats(self.worker.store)).values()
        return max((beat.at_ms for beat in told if beat.declares in known), default=0)
