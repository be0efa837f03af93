"""Jumps over virtual time in which no task can run, so that long waits cost no periodic work."""

from __future__ import annotations

import asyncio
import heapq

from stemflow.model.records import FINAL, READY, RUNNING, STOPPING, Node
from stemflow.store.base import Store
from stemflow.store.memory.store import MemoryStore
from stemflow.testing.simulation.virtual_loop import EPOCH_MS, VirtualLoop


class IdleTime:
    """Tells a virtual loop when the next task, timer or pause is due, while nothing runs.

    Args:
        loop: The loop. It asks whenever nothing in it can run.
        store: A MemoryStore, whose records are read.
    """

    def __init__(self, loop: VirtualLoop, store: Store) -> None:
        assert isinstance(store, MemoryStore)
        self._loop, self._store = loop, store
        self._pauses_ms: list[int] = []
        loop.jump_to(self._next_event_ms)

    def stop(self) -> None:
        """Let time pass by the loop's own timers again."""
        self._loop.jump_to(None)

    async def pause(self, delay_ms: int) -> None:
        """Wait; no jump passes over the end."""
        until_ms = self._loop.elapsed_ms() + delay_ms
        heapq.heappush(self._pauses_ms, until_ms)
        await asyncio.sleep(delay_ms / 1_000)
        self._pauses_ms.remove(until_ms)
        heapq.heapify(self._pauses_ms)

    def _next_event_ms(self) -> int | None:
        """The next instant at which something happens; None where a task runs or could start now."""
        now_ms = EPOCH_MS + self._loop.elapsed_ms()
        due = [at + EPOCH_MS for at in self._pauses_ms[:1]]
        for record in self._store.records():
            if not isinstance(record, Node) or record.state in FINAL:
                continue
            if record.tally is None and (record.state in (RUNNING, STOPPING) or _may_start(record, now_ms)):
                return None
            if record.due_at_ms is not None:
                due.append(record.due_at_ms)
            if record.state == READY:
                due.append(record.at_ms)
        first = min(due, default=now_ms)
        return first - EPOCH_MS if first > now_ms else None


def _may_start(node: Node, now_ms: int) -> bool:
    """Whether a worker could lease the task now."""
    return node.state == READY and node.at_ms <= now_ms
