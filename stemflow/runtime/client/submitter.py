"""Submitting a run: through the middleware, prepared, decided, committed. No worker is needed."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
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

    def submit(self, asked: Submission) -> Coroutine[Any, Any, RunHandle[Any]]:
        """Pass a submission through the middleware into the store. Raises what `Stemflow.submit` does."""
        if self._middleware.on_enqueue:
            return self._middleware.enqueue(asked, self._prepare_and_store)
        return self._prepare_and_store(asked)

    def _prepare_and_store(self, asked: Submission) -> Coroutine[Any, Any, RunHandle[Any]]:
        if not isinstance(asked.run_id, str):
            return self._prepare_and_store_one(asked)
        return self._prepare_and_store_locked(asked, asked.run_id)

    async def _prepare_and_store_locked(self, asked: Submission, run_id: str) -> RunHandle[Any]:
        async with self.lock_of(run_id):
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
            if prepared.items:
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
        at_ms = header.created_at_ms
        return RunHandle(self._parts, run, existing=existing, holder=reply.holder, known_at_ms=at_ms, asked=asked)
