"""What is in a store in memory, by looking at every record."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence

from stemflow.model.leaf_status import LeafStatus
from stemflow.model.records import READY, Key, Node, Record
from stemflow.store.health import QueueInventory
from stemflow.store.index_rules import level_of
from stemflow.store.memory.renewer import Held
from stemflow.store.rate_windows import Past, Windows, lanes_of


def queues_of(
    records: Mapping[Key, Record], order: Mapping[Key, int], past: Callable[[str], Past | None], now_ms: int
) -> tuple[QueueInventory, ...]:
    """Leaves that wait for a worker, by queue."""
    waiting = [node for node in records.values() if isinstance(node, Node) and node.state == READY]
    windows = Windows(now_ms, past)
    by_queue: dict[str, list[Node]] = {}
    for node in waiting:
        by_queue.setdefault(node.queue, []).append(node)
    return tuple(_queue(name, by_queue[name], order, windows, now_ms) for name in sorted(by_queue))


def _queue(
    name: str, waiting: Iterable[Node], order: Mapping[Key, int], windows: Windows, now_ms: int
) -> QueueInventory:
    some = list(waiting)
    ready = [node for node in some if node.at_ms <= now_ms]
    delayed = [node for node in some if node.at_ms > now_ms]
    oldest = min(ready, key=lambda node: order[node.key], default=None)
    first = min(delayed, key=lambda node: (node.at_ms, order[node.key]), default=None)
    lanes = lanes_of(Counter(node.limits for node in ready), windows)
    return QueueInventory(queue=name, ready=len(ready), delayed=len(delayed), oldest=oldest, next=first, lanes=lanes)


def leaf_status(
    keys: Sequence[Key],
    records: Mapping[Key, Record],
    order: Mapping[Key, int],
    leases: Mapping[Key, Held],
    past: Callable[[str], Past | None],
    now_ms: int,
) -> list[LeafStatus | None]:
    """See `Store.leaf_status`."""
    wanted = [records.get(key) for key in keys]
    ready: list[Node] = []
    if any(isinstance(one, Node) and _is_ready(one, now_ms) for one in wanted):
        ready = [one for one in records.values() if isinstance(one, Node) and _is_ready(one, now_ms)]
    windows = Windows(now_ms, past)

    def status(node: Node) -> LeafStatus:
        held = leases.get(node.key)
        if not _is_ready(node, now_ms):
            return LeafStatus(lease_until_ms=held.until_ms if held is not None else None)
        rank = (-level_of(node), order[node.key])
        ahead = sum(
            (-level_of(one), order[one.key]) < rank
            for one in ready
            if one.queue == node.queue and one.limits == node.limits
        )
        limit, admits_at_ms = windows.closed(node.limits) or (None, None)
        return LeafStatus(ahead=ahead, limit=limit, admits_at_ms=admits_at_ms)

    return [status(one) if isinstance(one, Node) else None for one in wanted]


def _is_ready(node: Node, now_ms: int) -> bool:
    return node.state == READY and node.at_ms <= now_ms and (node.due_at_ms is None or node.due_at_ms > now_ms)
