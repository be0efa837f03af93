"""What a store is busy with, by queue and by key: what an operator asks first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final, Literal

from msgspec import Struct

from stemflow.model.pause import Pause
from stemflow.model.records import NO_RUN, Claim, Key, Node
from stemflow.runtime.catalog.controls import read_controls
from stemflow.runtime.catalog.heartbeats import Heartbeat, heartbeats, holders
from stemflow.runtime.payloads.signing import Trust
from stemflow.store.base import Store
from stemflow.store.health import QueueInventory, lasts_since_ms

MOST_LEASED: Final = 10_000
"""So many leases are read to count what runs."""

KeyKind = Literal["unique", "concurrency", "rate"]


class QueueOverview(Struct, frozen=True, kw_only=True):
    """One queue. `limited`: how many of the `ready` tasks wait for a rate limit; `oldest_since_ms`: since when (epoch
    ms) the oldest ready task could have started; `next_at_ms`: when the next delayed one may; `workers`: the names of
    those that serve it; `paused`: nothing of it starts."""

    queue: str
    ready: int
    limited: int
    running: int
    delayed: int
    workers: tuple[str, ...]
    oldest: Key | None = None
    oldest_since_ms: int | None = None
    next_at_ms: int | None = None
    paused: Pause | None = None


class KeyHolder(Struct, frozen=True, kw_only=True):
    """A node that holds a key, with the worker that runs it, if it is a task that a worker has reported."""

    key: Key
    state: str | None
    worker: str | None = None
    since_ms: int | None = None


class KeyOverview(Struct, frozen=True, kw_only=True):
    """A unique key, a concurrency key, or a set of rate limits in one queue for which tasks are ready.

    `waiting`: nodes that wait for their turn, the next one first (of a rate limit only their number is known).
    `sharing`: how many will end with the outcome of a holder. `until_ms`: when a window or a rate limit opens.
    """

    kind: KeyKind
    key: str
    limit: int
    per_ms: int | None = None
    holders: tuple[KeyHolder, ...] = ()
    waiting: tuple[Key, ...] = ()
    waiting_count: int = 0
    sharing: int = 0
    queue: str | None = None
    until_ms: int | None = None


async def queues(store: Store, trust: Trust | None = None) -> list[QueueOverview]:
    """Every queue that holds a task, that a live worker serves by name, or that is paused, in alphabetical order.

    With keys in `trust`, pauses without a valid signature are left out, as workers do.
    """
    controls = await read_controls(store, trust or Trust())
    paused = {one.name: one for one in controls.pauses if one.kind == "queue"}
    inventories = {one.queue: one for one in (await store.inventory()).queues}
    running = Counter(lease.node.queue for lease in await store.leased(MOST_LEASED))
    now_ms = store.now_ms()
    alive = [one for one in (await heartbeats(store)).values() if one.alive(now_ms) and one.only_run is None]
    served = {name for one in alive for name in one.queues or ()}
    return [
        _queue(
            inventories.get(name) or QueueInventory(queue=name, ready=0, delayed=0), running[name], alive,
            paused.get(name),
        )
        for name in sorted({*inventories, *running, *served, *paused})
    ]


def _queue(
    found: QueueInventory, running: int, alive: Sequence[Heartbeat], paused: Pause | None
) -> QueueOverview:
    return QueueOverview(
        queue=found.queue, ready=found.ready, limited=found.limited, running=running, delayed=found.delayed,
        workers=tuple(sorted(one.name for one in alive if one.serves(found.queue))),
        oldest=None if found.oldest is None else found.oldest.key,
        oldest_since_ms=None if found.oldest is None else lasts_since_ms(found.oldest),
        next_at_ms=None if found.next is None else found.next.at_ms, paused=paused,
    )  # fmt: skip


async def rate_keys(store: Store) -> list[KeyOverview]:
    """Rate limits for which tasks are ready, those that keep tasks waiting with the instant at which they open."""
    found = []
    for queue in (await store.inventory()).queues:
        for lane in queue.lanes:
            limit = lane.limit or lane.limits[0]
            found.append(
                KeyOverview(
                    kind="rate", key=limit.key, limit=limit.limit, per_ms=limit.per_ms, queue=queue.queue,
                    waiting_count=lane.ready, until_ms=lane.admits_at_ms,
                )
            )  # fmt: skip
    return sorted(found, key=lambda one: (one.key, one.queue or ""))


async def claim_keys(store: Store, limit: int, after: str = "") -> list[KeyOverview]:
    """Unique and concurrency keys that a node holds or waits for, in the order of the keys; see `Store.claims`."""
    return await _overviews(store, await store.claims(limit, after))


async def key_overview(store: Store, key: str) -> KeyOverview | None:
    """One unique or concurrency key, also if it is only the window over a holder that has ended."""
    (claim,) = await store.read([(NO_RUN, key)])
    return (await _overviews(store, [claim]))[0] if isinstance(claim, Claim) else None


async def _overviews(store: Store, claims: Sequence[Claim]) -> list[KeyOverview]:
    keys = sorted({key for claim in claims for key in claim.holders})
    nodes = {one.key: one for one in await store.read(keys) if isinstance(one, Node)}
    holding = await holders(store) if nodes else {}
    return [
        KeyOverview(
            kind="concurrency" if _is_concurrency(claim, nodes) else "unique", key=claim.key, limit=claim.limit,
            holders=tuple(_holder(key, nodes.get(key), holding) for key in claim.holders), waiting=claim.waiters,
            waiting_count=len(claim.waiters), sharing=len(claim.sharers), until_ms=claim.until_ms,
        )
        for claim in claims
    ]  # fmt: skip


def _is_concurrency(claim: Claim, nodes: dict[Key, Node]) -> bool:
    holders: Iterable[Node | None] = (nodes.get(key) for key in claim.holders)
    return claim.limit > 1 or any(one is not None and one.slot == claim.key for one in holders)


def _holder(key: Key, node: Node | None, holding: dict[tuple[Key, int], tuple[str, int]]) -> KeyHolder:
    worker, since_ms = (None, None) if node is None else holding.get((key, node.delivery), (None, None))
    return KeyHolder(key=key, state=None if node is None else node.state, worker=worker, since_ms=since_ms)
