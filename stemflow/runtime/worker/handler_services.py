"""What the worker does for a running handler: renews its lease, stores its progress, starts the runs it asks for."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from stemflow.model.signature import Signature
from stemflow.runtime.commit.events import context_event
from stemflow.runtime.payloads.headers import inherited
from stemflow.runtime.runs.handle import RunHandle
from stemflow.runtime.runs.progress import store_progress
from stemflow.runtime.tasks.context import TaskContext
from stemflow.runtime.tasks.signals import Signals
from stemflow.runtime.tasks.submission import Submission
from stemflow.store.base import Store

Submit = Callable[[Submission], Awaitable[RunHandle[Any]]]
"""Stores a run; see `Submitter.submit`."""
RenewNow = Callable[[TaskContext, int], None]
"""Renews the lease of a handler for at least so many milliseconds; see `Renewals.renew_now`."""


class WorkerServices:
    """Serves the handlers of one worker. `propagated_headers`: those that a run which a task starts takes over."""

    def __init__(
        self, store: Store, signals: Signals, renew_now: RenewNow, submit: Submit, propagated_headers: tuple[str, ...]
    ) -> None:
        self._store, self._signals = store, signals
        self._renew_now, self._submit = renew_now, submit
        self._propagated_headers = propagated_headers

    async def heartbeat(self, context: TaskContext) -> None:
        self._renew_now(context, 0)

    async def extend_lease(self, context: TaskContext, for_ms: int) -> None:
        self._renew_now(context, for_ms)

    async def progress(self, context: TaskContext, percent: float, data: Any) -> None:
        key = (context.run_id, context.node)
        stored = await store_progress(self._store, key, context.delivery, percent, data, context.name)
        if self._signals.progress:
            self._signals.progress.send(context_event("progress", context, stored.at_ms, progress=stored))

    async def enqueue(
        self,
        context: TaskContext,
        signature: Signature[Any, Any],
        headers: Mapping[str, str],
        meta: Mapping[str, Any],
        run_id: str | None,
    ) -> str:
        submission = Submission(
            what=signature,
            headers=inherited(context.headers, self._propagated_headers, headers),
            meta=meta,
            run_id=run_id,
            parent=(context.run_id, context.node),
            root=context.root_id,
        )
        return (await self._submit(submission)).id
