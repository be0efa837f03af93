"""Cancelling a run from any process, with or without a worker, also when the run's own worker is dead."""

from __future__ import annotations

import logging

from stemflow.model.facts import Damaged, Fact, Lost, Stop
from stemflow.model.records import FINAL, Node
from stemflow.runtime.catalog.heartbeats import losers
from stemflow.runtime.client.run_ids import expect_id
from stemflow.runtime.commit.committer import Committer
from stemflow.runtime.commit.decider import Decider
from stemflow.runtime.runs.handle import UnknownRun
from stemflow.store.base import Store
from stemflow.store.damaged import DamagedNode, RecordsDamaged
from stemflow.store.process_owner import owner_id

log = logging.getLogger("stemflow.client")

BATCH = 200
"""Lost leases that are taken over in one transaction."""


async def cancel(store: Store, decider: Decider, committer: Committer, run: str, *, force: bool) -> str:
    """Stop every task of the run that has not ended; return the state the run was in. Raises UnknownRun."""
    (root,) = await store.read([(expect_id("cancel", run), "")])
    if not isinstance(root, Node):
        raise UnknownRun(run, store.url)
    if root.state not in FINAL:
        try:
            await committer.commit([Stop((run, ""), force)])
            if not force:
                await _report_lost(store, decider, committer, run)
        except RecordsDamaged as error:
            if error.run not in ("", run):
                raise
            log.error("%s; it is ended as damaged", error)
            await committer.commit([Damaged((run, ""), error.why)])
    return root.state


def _loss_of(node: Node, worker: str, started_at_ms: int) -> Fact:
    if isinstance(node, DamagedNode):
        return Damaged(node.key, node.why, node.delivery)
    return Lost(node.key, node.delivery, "", worker, started_at_ms)


async def _report_lost(store: Store, decider: Decider, committer: Committer, run: str) -> None:
    """Report the lost leases of the run: a worker that died does not learn that its tasks are to stop."""
    while True:
        leases = await store.take_expired(owner_id("cancel"), BATCH, run)
        for lease in leases:
            decider.remember_lease(lease)
        if leases:
            known = zip(leases, await losers(store, leases), strict=True)
            await committer.commit([_loss_of(lease.node, *loser) for lease, loser in known])
        if len(leases) < BATCH:
            return
