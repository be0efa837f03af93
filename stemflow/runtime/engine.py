"""The front door: `Stemflow` submits, waits, cancels, reruns, and holds the embedded worker."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from datetime import datetime
from types import TracebackType
from typing import Any, TypeVar, overload

from stemflow.model.effects import DeadLetter, Decision
from stemflow.model.facts import Fact
from stemflow.model.records import SKIPPED, SUCCEEDED
from stemflow.model.signature import Signature, Workflow
from stemflow.ports import Clock, IdSource
from stemflow.runtime.attempt.process_pool import Processes
from stemflow.runtime.client.dead_letters import How, Replayed, letters_like, purge, replay
from stemflow.runtime.client.lifecycle import Lifecycle
from stemflow.runtime.client.parts import Parts
from stemflow.runtime.client.preparer import Preparer
from stemflow.runtime.client.rerun import rerun
from stemflow.runtime.client.submit_many import submit_many
from stemflow.runtime.client.submitter import Submitter
from stemflow.runtime.client.wait_by_id import result_by_id, wait_by_id
from stemflow.runtime.clock import SystemClock, SystemIds
from stemflow.runtime.commit.committer import Committer, no_piggyback
from stemflow.runtime.commit.decider import Decider
from stemflow.runtime.commit.events import tell_commit
from stemflow.runtime.payloads.encoders import TaskPayloadEncoderRegistry
from stemflow.runtime.payloads.headers import TRACE_HEADERS
from stemflow.runtime.payloads.signing import SigningKeys, Trust
from stemflow.runtime.runs.handle import RunFailed, RunHandle, TaskResult, UnknownRun
from stemflow.runtime.tasks.registry import TaskRegistry
from stemflow.runtime.tasks.signals import Signals
from stemflow.runtime.tasks.submission import Submission
from stemflow.runtime.values.library import Library
from stemflow.runtime.worker.service import Service, WorkerSettings
from stemflow.store.base import Store
from stemflow.store.open import open_store
from stemflow.units import Duration, duration_of

T = TypeVar("T")


class Stemflow:
    """An engine on one store, with an embedded worker unless `worker=False`. Use it as an async context manager.

    `url`: `memory:`, `sqlite:PATH`, or `sqlite:` for `.stemflow/stemflow.db`. `concurrency`: handlers at once.
    `queues`: those that the worker serves, else every one.
    `only_run`: the embedded worker serves this run alone. `propagated_headers`: those of a task's headers that a run
    which it starts takes over. `encoders`: how values are stored; `signing`: the keys that seal what is stored; without
    them those of the registry. `processes`: the pool for `isolation="process"`. `name`: of the worker, for people.
    `unroutable_after`: a task that no worker has declared for so long fails. Raises StoreError when the store cannot be
    used.
    """

    def __init__(
        self,
        url: str = "sqlite:",
        registry: TaskRegistry | None = None,
        *,
        worker: bool = True,
        concurrency: int = 100,
        only_run: str | None = None,
        queues: tuple[str, ...] | None = None,
        propagated_headers: tuple[str, ...] = TRACE_HEADERS,
        clock: Clock | None = None,
        ids: IdSource | None = None,
        store: Store | None = None,
        encoders: TaskPayloadEncoderRegistry | None = None,
        processes: Processes | None = None,
        name: str | None = None,
        unroutable_after: Duration = "60s",
        signing: SigningKeys | None = None,
    ) -> None:
        self.clock = clock or SystemClock()
        self.ids = ids or SystemIds()
        self.registry = registry if registry is not None else TaskRegistry()
        self.store = store if store is not None else open_store(url, self.clock)
        self._url = None if store is not None or url.startswith("memory:") else url
        self.encoders = encoders or self.registry.encoders
        self._signing = signing or self.registry.signing
        self._lifecycle = Lifecycle(self.store.url)
        self._worker_settings: WorkerSettings | None = None
        if worker:
            self._worker_settings = WorkerSettings(
                concurrency=concurrency, queues=queues, only_run=only_run, processes=processes, name=name,
                unroutable_after_ms=duration_of("unroutable_after", unroutable_after),
                propagated_headers=propagated_headers, real_time=isinstance(self.clock, SystemClock),
            )  # fmt: skip
        self._assemble()

    def _assemble(self) -> None:
        """Make the parts that serve from one opening to the next closing."""
        self.library = Library(self.store, self.encoders, Trust(self._signing))
        self.decider = Decider(self.store, self.library)
        self.preparer = Preparer(self.registry, self.decider, self.ids)
        self.service: Service | None = None
        if self._worker_settings is not None:
            # A handler may submit a run, whose exchange leases for this very worker: `_submit` closes the circle.
            self.service = Service(
                self.decider, self.registry, self.preparer.remote_tasks, self.ids, self._submit, self._worker_settings
            )
        self.parts = Parts(
            store=self.store, library=self.library, registry=self.registry, ids=self.ids, decider=self.decider,
            committer=self._make_committer(), second_committer=self._make_committer(), preparer=self.preparer,
            lifecycle=self._lifecycle,
        )  # fmt: skip
        self.submitter = Submitter(self.parts)

    def _make_committer(self) -> Committer:
        """A channel for what this process submits and stops; it leases for the worker of this process, if any."""
        piggyback = no_piggyback if self.service is None else self.service.exchange_loop.piggyback
        return Committer(self.store, self.decider, f"engine-{self.ids.run_id()}", self._committed, piggyback)

    async def _submit(self, asked: Submission) -> RunHandle[Any]:
        return await self.submitter.submit(asked)

    async def __aenter__(self) -> Stemflow:
        """Open the store and start the worker. Raises NotOpen if the engine is open, StoreError.

        An engine that was closed may be opened again, on any event loop; what is in `memory:` is still there.
        """
        if self._lifecycle.open():
            if self._url is not None:
                self.store = open_store(self._url, self.clock)
            self._assemble()
        try:
            await self.store.open()
            if self.service is not None:
                await self.service.start()
        except BaseException:
            self._lifecycle.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self.service is not None:
                await self.service.stop(0)
            await self.signals.settle()
        finally:
            self._lifecycle.close()
            await self.store.close()

    # -- submitting

    @overload
    async def run(self, what: Signature[Any, T], *args: Any, **kwargs: Any) -> T: ...
    @overload
    async def run(self, what: Workflow, *args: Any, **kwargs: Any) -> Any: ...
    async def run(self, what: Signature[Any, Any] | Workflow, *args: Any, **kwargs: Any) -> Any:
        """Submit, wait, and give the value (null if skipped); raises RunFailed when it failed or was cancelled."""
        handle = await self.submit(what, *args, **kwargs)
        result = await handle.wait()
        if result.status not in (SUCCEEDED, SKIPPED):
            raise RunFailed(result)
        return result.value

    @overload
    async def submit(
        self, what: Signature[Any, T], *args: Any, inputs: Mapping[str, Any] | None = None, run_id: str | None = None,
        headers: Mapping[str, str] | None = None, meta: Mapping[str, Any] | None = None,
        file: str | None = None, tasks: tuple[str, ...] = (), again: bool = False, **kwargs: Any,
    ) -> RunHandle[T]: ...  # fmt: skip
    @overload
    async def submit(
        self, what: Workflow, *args: Any, inputs: Mapping[str, Any] | None = None, run_id: str | None = None,
        headers: Mapping[str, str] | None = None, meta: Mapping[str, Any] | None = None,
        file: str | None = None, tasks: tuple[str, ...] = (), again: bool = False, **kwargs: Any,
    ) -> RunHandle[Any]: ...  # fmt: skip
    async def submit(
        self,
        what: Signature[Any, Any] | Workflow,
        *args: Any,
        inputs: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        meta: Mapping[str, Any] | None = None,
        run_id: str | None = None,
        file: str | None = None,
        tasks: tuple[str, ...] = (),
        again: bool = False,
        allow_unknown: bool = False,
        **kwargs: Any,
    ) -> RunHandle[Any]:
        """Store a run durably and answer its handle; `args` and `kwargs` go to the first tasks of a canvas.

        The options of a task that is not registered here are those that a worker has declared; with `allow_unknown` one
        that nobody has declared gets the registry's defaults, else it is refused.
        `headers` and `meta` reach each task of the run beside its arguments (`context.headers`, `context.meta`).
        Submitting the same `run_id` with the same work again returns a handle of the same run (`existing`); for other
        work it raises RunConflict. Under a unique key that is held the handle is the holder's (`existing`), or
        DuplicateRun is raised, as its mode says. Raises UnknownTask, OptionError, CycleError, BadArguments,
        NotSerializable; for a workflow InvalidInputs, when `inputs` do not fit what it declares.
        """
        self._lifecycle.require()
        asked = Submission(
            what=what, args=args, kwargs=kwargs, inputs=inputs or {}, headers=headers or {}, meta=meta or {},
            run_id=run_id, file=file, tasks=tasks, again=again, allow_unknown=allow_unknown,
        )  # fmt: skip
        return await self.submitter.submit(asked)

    @property
    def signals(self) -> Signals:
        """The registry's signals: what happens in this process to its tasks and runs."""
        return self.registry.signals

    async def submit_many(self, signatures: Iterable[Signature[Any, Any]]) -> list[RunHandle[Any]]:
        """Submit many runs in few round trips; their handles in order.

        Each is a run of its own that is stored or refused alone. DuplicateRun is raised when all are through.
        """
        self._lifecycle.require()
        return await submit_many(self.parts, self.submitter, signatures)

    def _committed(self, decision: Decision, facts: list[Fact]) -> None:
        tell_commit(self.signals, self.library, decision, facts, self.store.now_ms())
        if self.service is not None:
            self.service.slots.stop_handlers(decision)

    # -- runs that exist

    async def handle(self, run_id: str) -> RunHandle[Any]:
        """The handle of a run by its id; raises UnknownRun."""
        self._lifecycle.require()
        (root,) = await self.store.read([(run_id, "")])
        if root is None:
            raise UnknownRun(run_id, self.store.url)
        return RunHandle(self.parts, run_id)

    @overload
    async def wait_for_task(
        self, task_id: str, timeout: float | None = None, *, decode: Callable[[Any], T]
    ) -> TaskResult[T]: ...
    @overload
    async def wait_for_task(self, task_id: str, timeout: float | None = None) -> TaskResult[Any]: ...
    async def wait_for_task(self, task_id: str, timeout: float | None = None, *, decode: Any = None) -> TaskResult[Any]:
        """Wait for the end of a run (`RUN`) or of one task of it (`RUN/path`, its `context.id`), started anywhere.

        At most `timeout` seconds, then the answer is `timed_out`. `decode`: a type or a function for its value; else
        the registry's. Raises UnknownRun for what is not there, and for a task that a finished run never reached.
        """
        self._lifecycle.require()
        return await wait_by_id(self.parts, task_id, timeout, decode)

    @overload
    async def result(self, task_id: str, *, decode: Callable[[Any], T]) -> TaskResult[T]: ...
    @overload
    async def result(self, task_id: str) -> TaskResult[Any]: ...
    async def result(self, task_id: str, *, decode: Any = None) -> TaskResult[Any]:
        """How a run or a task stands now (`timed_out`: it has not ended); raises UnknownRun."""
        self._lifecycle.require()
        return await result_by_id(self.parts, task_id, decode)

    async def cancel(self, run_id: str, *, force: bool = False) -> str:
        """Stop everything of a run that has not ended; answers the state that it was in: one that was `stopping` had
        been cancelled before, one that had ended stays as it is.

        What runs is told to end and may take its time; hooks and compensation run. With `force` the run has ended when
        this returns: nothing is waited for, and hooks and compensation are cut off or not begun. Raises UnknownRun.
        """
        self._lifecycle.require()
        return await self.parts.cancel(run_id, force=force)

    async def rerun(self, run_id: str, *, failed: bool = False, from_step: str | None = None) -> RunHandle[Any]:
        """A new run of the same plan that keeps the results of the old one.

        `failed`: only what did not succeed runs again; `from_step`: that step and all that depends on it. The old run
        must have ended; its dead letters go with it, since the new one takes them up.
        """
        self._lifecycle.require()
        return await rerun(self.parts, self.submitter, run_id, failed=failed, from_step=from_step)

    # -- dead letters

    async def dead_letters(
        self,
        *,
        queue: str | None = None,
        task: str | None = None,
        reason: str | None = None,
        since: Duration | datetime | None = None,
        run: str | None = None,
        limit: int | None = None,
    ) -> list[DeadLetter]:
        """Tasks that failed for good, the newest first, as long as they are kept; all of what is given must fit.

        `since`: an instant with its time zone, or how long ago. `run`: of this run alone. `limit`: at most so many.
        """
        self._lifecycle.require()
        which = letters_like(self.store.now_ms(), queue, task, reason, since, limit)
        return await self.store.dead_letters(run, which)

    async def replay(
        self,
        letters: Iterable[DeadLetter],
        *,
        delay: Duration = 0,
        dry_run: bool = False,
        allow_unknown: bool = False,
        known_tasks: Collection[str] = (),
    ) -> list[Replayed]:
        """Run again the runs of these dead letters; one answer for each run, in the order of its first letter.

        The new run keeps the results of the old one, as `rerun` does, and tries again all that failed there, with
        attempts that begin afresh, not before `delay` has passed. All letters of the old run go in the commit that
        stores the new one. Its id follows from the old one: replayed again, because an answer was lost or by another
        operator, the answer is the same run. What cannot be replayed is left as it is and its answer has `refused`.
        A task that is neither registered here, nor among `known_tasks`, nor declared by a worker, is refused unless
        `allow_unknown`. With `dry_run` nothing is changed.
        """
        self._lifecycle.require()
        how = How(duration_of("replay: delay", delay), dry_run, allow_unknown, frozenset(known_tasks))
        return await replay(self.parts, self.submitter, letters, how)

    async def purge(self, letters: Iterable[DeadLetter], *, dry_run: bool = False) -> list[DeadLetter]:
        """Throw these dead letters away; their runs stay as they ended. Answers those that were there."""
        self._lifecycle.require()
        return await purge(self.store, self.ids, letters, dry_run)

    async def hand_back(self, grace_ms: int = 0) -> None:
        """Lease nothing more, and after `grace_ms` give back what runs, uncharged; runs stay active."""
        if self.service is not None:
            await self.service.stop(grace_ms)


__all__ = ["Stemflow"]
