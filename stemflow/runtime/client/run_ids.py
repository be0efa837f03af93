"""Run ids: of new runs in a given partition of the store, and of the runs that the engine makes for itself."""

from __future__ import annotations

from typing import Final

from stemflow.model.records import Header
from stemflow.ports import IdSource
from stemflow.store.base import Store

HEAD_PREFIX: Final = "schedule/"
"""How the ids of the runs begin that are the heads of schedules; their names begin with HEAD_NAME."""
HEAD_NAME: Final = "schedule "
TICK_PREFIX: Final = "tick/"
"""How the ids of the runs of the task TICK begin, which make the ticks of schedules."""
TICK: Final = "stemflow.tick"


def is_internal(header: Header) -> bool:
    """Whether a run is one by which the engine keeps schedules, and not work of its users."""
    is_head = header.run.startswith(HEAD_PREFIX) and header.name.startswith(HEAD_NAME)
    return is_head or (header.run.startswith(TICK_PREFIX) and header.name == TICK)


def colocated_run_id(ids: IdSource, store: Store, run: str) -> str:
    """Return a new run id in the partition of the run id `run`; NO_RUN stands for the partition of the shared keys."""
    new = ids.run_id()
    while store.partition_of(new) != store.partition_of(run):
        new = ids.run_id()
    return new
