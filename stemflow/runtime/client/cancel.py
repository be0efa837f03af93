"""Cancelling a run from any process, whether it has a worker or not, and whether the run's own worker still lives."""

from __future__ import annotations

from stemflow.model.facts import Lost, Stop
from stemflow.model.records import FINAL, Node
from stemflow.runtime.commit.committer import Commits
from stemflow.runtime.commit.decider import Advance
from stemflow.runtime.runs.handle import UnknownRun
from stemflow.store.base import Store
from stemflow.store.process_owner import owner_id

BATCH = 200


async def cancel(store: Store, advance: Advance, commits: Commits, run: str, *, force: bool) -> str:
    """Stop every task of the run that has not ended; return the state the run was in. Raises UnknownRun."""
    (root,) = await store.read([(run, "")])
    if not isinstance(root, Node):
        raise UnknownRun(run, store.url)
    if root.state not in FINAL:
        await commits.one([Stop((run, ""), force)])
        if not force:
            await _give_up_lost(store, advance, commits, run)
    return root.state


async def _give_up_lost(store: Store, advance: Advance, commits: Commits, run: str) -> None:
    """Report the lost leases of the run: a worker that died does not learn that its tasks are to stop."""
    while True:
        leases = await store.take_expired(owner_id("cancel"), BATCH, run)
        for lease in leases:
            advance.leased(lease)
        if leases:
            await commits.one([Lost(lease.node.key, lease.node.delivery) for lease in leases])
        if len(leases) < BATCH:
            return
