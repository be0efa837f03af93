"""Run ids that place a new run in a given partition of the store."""

from __future__ import annotations

from stemflow.ports import IdSource
from stemflow.store.base import Store


def colocated_run_id(ids: IdSource, store: Store, run: str) -> str:
    """Return a new run id in the partition of the run id `run`; NO_RUN stands for the partition of the shared keys."""
    new = ids.run_id()
    while store.partition_of(new) != store.partition_of(run):
        new = ids.run_id()
    return new
