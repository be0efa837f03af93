"""A warning for those who wait for a run that no worker will work on."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from stemflow.errors import StemflowError
from stemflow.model.plan import LeafPlan
from stemflow.model.records import READY, RUNNING
from stemflow.runtime.catalog.heartbeats import HEARTBEAT_MS, heartbeats
from stemflow.runtime.catalog.published import published
from stemflow.runtime.values.library import Library
from stemflow.store.base import Store

log = logging.getLogger("stemflow.wait")

PATIENCE_S: Final = 5.0
"""How long somebody waits before the workers of the store are looked at."""


@contextmanager
def warned_if_unserved(store: Store, library: Library, run: str) -> Iterator[None]:
    """While it is entered for more than PATIENCE_S seconds, log once why no worker works on the run, if none does."""
    loop = asyncio.get_running_loop()
    looking: list[asyncio.Task[None]] = []
    timer = loop.call_later(PATIENCE_S, lambda: looking.append(loop.create_task(_warn(store, library, run))))
    try:
        yield
    finally:
        timer.cancel()
        for task in looking:
            task.cancel()


async def _warn(store: Store, library: Library, run: str) -> None:
    try:
        reason = await unserved(store, library, run, tasks=False)
        if reason is None:
            # Tasks that a worker registered late are declared with its next heartbeat.
            await asyncio.sleep(HEARTBEAT_MS / 1_000)
            reason = await unserved(store, library, run, tasks=True)
    except StemflowError as error:
        log.debug("run %s: cannot tell whether a worker serves it: %s", run, error)
        return
    if reason is not None:
        log.warning("run %s waits: %s", run, reason, extra={"run_id": run})


async def unserved(store: Store, library: Library, run: str, *, tasks: bool) -> str | None:
    """Why no worker will run a task of the run that is ready, and what to do; None where a worker serves each of them.

    `tasks`: whether a worker must also have declared the task, not only serve its queue.
    """
    now_ms = store.now_ms()
    alive = [beat for beat in (await heartbeats(store)).values() if beat.alive(now_ms)]
    declared = {digest: one.tasks for digest, one in (await published(store)).items()}

    def problem(task: str, queue: str) -> str | None:
        serving = [beat for beat in alive if beat.serves(queue)]
        if not alive:
            return "no worker runs on this store; start one with `stemflow worker --tasks MODULE --store URL`"
        if not serving:
            return f"no worker serves queue {queue!r} of task {task}; start one with `stemflow worker --queues {queue}`"
        if tasks and not any(task in declared.get(beat.declares, ()) for beat in serving):
            return f"no worker of queue {queue!r} has task {task}; start one whose --tasks has it"
        return None

    shape = await library.shape((await library.header(run)).plan)
    leaves = [node for node in shape.nodes if isinstance(node, LeafPlan)]
    needed = {(leaf.task, shape.plan.options[leaf.options].queue) for leaf in leaves}
    if not any(problem(task, queue) for task, queue in needed):
        return None  # without reading the records of the run, which may be many
    # A worker that lacks a task leases it, and returns it with a short delay.
    soon_ms = now_ms + int(PATIENCE_S * 1_000)
    for node in await store.nodes(run):
        if node.state in (READY, RUNNING) and node.tally is None and node.at_ms <= soon_ms:
            leaf = (await library.shape(node.plan)).nodes[node.node]
            found = problem(leaf.task, node.queue) if isinstance(leaf, LeafPlan) else None
            if found is not None:
                return found
    return None
