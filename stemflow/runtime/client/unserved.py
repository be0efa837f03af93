"""A warning for those who wait for a run that no worker will work on."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from stemflow.core.why import explain
from stemflow.errors import StemflowError
from stemflow.model.plan import LeafPlan
from stemflow.runtime.catalog.controls import read_controls
from stemflow.runtime.catalog.heartbeats import HEARTBEAT_MS
from stemflow.runtime.client.why import facts_of, worker_facts
from stemflow.runtime.values.library import Library
from stemflow.store.base import Store

log = logging.getLogger("stemflow.wait")

PATIENCE_S: Final = 5.0
"""How long somebody waits before the workers of the store are looked at."""

UNSERVED: Final = frozenset(("paused", "no-worker", "queue-unserved", "task-unregistered"))
"""The reasons that do not pass by themselves."""


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
        # Tasks that a worker registered late are declared with its next heartbeat. A worker that lacks a task may have
        # leased it for an instant just now.
        for pause_s in (HEARTBEAT_MS / 1_000, 1.0):
            if reason is None:
                await asyncio.sleep(pause_s)
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
    codes = UNSERVED if tasks else UNSERVED - {"task-unregistered"}
    if not await _may_be_unserved(store, library, run):
        return None  # without reading the records of the run, which may be many
    # A worker that lacks a task leases it, and returns it with a short delay.
    soon_ms = store.now_ms() + int(PATIENCE_S * 1_000)
    nodes = {node.path: node for node in await store.nodes(run)}
    for one in explain(await facts_of(store, library, nodes)):
        reason = next((reason for reason in one.reasons if reason.code in codes), None)
        if reason is not None and one.path in nodes and nodes[one.path].at_ms <= soon_ms:
            step = f" at {one.path}" if one.path else ""
            helps = "resumes it" if reason.code == "paused" else "starts one"
            return f"task {one.task}{step} is not started: {reason.text}; `{reason.advice} --store URL` {helps}"
    return None


async def _may_be_unserved(store: Store, library: Library, run: str) -> bool:
    """Whether something is paused or, of all tasks in the plan of the run, no worker leases one of them."""
    if (await read_controls(store, library.trust)).pauses:
        return True
    alive = [one for one in await worker_facts(store) if one.is_alive]
    shape = await library.shape((await library.header(run)).plan)
    leaves = [node for node in shape.nodes if isinstance(node, LeafPlan)]
    needed = {(leaf.task, shape.plan.options[leaf.options].queue) for leaf in leaves}
    return any(not any(one.serves(queue, run) and task in one.tasks for one in alive) for task, queue in needed)
