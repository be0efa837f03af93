"""What the engine does for running handlers: renewals, progress, and the runs that they start."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from stemflow.model.signature import Signature
from stemflow.runtime.commit.events import context_event
from stemflow.runtime.payloads.headers import inherited
from stemflow.runtime.runs.progress import store_progress
from stemflow.runtime.tasks.context import TaskContext
from stemflow.runtime.tasks.submission import Submission

if TYPE_CHECKING:
    from stemflow.runtime.engine import Stemflow


class EngineBackstage:
    """Serves the handlers that a worker of this engine runs."""

    def __init__(self, app: Stemflow) -> None:
        self.app = app

    async def heartbeat(self, context: TaskContext) -> None:
        if self.app.service is not None:
            self.app.service.renew_now(context, 0)

    async def extend_lease(self, context: TaskContext, for_ms: int) -> None:
        if self.app.service is not None:
            self.app.service.renew_now(context, for_ms)

    async def progress(self, context: TaskContext, percent: float, data: Any) -> None:
        told = await store_progress(
            self.app.store, (context.run_id, context.node), context.delivery, percent, data, context.name
        )
        if self.app.signals.progress:
            self.app.signals.progress.send(context_event("progress", context, told.at_ms, progress=told))

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
            headers=inherited(context.headers, self.app.propagated_headers, headers),
            meta=meta,
            run_id=run_id,
            parent=(context.run_id, context.node),
            root=context.root_id,
        )
        return (await self.app.submitter.submit(submission)).id
