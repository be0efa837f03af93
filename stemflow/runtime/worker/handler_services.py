"""What the worker does for a running handler: renews its lease, stores its progress, starts and cancels runs, waits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from stemflow.model.records import SKIPPED
from stemflow.runtime.commit.events import context_event
from stemflow.runtime.runs.handle import RunHandle
from stemflow.runtime.runs.progress import store_progress
from stemflow.runtime.tasks.context import ChildRun, TaskContext
from stemflow.runtime.tasks.lineage import child_of
from stemflow.runtime.tasks.secrets import Redaction
from stemflow.runtime.tasks.signals import Signals
from stemflow.runtime.tasks.submission import Submission
from stemflow.runtime.worker.slots import Slots

T = TypeVar("T")

Submit = Callable[[Submission], Awaitable[RunHandle[Any]]]
"""Stores a run; see `Submitter.submit`."""
Cancel = Callable[[str, bool], Awaitable[str]]
"""Cancels a run, by force or not; see `Stemflow.cancel`."""
RenewNow = Callable[[TaskContext, int], None]
"""Renews the lease of a handler for at least so many milliseconds; see `Renewals.renew_now`."""


class WorkerServices:
    """Serves the handlers of one worker. `propagated_headers`: those that a run which a task starts takes over."""

    def __init__(
        self,
        slots: Slots,
        signals: Signals,
        renew_now: RenewNow,
        submit: Submit,
        cancel: Cancel,
        propagated_headers: tuple[str, ...],
    ) -> None:
        self._slots, self._store, self._signals = slots, slots.store, signals
        self._renew_now, self._submit, self._cancel = renew_now, submit, cancel
        self._propagated_headers = propagated_headers
        self._loop: asyncio.AbstractEventLoop | None = None

    def begin(self) -> None:
        """Serve handlers from now on, on the running event loop."""
        self._loop = asyncio.get_running_loop()

    async def heartbeat(self, context: TaskContext) -> None:
        self._renew_now(context, 0)

    async def extend_lease(self, context: TaskContext, for_ms: int) -> None:
        self._renew_now(context, for_ms)

    async def progress(self, context: TaskContext, percent: float, data: Any) -> None:
        key = (context.run_id, context.node)
        if context.hidden:
            data = Redaction(context.hidden).data(data)
        stored = await store_progress(self._store, key, context.delivery, percent, data, context.name)
        if self._signals.progress:
            self._signals.progress.send(context_event("progress", context, stored.at_ms, progress=stored))

    async def enqueue(self, context: TaskContext, child: ChildRun) -> str:
        return (await self._start(context, child)).id

    async def run_child(self, context: TaskContext, child: ChildRun) -> Any:
        handle = await self._start(context, child)
        async with self._released(context):
            result = await handle.wait()
        return result.value if result.status == SKIPPED else result.required()

    async def cancel_run(self, context: TaskContext, run_id: str, force: bool) -> str:
        return await self._cancel(run_id, force)

    async def release_slot(self, context: TaskContext) -> None:
        await self._on_loop(self._release(context))

    async def retake_slot(self, context: TaskContext, at_once: bool) -> None:
        await self._on_loop(self._retake(context, at_once))

    async def _start(self, context: TaskContext, child: ChildRun) -> RunHandle[Any]:
        if context.hidden:
            given = [child.signature, dict(child.headers), dict(child.meta)]
            Redaction(context.hidden).refuse(given, f"task {context.id}")
        asked = Submission(what=child.signature, headers=child.headers, meta=child.meta, run_id=child.run_id)
        return await self._submit(child_of(context, asked, self._propagated_headers))

    @asynccontextmanager
    async def _released(self, context: TaskContext) -> AsyncIterator[None]:
        await self._release(context)
        try:
            yield
        except BaseException:
            await self._retake(context, at_once=True)
            raise
        await self._retake(context, at_once=False)

    async def _release(self, context: TaskContext) -> None:
        token = ((context.run_id, context.node), context.delivery)
        if self._slots.released.release(token):
            if (process := self._slots.running[token].pool_process) is not None:
                process.lend_slot()
            self._slots.wake()

    async def _retake(self, context: TaskContext, at_once: bool) -> None:
        token = ((context.run_id, context.node), context.delivery)
        if at_once:
            self._slots.released.retake_now(token)
        else:
            await self._slots.released.retake(token)
        running = self._slots.running.get(token)
        if running is not None and running.pool_process is not None and token not in self._slots.released:
            await running.pool_process.retake_slot()

    async def _on_loop(self, work: Coroutine[Any, Any, T]) -> T:
        """Await `work` on the worker's event loop: a handler in a thread may wait on a loop of its own."""
        if self._loop is None or self._loop is asyncio.get_running_loop():
            return await work
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._loop))
