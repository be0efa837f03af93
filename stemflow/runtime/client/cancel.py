"""Cancelling a run from any process, whether it has a worker or not, and whether the run's own worker still lives."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stemflow.model.facts import Lost, Stop
from stemflow.model.records import FINAL, Node
from stemflow.runtime.runs.handle import UnknownRun
from stemflow.store.process_owner import owner_id

if TYPE_CHECKING:
    from stemflow.runtime.engine import Stemflow

BATCH = 200


async def cancel(app: Stemflow, run: str, *, force: bool) -> str:
    """Stop everything of the run that has not ended; answers the state that it was in. Raises UnknownRun."""
    (root,) = await app.store.read([(run, "")])
    if not isinstance(root, Node):
        raise UnknownRun(run, app.store.url)
    if root.state not in FINAL:
        await app.commit([Stop((run, ""), force)])
        if not force:
            await _give_up_lost(app, run)
    return root.state


async def _give_up_lost(app: Stemflow, run: str) -> None:
    """Where its worker has died nobody hears that a task is to end, so its lost lease is reported here."""
    while True:
        leases = await app.store.take_expired(owner_id("cancel"), BATCH, run)
        for lease in leases:
            app.advance.leased(lease)
        if leases:
            await app.commit([Lost(lease.node.key, lease.node.delivery) for lease in leases])
        if len(leases) < BATCH:
            return
