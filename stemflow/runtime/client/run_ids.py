"""Run ids: of new runs in a given partition of the store, and of the runs that the engine makes for itself."""

from __future__ import annotations

from typing import Any, Final

from stemflow.errors import OptionError
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


def expect_id(where: str, given: Any) -> str:
    """The id of a run or task that a program asks about; `where` begins the message. Raises OptionError for no text."""
    if not isinstance(given, str):
        raise OptionError(f"{where}: expected the id of a run, as text, got {type(given).__name__} {given!r:.80}")
    if not given.isprintable() and any("\ud800" <= one <= "\udfff" for one in given):
        raise OptionError(f"{where}: expected an id without lone surrogates, got {given[:40]!a}")
    return given


def colocated_run_id(ids: IdSource, store: Store, run: str) -> str:
    """Return a new run id in the partition of the run id `run`; NO_RUN stands for the partition of the shared keys."""
    new = ids.run_id()
    while store.partition_of(new) != store.partition_of(run):
        new = ids.run_id()
    return new
