"""A diagnosis of a store: how safe what is in it is, who works on it, and what stands still."""

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
"""How far two clocks may be apart before it is worth a word."""
LATE_MS: Final = 15_000
"""Leases that are lost, and timers that are due, are seen to by any worker within this time."""
WAITING_MS: Final = 300_000
"""A task that is ready and is not taken for so long waits too long, unless its rate is limited."""


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
    stock, told = await store.inventory(), await heartbeats(store)
    now_ms, here_ms = store.now_ms(), clock.now_ms()
    alive = [beat for beat in told.values() if beat.alive(now_ms)]
    return [
        clocks(now_ms, here_ms),
        workers(told.values(), now_ms),
        *queues(stock.queues, alive, now_ms),
        *await _unroutable(store, stock.queues, alive),
        leases(stock, now_ms),
        timers(stock, now_ms),
        letters(stock),
        Finding("runs", "ok", f"{_many(stock.runs, 'run')} kept"),
    ]


def clocks(now_ms: int, here_ms: int) -> Finding:
    offset = here_ms - now_ms
    if abs(offset) < OFFSET_MS:
        return Finding("clock", "ok", f"this machine's clock and the store's are {abs(offset)} ms apart")
    side = "ahead of" if offset > 0 else "behind"
    text = f"this machine's clock is {_about(abs(offset))} {side} the store's"
    return Finding("clock", "warning", text, "run NTP on both: who submits gives `eta` and `expires`")


def workers(told: Iterable[Heartbeat], now_ms: int) -> Finding:
    alive = [beat for beat in told if beat.alive(now_ms)]
    silent = sum(beat.state != "stopped" and not beat.alive(now_ms) for beat in told)
    text = f"{_many(len(alive), 'worker')} alive" + (f", {silent} fell silent a short while ago" if silent else "")
    if silent:
        return Finding("workers", "warning", text, "`stemflow workers` names them; their tasks are taken over")
    return Finding("workers", "ok", text)


def queues(stock: Iterable[QueueInventory], alive: Iterable[Heartbeat], now_ms: int) -> list[Finding]:
    """One finding a queue in which something waits."""
    found = [_queue(one, any(beat.serves(one.queue) for beat in alive), now_ms) for one in stock]
    return found or [Finding("queues", "ok", "nothing waits in any queue")]


def _queue(stock: QueueInventory, served: bool, now_ms: int) -> Finding:
    text = f"queue {stock.queue}: {stock.ready} ready, {stock.delayed} delayed"
    oldest = stock.oldest
    if oldest is not None:
        waits_ms = max(0, now_ms - lasts_since_ms(oldest))
        text += f", the oldest ready task waits for {_about(waits_ms)}"
    if not served:
        advice = f"`stemflow worker --queues {stock.queue} --tasks MODULE --store URL`"
        return Finding("queues", "warning", f"{text}, and no worker serves it", advice)
    if oldest is not None and waits_ms > WAITING_MS and not oldest.limits:
        advice = f"look at `stemflow show {oldest.run}`; start more workers, or give them more --concurrency"
        return Finding("queues", "warning", text, advice)
    return Finding("queues", "ok", text)


async def _unroutable(store: Store, stock: Iterable[QueueInventory], alive: Iterable[Heartbeat]) -> list[Finding]:
    """Queues that are served, but whose oldest task, or that due next, none of their workers has declared."""
    declared = await published(store)
    known: Mapping[str, set[str]] = {digest: set(one.tasks) for digest, one in declared.items()}
    served = [beat for beat in alive if beat.declares in known]
    found = []
    for one in stock:
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


def leases(stock: Inventory, now_ms: int) -> Finding:
    text = f"{_many(stock.leased, 'task')} leased"
    if stock.late_since_ms is None:
        return Finding("leases", "ok", text)
    since_ms = now_ms - stock.late_since_ms
    text += f", {stock.late} of them are lost, the first for {_about(since_ms)}"
    if since_ms <= LATE_MS:
        return Finding("leases", "ok", f"{text}; a worker takes them over")
    return Finding("leases", "warning", text, "any worker of this store takes them over: start one")


def timers(stock: Inventory, now_ms: int) -> Finding:
    if stock.overdue_since_ms is None or now_ms - stock.overdue_since_ms <= LATE_MS:
        return Finding("timers", "ok", "no timer is late")
    text = f"a timer (a wait, a time limit, an expiry) is late by {_about(now_ms - stock.overdue_since_ms)}"
    return Finding("timers", "warning", text, "any worker of this store sees to it: start one")


def letters(stock: Inventory) -> Finding:
    if not stock.letters:
        return Finding("dead-letters", "ok", "no dead letters")
    return Finding("dead-letters", "warning", _many(stock.letters, "dead letter"), "`stemflow dlq list` shows them")


def _about(ms: int) -> str:
    """A duration to the second."""
    return format_duration(max(ms // 1_000, 0) * 1_000)


def _many(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"
