"""Diagnosis of a store: its durability, its workers, and work that does not move."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from msgspec import Struct

from stemflow.model.plan import LeafPlan
from stemflow.model.records import Node, task_id
from stemflow.ports import Clock
from stemflow.runtime.catalog.heartbeats import Heartbeat, heartbeats
from stemflow.runtime.catalog.published import published
from stemflow.store.base import Store, StoreError
from stemflow.store.health import Finding, Inventory, Level, QueueInventory, lasts_since_ms
from stemflow.store.open import open_store
from stemflow.units import format_duration

OFFSET_MS: Final = 1_000
"""The difference between two clocks that is reported."""
LATE_MS: Final = 15_000
"""Any worker takes over lost leases, and handles timers that are due, within this time."""
WAITING_MS: Final = 300_000
"""A task that is READY for so long is reported, unless its rate is limited."""


class Diagnosis(Struct, frozen=True):
    """The findings about a store; `url` is without its password."""

    url: str
    findings: tuple[Finding, ...]

    @property
    def level(self) -> Level:
        """The worst of them."""
        levels = {one.level for one in self.findings}
        return "error" if "error" in levels else "warning" if "warning" in levels else "ok"


async def diagnose(url: str, clock: Clock) -> Diagnosis:
    """All findings about the store at `url`. Raises StoreError when it cannot be reached."""
    store = open_store(url, clock)
    examined = await store.check_health()
    inside = await _opened(store, clock) if examined.usable else []
    return Diagnosis(store.url, (*examined.findings, *inside))


async def _opened(store: Store, clock: Clock) -> list[Finding]:
    try:
        await store.open()
        try:
            return await _inside(store, clock)
        finally:
            await store.close()
    except StoreError as error:
        return [Finding("store", "error", str(error), "no command can use this store as it is")]


async def _inside(store: Store, clock: Clock) -> list[Finding]:
    inventory, found = await store.inventory(), await heartbeats(store)
    now_ms, here_ms = store.now_ms(), clock.now_ms()
    alive = [beat for beat in found.values() if beat.alive(now_ms)]
    return [
        clocks(now_ms, here_ms),
        workers(found.values(), now_ms),
        *queues(inventory.queues, alive, now_ms),
        *await _unroutable(store, inventory.queues, alive),
        leases(inventory, now_ms),
        timers(inventory, now_ms),
        letters(inventory),
        Finding("runs", "ok", f"{_many(inventory.runs, 'run')} kept"),
    ]


def clocks(now_ms: int, here_ms: int) -> Finding:
    offset = here_ms - now_ms
    if abs(offset) < OFFSET_MS:
        return Finding("clock", "ok", f"this machine's clock and the store's are {abs(offset)} ms apart")
    side = "ahead of" if offset > 0 else "behind"
    text = f"this machine's clock is {_about(abs(offset))} {side} the store's"
    return Finding("clock", "warning", text, "run NTP on both: `eta` and `expires` use the submitter's clock")


def workers(found: Iterable[Heartbeat], now_ms: int) -> Finding:
    alive = [beat for beat in found if beat.alive(now_ms)]
    silent = sum(beat.state != "stopped" and not beat.alive(now_ms) for beat in found)
    text = f"{_many(len(alive), 'worker')} alive" + (f", {silent} fell silent a short while ago" if silent else "")
    if silent:
        return Finding("workers", "warning", text, "`stemflow workers` names them; their tasks are taken over")
    return Finding("workers", "ok", text)


def queues(inventories: Iterable[QueueInventory], alive: Iterable[Heartbeat], now_ms: int) -> list[Finding]:
    """One finding for each queue that has tasks."""
    found = [_queue(one, any(beat.serves(one.queue) for beat in alive), now_ms) for one in inventories]
    return found or [Finding("queues", "ok", "nothing waits in any queue")]


def _queue(queue: QueueInventory, served: bool, now_ms: int) -> Finding:
    text = f"queue {queue.queue}: {queue.ready} ready, {queue.delayed} delayed"
    oldest = queue.oldest
    if oldest is not None:
        waits_ms = max(0, now_ms - lasts_since_ms(oldest))
        text += f", the oldest ready task waits for {_about(waits_ms)}"
    if not served:
        advice = f"`stemflow worker --queues {queue.queue} --tasks MODULE --store URL`"
        return Finding("queues", "warning", f"{text}, and no worker serves it", advice)
    if oldest is not None and waits_ms > WAITING_MS and not oldest.limits:
        advice = f"look at `stemflow show {oldest.run}`; start more workers, or give them more --concurrency"
        return Finding("queues", "warning", text, advice)
    return Finding("queues", "ok", text)


async def _unroutable(store: Store, inventories: Iterable[QueueInventory], alive: Iterable[Heartbeat]) -> list[Finding]:
    """Served queues whose oldest task, or the one due next, none of their workers has declared."""
    declared = await published(store)
    known: Mapping[str, set[str]] = {digest: set(one.tasks) for digest, one in declared.items()}
    served = [beat for beat in alive if beat.declares in known]
    found = []
    for one in inventories:
        here = [beat for beat in served if beat.serves(one.queue)]
        for node in (one.oldest, one.next) if here else ():
            task = None if node is None else await _task_of(store, node)
            if node is not None and task is not None and not any(task in known[beat.declares] for beat in here):
                text = f"queue {one.queue}: none of its workers has declared task {task} ({task_id(node.key)})"
                found.append(Finding("unroutable", "warning", text, "start a worker whose --tasks has it"))
    return found


async def _task_of(store: Store, node: Node) -> str | None:
    plan = await store.plan(node.plan)
    leaf = plan.nodes[node.node] if plan is not None else None
    return leaf.task if isinstance(leaf, LeafPlan) else None


def leases(inventory: Inventory, now_ms: int) -> Finding:
    text = f"{_many(inventory.leased, 'task')} leased"
    if inventory.late_since_ms is None:
        return Finding("leases", "ok", text)
    since_ms = now_ms - inventory.late_since_ms
    text += f", {inventory.late} of them are lost, the first for {_about(since_ms)}"
    if since_ms <= LATE_MS:
        return Finding("leases", "ok", f"{text}; a worker takes them over")
    return Finding("leases", "warning", text, "any worker of this store takes them over: start one")


def timers(inventory: Inventory, now_ms: int) -> Finding:
    if inventory.overdue_since_ms is None or now_ms - inventory.overdue_since_ms <= LATE_MS:
        return Finding("timers", "ok", "no timer is late")
    text = f"a timer (a wait, a time limit, an expiry) is late by {_about(now_ms - inventory.overdue_since_ms)}"
    return Finding("timers", "warning", text, "any worker of this store sees to it: start one")


def letters(inventory: Inventory) -> Finding:
    if not inventory.letters:
        return Finding("dead-letters", "ok", "no dead letters")
    return Finding("dead-letters", "warning", _many(inventory.letters, "dead letter"), "`stemflow dlq list` shows them")


def _about(ms: int) -> str:
    """A duration, to the second."""
    return format_duration(max(ms // 1_000, 0) * 1_000)


def _many(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"
