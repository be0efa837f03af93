"""What is in a store in memory, by looking at every record."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from stemflow.model.records import READY, Key, Node, Record
from stemflow.store.health import QueueInventory


def queues_of(records: Mapping[Key, Record], order: Mapping[Key, int], now_ms: int) -> tuple[QueueInventory, ...]:
    """Leaves that wait for a worker, by queue."""
    waiting = [node for node in records.values() if isinstance(node, Node) and node.state == READY]
    names = sorted({node.queue for node in waiting})
    return tuple(_queue(name, [node for node in waiting if node.queue == name], order, now_ms) for name in names)


def _queue(name: str, waiting: Iterable[Node], order: Mapping[Key, int], now_ms: int) -> QueueInventory:
    some = list(waiting)
    ready = [node for node in some if node.at_ms <= now_ms]
    delayed = [node for node in some if node.at_ms > now_ms]
    oldest = min(ready, key=lambda node: order[node.key], default=None)
    first = min(delayed, key=lambda node: (node.at_ms, order[node.key]), default=None)
    return QueueInventory(queue=name, ready=len(ready), delayed=len(delayed), oldest=oldest, next=first)
