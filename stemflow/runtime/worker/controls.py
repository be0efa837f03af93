"""A worker and what operators want of it: it looks each second, applies it, and says so in its heartbeat."""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from stemflow.model.pause import Pause, pauses_of
from stemflow.model.records import Node
from stemflow.runtime.catalog.controls import DUMP_MS, DUMPS, LOOK_MS, WorkerOrder, read_controls
from stemflow.runtime.values.library import Library
from stemflow.runtime.worker.dump import dump_of
from stemflow.runtime.worker.presence import Presence
from stemflow.runtime.worker.slots import Slots
from stemflow.store.base import StoreError

log = logging.getLogger("stemflow.worker")

SHORTEST_MS: Final = 1_000
LONGEST_MS: Final = 60_000
"""How long a task of a pause is given back for: as long as the pause has lasted, between these two."""


class Obedience:
    """Reads what is wanted and applies it to the slots of one worker."""

    def __init__(self, slots: Slots, library: Library, presence: Presence) -> None:
        self._slots, self._library, self._presence = slots, library, presence
        self._store = slots.store
        self._dumped = ""
        """The id of the request for stacks that was answered last."""

    async def begin(self) -> None:
        """Read what is wanted before the first lease. A store that cannot be read now is read again by `watch`."""
        try:
            await self._look()
        except StoreError as error:
            log.warning("%s; pauses are looked for again in %.0f s", error, LOOK_MS / 1_000)

    async def watch(self) -> None:
        """Look each LOOK_MS; after a change store a heartbeat, which names what was applied."""
        while True:
            await asyncio.sleep(LOOK_MS / 1_000)
            try:
                if await self._look() and self._presence.published:
                    await self._presence.publish("stopping" if self._slots.draining else "running")
            except StoreError as error:
                log.warning("%s; pauses are looked for again in %.0f s", error, LOOK_MS / 1_000)

    async def _look(self) -> bool:
        """Whether something has changed."""
        slots, before = self._slots, self._slots.controls
        found = await read_controls(self._store, self._library.trust)
        changed = found != before
        if changed:
            for pause in set(found.pauses) - set(before.pauses):
                log.info("%s is paused%s: nothing of it starts here", pause.target, _why(pause))
            for pause in set(before.pauses) - set(found.pauses):
                log.info("%s is no longer paused", pause.target)
            slots.obey(found, found.orders.get(self._presence.name, WorkerOrder()))
        asked = found.dumps.get(self._presence.name)
        if asked is not None and asked != self._dumped:
            text = dump_of(slots.running.values(), self._store.now_ms())
            await self._store.put_hint(DUMPS, f"{asked}/{slots.owner}", text.encode(), DUMP_MS)
            self._dumped = asked
        return changed

    async def paused_ms(self, node: Node, task: str) -> int | None:
        """For how long a task that was leased is given back, since it is paused; None where it is not."""
        controls = self._slots.controls
        if not controls.pauses:
            return None
        now_ms = self._store.now_ms()
        workflow = (await self._library.header(node.run)).name
        found = pauses_of(controls.pauses, node.queue, task, workflow, now_ms)
        if not found:
            return None
        lasted_ms = min(max(now_ms - found[0].at_ms, SHORTEST_MS), LONGEST_MS)
        return lasted_ms if found[0].until_ms is None else max(1, min(lasted_ms, found[0].until_ms - now_ms))


def _why(pause: Pause) -> str:
    return (f" by {pause.by}" if pause.by else "") + (f" ({pause.reason})" if pause.reason else "")
