"""How a store fares: what can be found out about it, and what stands still in it."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from stemflow.model.records import Node

Level = Literal["ok", "warning", "error"]


class Finding(Struct, frozen=True):
    """One thing that was looked at: a short name of it, a sentence, and the next step where something is amiss."""

    check: str
    level: Level
    text: str
    advice: str = ""


class Examination(Struct, frozen=True):
    """What was found out about a store from outside. Where it is not `usable`, it cannot be opened."""

    findings: tuple[Finding, ...]
    usable: bool = True


class QueueStock(Struct, frozen=True, kw_only=True):
    """Leaves of one queue in READY: those that may be leased, and those whose instant is to come.

    `oldest`: of those that may be leased the one that was created first; `next`: of the others the one that is due
    first.
    """

    queue: str
    ready: int
    delayed: int
    oldest: Node | None = None
    next: Node | None = None


class Stock(Struct, frozen=True, kw_only=True):
    """What is in a store. `late`: leases that are past their time, and `late_since_ms` when the first of them ended.

    A server counts leaves by the entries of its queues: one that was stopped while it waited may be counted until a
    worker meets it.
    """

    queues: tuple[QueueStock, ...]
    leased: int
    late: int
    late_since_ms: int | None
    overdue_since_ms: int | None
    """The instant of the first timer that is due."""
    letters: int
    runs: int
    """Runs that are kept, ended or not."""


def lasts_since_ms(node: Node) -> int:
    """Since when a leaf in READY may be leased."""
    return max(node.at_ms, node.opened_at_ms)
