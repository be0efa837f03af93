"""What the functions of the client work with."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager, AbstractContextManager
from dataclasses import dataclass

from stemflow.ports import IdSource
from stemflow.runtime.client.cancel import cancel
from stemflow.runtime.client.lifecycle import Lifecycle
from stemflow.runtime.client.preparer import Preparer
from stemflow.runtime.client.unserved import warned_if_unserved
from stemflow.runtime.commit.committer import Committer
from stemflow.runtime.commit.decider import Decider
from stemflow.runtime.runs.decode import ResultTypes
from stemflow.runtime.tasks.registry import TaskRegistry
from stemflow.runtime.tasks.slot_release import slot_released
from stemflow.runtime.values.library import Library
from stemflow.store.base import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """The parts of one engine that submit, wait, cancel and rerun; no worker among them.

    `second_committer` commits on a channel of its own, so that `submit_many` has two exchanges under way.
    """

    store: Store
    library: Library
    registry: TaskRegistry
    ids: IdSource
    decider: Decider
    committer: Committer
    second_committer: Committer
    preparer: Preparer
    lifecycle: Lifecycle

    @property
    def result_types(self) -> ResultTypes:
        return self.registry

    def require_open(self) -> None:
        """Raise NotOpen unless the engine is open on the running event loop."""
        self.lifecycle.require()

    def warned_if_unserved(self, run_id: str) -> AbstractContextManager[None]:
        """While it is entered, log why no worker works on the run, if none does."""
        return warned_if_unserved(self.store, self.library, run_id)

    def slot_released(self) -> AbstractAsyncContextManager[None]:
        """While it is entered, the handler that waits here, if any, holds no slot of its worker."""
        return slot_released()

    async def cancel(self, run_id: str, *, force: bool = False) -> str:
        """Cancel a run; return the state it was in. Raises UnknownRun."""
        return await cancel(self.store, self.decider, self.committer, run_id, force=force)
