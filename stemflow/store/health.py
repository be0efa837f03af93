"""Health of a store: findings about its server or file, and counts of what is stored."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from msgspec import Struct

from stemflow.model.rates import Rate
from stemflow.model.records import Node
from stemflow.store.places import split

Level = Literal["ok", "warning", "error"]


class Finding(Struct, frozen=True):
    """The result of one check: its short name, a sentence, and the next step if something is wrong."""

    check: str
    level: Level
    text: str
    advice: str = ""


class HealthReport(Struct, frozen=True):
    """What was found out about a store from outside. Where it is not `usable`, it cannot be opened."""

    findings: tuple[Finding, ...]
    usable: bool = True


class LaneInventory(Struct, frozen=True, kw_only=True):
    """The ready leaves of one queue that share rate limits.

    `limit`: the one that admits no start now, until `admits_at_ms`; None: one of them may start.
    """

    limits: tuple[Rate, ...]
    ready: int
    limit: Rate | None = None
    admits_at_ms: int | None = None


class QueueInventory(Struct, frozen=True, kw_only=True):
    """Leaves of one queue in READY: those that may be leased, and those whose instant is to come.

    `oldest`: of those that may be leased the one that was created first; `next`: of the others the one that is due
    first. `lanes`: of the former those with rate limits, which may have to wait for them.
    """

    queue: str
    ready: int
    delayed: int
    oldest: Node | None = None
    next: Node | None = None
    lanes: tuple[LaneInventory, ...] = ()

    @property
    def limited(self) -> int:
        """How many of the ready ones wait for a rate limit."""
        return sum(lane.ready for lane in self.lanes if lane.limit is not None)


class Inventory(Struct, frozen=True, kw_only=True):
    """What is in a store. `late`: expired leases, and `late_since_ms` when the first of them expired.

    A server counts leaves by the entries of its queues: one that was stopped while it waited may be counted until a
    worker meets it.
    """

    queues: tuple[QueueInventory, ...]
    leased: int
    late: int
    late_since_ms: int | None
    overdue_since_ms: int | None
    """The instant of the first timer that is due."""
    letters: int
    runs: int
    """Runs that are kept, ended or not."""


def joined(parts: Sequence[Inventory]) -> Inventory:
    """The stock of a store by those of its partitions."""
    if len(parts) == 1:
        return parts[0]
    return Inventory(
        queues=by_queue([queue for one in parts for queue in one.queues]),
        leased=sum(one.leased for one in parts),
        late=sum(one.late for one in parts),
        late_since_ms=min((at for one in parts if (at := one.late_since_ms) is not None), default=None),
        overdue_since_ms=min((at for one in parts if (at := one.overdue_since_ms) is not None), default=None),
        letters=sum(one.letters for one in parts),
        runs=sum(one.runs for one in parts),
    )


def by_queue(places: Sequence[QueueInventory]) -> tuple[QueueInventory, ...]:
    """The stock of each queue by those of its places."""
    queues: dict[str, list[QueueInventory]] = {}
    for one in places:
        queues.setdefault(split(one.queue)[0], []).append(one)
    return tuple(_queue(name, queues[name]) for name in sorted(queues))


def _queue(name: str, parts: Sequence[QueueInventory]) -> QueueInventory:
    return QueueInventory(
        queue=name,
        ready=sum(one.ready for one in parts),
        delayed=sum(one.delayed for one in parts),
        oldest=min((one.oldest for one in parts if one.oldest is not None), key=lasts_since_ms, default=None),
        next=min((one.next for one in parts if one.next is not None), key=lambda node: node.at_ms, default=None),
        lanes=tuple(lane for one in parts for lane in one.lanes),
    )


def lasts_since_ms(node: Node) -> int:
    """Since when a leaf in READY may be leased."""
    return max(node.at_ms, node.opened_at_ms)
