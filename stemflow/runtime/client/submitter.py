"""Submitting a run: through the middleware, prepared, decided, committed. No worker is needed."""

from __future__ import annotations

import asyncio
from typing import Any
from weakref import WeakValueDictionary

from stemflow.errors import StemflowError
from stemflow.model.effects import Decision
from stemflow.model.facts import Requested
from stemflow.runtime.client.parts import Parts
from stemflow.runtime.client.run_conflict import refuse_other_work
from stemflow.runtime.commit.events import run_event
from stemflow.runtime.runs.handle import DuplicateRun, RunHandle
from stemflow.runtime.tasks.submission import Prepared, Submission


class Submitter:
    """Stores runs durably; one an engine."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._middleware, self._signals = parts.registry.middleware, parts.registry.signals
        self._of_id: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def submit(self, asked: Submission) -> RunHandle[Any]:
        """Pass a submission through the middleware into the store. Raises what `Stemflow.submit` does."""
        if self._middleware.on_enqueue:
            return await self._middleware.enqueue(asked, self._prepare_and_store)
        return await self._prepare_and_store(asked)

    async def _prepare_and_store(self, asked: Submission) -> RunHandle[Any]:
        if not isinstance(asked.run_id, str):
            return await self._prepare_and_store_one(asked)
        async with self.lock_of(asked.run_id):
            return await self._prepare_and_store_one(asked)

    def lock_of(self, run_id: str) -> asyncio.Lock:
        """Held while a run of a chosen id is submitted: two would overwrite each other's header in the library."""
        return self._of_id.setdefault(run_id, asyncio.Lock())

    async def _prepare_and_store_one(self, asked: Submission) -> RunHandle[Any]:
        prepared = await self._parts.preparer.prepare(asked)
        try:
            decision = await self._parts.committer.commit([prepared.fact], prepared)
            return await self.checked_handle(prepared, decision)
        finally:
            self.unstage(prepared)

    async def checked_handle(self, prepared: Prepared, decision: Decision) -> RunHandle[Any]:
        """As `handle_of`; raises RunConflict if the id is that of a run that does other work."""
        handle = self.handle_of(prepared, decision)
        if handle.existing and handle.id == prepared.header.run:
            await refuse_other_work(self._parts.library, prepared)
        return handle

    async def store(self, prepared: Prepared, fact: Requested) -> RunHandle[Any]:
        """Commit a run that is prepared; `fact` asks for it. Raises DuplicateRun."""
        try:
            return self.handle_of(prepared, await self._parts.committer.commit([fact], prepared))
        finally:
            self.unstage(prepared)

    def unstage(self, prepared: Prepared) -> None:
        """Drop the map items that were kept in memory until the commit."""
        for some in prepared.items:
            self._parts.library.items.staged.pop(some.key, None)

    def handle_of(self, prepared: Prepared, decision: Decision) -> RunHandle[Any]:
        """The handle of a run after the commit of `decision`. Raises DuplicateRun when its unique key is held."""
        header = prepared.header
        if not decision.headers or (decision.ended and any(end.run == header.run for end in decision.ended)):
            self._parts.library.headers.pop(header.run, None)
        if not decision.replies:
            raise StemflowError(f"run {header.run}: expected the decision on its submission to reply, got no reply")
        reply = decision.replies[0]
        if reply.status == "refused":
            raise DuplicateRun(reply.run)
        run = header.run if reply.status == "accepted" else reply.run
        existing = reply.status == "existing"
        if self._signals.after_publish.listeners:
            at_ms = self._parts.store.now_ms()
            self._signals.after_publish.send(run_event("after_publish", header, at_ms, run_id=run, existing=existing))
        asked = None if prepared.body is None else (prepared.plan.digest, prepared.body)
        return RunHandle(self._parts, run, existing=existing, holder=reply.holder, known=True, asked=asked)
