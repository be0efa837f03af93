"""Why a run, or a task of it, makes no progress: reads the facts and lets `core.why` explain them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from msgspec import Struct

from stemflow.core.reasons import Explanation, Facts, WorkerFacts
from stemflow.core.why import explain
from stemflow.model.leaf_status import LeafStatus
from stemflow.model.plan import LeafPlan
from stemflow.model.records import FINAL, NO_RUN, WAITING, Claim, Key, Node, State, parent_path, task_keys
from stemflow.runtime.catalog.controls import read_controls
from stemflow.runtime.catalog.heartbeats import heartbeats
from stemflow.runtime.catalog.published import published
from stemflow.runtime.client.run_ids import expect_id
from stemflow.runtime.runs.handle import UnknownRun
from stemflow.runtime.values.library import Library
from stemflow.store.base import Store
from stemflow.store.damaged import readable

PLACED: Final = 200
"""Of so many open leaves of a run the lease or the place in the queue is read."""


class Why(Struct, frozen=True, kw_only=True):
    """Why a run, or the node that was asked for, is not final. `nodes` is empty if it is.

    `task_id`: what was asked for; `state`: its state; `now_ms`: the instant at which it was read, in epoch ms.
    """

    task_id: str
    run: str
    state: State
    now_ms: int
    nodes: tuple[Explanation, ...]


async def why(store: Store, library: Library, asked: str) -> Why:
    """Explain every open node of a run (`RUN`), or one node of it and what is below (`RUN/path`). Raises UnknownRun."""
    run, path = await _find(store, asked)
    nodes = {node.path: node for node in await store.nodes(run)}
    if "" not in nodes:
        raise UnknownRun(run, store.url)
    facts = await facts_of(store, library, nodes)
    explained = explain(facts)
    found = [one for one in explained if _below(one.path, path)]
    while path and not found and path not in nodes:  # it has not opened, and perhaps its scope has not either
        found = [one for one in explained if one.members > 1 and parent_path(one.path) == parent_path(path)]
        path = path if found else parent_path(path)
        found = found or [one for one in explained if one.path == path]
    state = nodes[path].state if path in nodes else WAITING if found else nodes[""].state
    return Why(task_id=asked, run=run, state=state, now_ms=facts.now_ms, nodes=tuple(found))


def _below(path: str, above: str) -> bool:
    rest = path[len(above) :]
    return path.startswith(above) and (not rest or not above or rest[0] in ".[!")


async def _find(store: Store, asked: str) -> Key:
    """The run and the path that an id means; the path need not have a record."""
    keys = task_keys(expect_id("why", asked))
    roots = await store.read([(run, "") for run, _ in keys])
    for key, root in zip(keys, roots, strict=True):
        if root is not None:
            return key
    raise UnknownRun(asked, store.url)


async def facts_of(store: Store, library: Library, nodes: dict[str, Node]) -> Facts:
    """Everything that explains the open nodes among `nodes`, which are those of one run. Raises RecordsDamaged."""
    going_on = [node for node in nodes.values() if node.state not in FINAL and readable(node) is node]
    keys = sorted({key for node in going_on for key in (node.claim, node.slot) if key is not None})
    claims = {one.key: one for one in await store.read([(NO_RUN, key) for key in keys]) if isinstance(one, Claim)}
    others = {key for claim in claims.values() for key in (*claim.holders, *(one.of for one in claim.sharers))}
    holders = [one for one in await store.read(sorted(others)) if isinstance(one, Node)]
    run = next(iter(nodes.values())).run
    return Facts(
        now_ms=store.now_ms(),
        nodes=nodes,
        shapes={digest: await library.shape(digest) for digest in {node.plan for node in going_on}},
        claims=claims,
        holders={node.key: node for node in holders},
        statuses=await _statuses(store, library, going_on),
        workers=await worker_facts(store),
        pauses=(await read_controls(store, library.trust)).pauses,
        workflow=(await library.header(run)).name,
    )


async def _statuses(store: Store, library: Library, nodes: Sequence[Node]) -> dict[str, LeafStatus]:
    leaves: list[Node] = []
    for node in nodes:
        plan = (await library.shape(node.plan)).nodes[node.node]
        if isinstance(plan, LeafPlan) and node.tally is None and len(leaves) < PLACED:
            leaves.append(node)
    found = await store.leaf_status([node.key for node in leaves]) if leaves else []
    return {node.path: status for node, status in zip(leaves, found, strict=True) if status is not None}


async def worker_facts(store: Store) -> list[WorkerFacts]:
    """The workers of a store as they last reported, those that have stopped left out."""
    declared = {digest: frozenset(one.tasks) for digest, one in (await published(store)).items()}
    now_ms = store.now_ms()
    return [
        WorkerFacts(
            name=beat.name, queues=beat.queues, only_run=beat.only_run, tasks=declared.get(beat.declares, frozenset()),
            concurrency=beat.concurrency, free=beat.free, is_alive=beat.alive(now_ms),
            leases=beat.state == "running" and not beat.on_hold,
            holds={(one.key, one.token): one.since_ms for one in beat.holds}, is_gone=beat.gone,
        )
        for beat in (await heartbeats(store)).values()
        if beat.state != "stopped"
    ]  # fmt: skip
