"""`Stemflow`, the public class: submits, waits, cancels, reruns, replays, and runs the embedded worker."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Mapping
from datetime import datetime
from types import TracebackType
from typing import Any, TypeVar, overload

from stemflow.model.effects import DeadLetter, Decision
from stemflow.model.facts import Fact
from stemflow.model.records import SKIPPED, SUCCEEDED
from stemflow.model.signature import ChainSig, Signature
from stemflow.model.workflow import Workflow
from stemflow.ports import Clock, IdSource
from stemflow.runtime.attempt.process_pool import Processes
from stemflow.runtime.client.approvals import Approval, answer, approvals
from stemflow.runtime.client.control import Control
from stemflow.runtime.client.dead_letters import Replayed, ReplayOptions, dead_letter_filter, purge, replay
from stemflow.runtime.client.events import SentEvent, send_event
from stemflow.runtime.client.lifecycle import Lifecycle
from stemflow.runtime.client.metrics import exposition
from stemflow.runtime.client.parts import Parts
from stemflow.runtime.client.preparer import Preparer
from stemflow.runtime.client.rerun import rerun
from stemflow.runtime.client.run_ids import expect_id
from stemflow.runtime.client.start_task import RunStarter
from stemflow.runtime.client.stored_counts import StoredCounts
from stemflow.runtime.client.submit_many import submissions, submit_many
from stemflow.runtime.client.submitter import Submitter
from stemflow.runtime.client.wait_by_id import result_by_id, wait_by_id
from stemflow.runtime.client.why import Why, why
from stemflow.runtime.clock import SystemClock, SystemIds
from stemflow.runtime.commit.committer import Committer, no_piggyback
from stemflow.runtime.commit.decider import Decider
from stemflow.runtime.commit.events import send_commit_signals
from stemflow.runtime.payloads.encoders import TaskPayloadEncoderRegistry
from stemflow.runtime.payloads.headers import TRACE_HEADERS
from stemflow.runtime.payloads.signing import SigningKeys, Trust
from stemflow.runtime.runs.handle import RunFailed, RunHandle, TaskResult, UnknownRun
from stemflow.runtime.schedules.schedules import Applied, Schedules, head_of
from stemflow.runtime.tasks.lineage import from_handler
from stemflow.runtime.tasks.registry import TaskRegistry
from stemflow.runtime.tasks.signals import Signals
from stemflow.runtime.tasks.submission import Submission
from stemflow.runtime.tasks.task import Task
from stemflow.runtime.values.cached_results import clear_cache
from stemflow.runtime.values.library import Library
from stemflow.runtime.worker.service import Service, WorkerSettings
from stemflow.schedule import spec_of
from stemflow.store.base import Store
from stemflow.store.open import open_store
from stemflow.units import Duration, duration_of

T = TypeVar("T")
EMPTY: Signature[Any, Any] = ChainSig(steps=())
"""Replaced by each of many signatures."""


class Stemflow:
    """An engine on one store, with an embedded worker unless `worker=False`. Use it as an async context manager.

    `url`: `memory:`, `sqlite:PATH`, `sqlite:` for `.stemflow/stemflow.db`, or `redis://HOST`. `registry`: the tasks.
    `clock`, `ids`, `store`: replace the machine's clock, the source of ids, or the store of `url`, in tests.
    `encoders`: how values are stored. `signing`: the keys that sign records. Both default to those of the registry.

    For the worker: `concurrency`: the most handlers at once. `queues`: those that it serves (None: all). `only_run`:
    the one run that it serves. `processes`: the pool for `isolation="process"`. `name`: shown to people.
    `propagated_headers`: headers of a task that are passed on to the runs it starts. `unroutable_after`: how long (in
    seconds, or `"60s"`) a task waits for a worker that has registered it, before it fails.

    Raises OptionError, and StoreError for a URL that names no store.

        async with Stemflow("sqlite:jobs.db", registry) as app:
            total = await app.run(add.s(1, 2))
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
        self._propagated_headers = propagated_headers
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
        self.stored_counts = StoredCounts(self.store, self.decider.counting, self.ids.run_id())
        self.preparer = Preparer(self.registry, self.decider, self.ids)
        self.service: Service | None = None
        if self._worker_settings is not None:
            # A handler may submit a run, and that submission leases for this worker: `_submit` breaks the circle.
            self.service = Service(
                self.decider, self.registry, self.preparer.remote_tasks, self.ids, self._submit, self._cancel,
                self._worker_settings, self.stored_counts, own_tasks=self._own_task, own_names=lambda: self._own_tasks,
            )  # fmt: skip
        self.parts = Parts(
            store=self.store, library=self.library, registry=self.registry, ids=self.ids, decider=self.decider,
            committer=self._make_committer(), second_committer=self._make_committer(), preparer=self.preparer,
            lifecycle=self._lifecycle,
        )  # fmt: skip
        self.submitter = Submitter(self.parts)
        self.control = Control(self.parts, self.submitter)
        self.schedules = Schedules(self.parts, self.submitter)
        starter = RunStarter(self.submitter, self._propagated_headers)
        self._own_tasks = {**self.schedules.ticker.tasks(), **starter.tasks()}

    def _make_committer(self) -> Committer:
        """A committer with a channel of its own, whose exchanges lease for the worker of this process, if any."""
        piggyback = no_piggyback if self.service is None else self.service.exchange_loop.piggyback
        return Committer(self.store, self.decider, f"engine-{self.ids.run_id()}", self._committed, piggyback)

    def _own_task(self, name: str) -> Task[..., Any] | None:
        return self._own_tasks.get(name)

    async def _submit(self, asked: Submission) -> RunHandle[Any]:
        return await self.submitter.submit(asked)

    async def _cancel(self, run_id: str, force: bool) -> str:
        return await self.parts.cancel(run_id, force=force)

    async def __aenter__(self) -> Stemflow:
        """Open the store and start the worker. Raises StemflowError if the engine is open, StoreError.

        An engine that was closed may be opened again, on any event loop; what is in `memory:` is still there.
        """
        if self._lifecycle.open():
            if self._url is not None:
                self.store = open_store(self._url, self.clock)
            self._assemble()
        try:
            await self.store.open()
            try:
                if self.service is not None:
                    await self.service.start()
            except BaseException:
                await self.store.close()
                raise
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
            await self.stored_counts.finish()
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
        """Submit `what`, wait, and return the value (None if the run was skipped).

        `args` and `kwargs`: as in `submit`. Raises RunFailed if the run failed or was cancelled, and what `submit`
        raises.
        """
        handle = await self.submit(what, *args, **kwargs)
        result = await handle.wait()
        if result.status not in (SUCCEEDED, SKIPPED):
            raise RunFailed(result)
        return result.value

    @overload
    async def submit(
        self, what: Signature[Any, T], *args: Any, inputs: Mapping[str, Any] | None = None, run_id: str | None = None,
        headers: Mapping[str, str] | None = None, meta: Mapping[str, Any] | None = None,
        file: str | None = None, tasks: tuple[str, ...] = (), again: bool = False, no_cache: bool = False,
        **kwargs: Any,
    ) -> RunHandle[T]: ...  # fmt: skip
    @overload
    async def submit(
        self, what: Workflow, *args: Any, inputs: Mapping[str, Any] | None = None, run_id: str | None = None,
        headers: Mapping[str, str] | None = None, meta: Mapping[str, Any] | None = None,
        file: str | None = None, tasks: tuple[str, ...] = (), again: bool = False, no_cache: bool = False,
        **kwargs: Any,
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
        no_cache: bool = False,
        allow_unknown: bool = False,
        **kwargs: Any,
    ) -> RunHandle[Any]:
        """Store a run durably and return its handle.

        A task that is not registered here gets the options that a worker has declared. Submitting the same `run_id`
        with the same work again returns a handle of the same run (`existing`). Under a unique key that is held, the
        handle is the holder's (`existing`), or DuplicateRun is raised, as the mode of the key says.

        Args:
            what: a signature or a workflow.
            args: positional arguments of the first tasks of a canvas.
            kwargs: keyword arguments of the first tasks of a canvas.
            inputs: the inputs of a workflow, by name.
            headers: text by name, which each task of the run finds in `context.headers`.
            meta: JSON data by name, which each task of the run finds in `context.meta`.
            run_id: an id of your own, for an idempotent submission.
            file: the path of the workflow file, shown with the run.
            tasks: the modules of its tasks, shown with the run.
            again: ignore the result that a unique key keeps.
            no_cache: the tasks of the run neither read nor write cached results.
            allow_unknown: give a task that no worker has declared the defaults of the registry instead of refusing it.

        Raises:
            RunConflict: the `run_id` exists with other work.
            DuplicateRun: another run holds the unique key, in the mode `reject`.
            UnknownTask: a task is neither registered nor declared.
            InvalidInputs: `inputs` do not match what the workflow declares.
            StemflowError: also OptionError, CycleError, BadArguments, NotSerializable and StoreError.

        Example:
            `handle = await app.submit(add.s(1, 2), run_id="order-7")`
        """
        self._lifecycle.require()
        asked = Submission(
            what=what, args=args, kwargs=kwargs, inputs=inputs or {}, headers=headers or {}, meta=meta or {},
            run_id=run_id, file=file, tasks=tasks, again=again, no_cache=no_cache, allow_unknown=allow_unknown,
        )  # fmt: skip
        return await self.submitter.submit(from_handler(asked, self._propagated_headers))

    async def schedule(
        self,
        name: str,
        what: Signature[Any, Any] | str | os.PathLike[str],
        *,
        tasks: tuple[str, ...] = (),
        **when: Any,
    ) -> Applied:
        """Store a schedule: from now on `what` is started at each of its ticks, by whichever worker is there.

        `what`: a signature, or the path of a workflow file. `tasks`: shown with its runs. `when`: one of `cron`,
        `every`, `at` and `solar`, and the other keys of `on: schedule` (`timezone`, `inputs`, `overlap`, `catch_up`,
        `jitter`, `exclude`, `dst`, `queue`). A schedule of the same `name` that differs is replaced. Raises OptionError
        (ScheduleError for what is wrong in `when`), InvalidWorkflow, OSError.

        Example:
            `await app.schedule("nightly", "workflows/nightly.yaml", cron="30 2 * * *", timezone="Europe/Berlin")`
        """
        self._lifecycle.require()
        return await self.schedules.apply(head_of(name, what, spec_of(when), tasks))

    async def clear_cache(self, task: str | None = None) -> None:
        """Let no later call get an older cached result. Calls that run are not affected.

        `task`: the name of the task whose results are cleared; None clears those of all tasks.
        """
        self._lifecycle.require()
        await clear_cache(self.store, task)

    @property
    def signals(self) -> Signals:
        """The registry's signals: what happens in this process to its tasks and runs."""
        return self.registry.signals

    async def submit_many(
        self,
        signatures: Iterable[Signature[Any, Any]],
        *,
        run_ids: Iterable[str] | None = None,
        headers: Mapping[str, str] | None = None,
        meta: Mapping[str, Any] | None = None,
        again: bool = False,
        no_cache: bool = False,
        allow_unknown: bool = False,
    ) -> list[RunHandle[Any]]:
        """Submit many runs in few round trips; return their handles in order. Each is accepted or refused alone.

        Args:
            signatures: one for each run.
            run_ids: one id for each signature; an id that exists makes its handle `existing`, as in `submit`.
            headers: as in `submit`, for all runs.
            meta: as in `submit`, for all runs.
            again: as in `submit`, for all runs.
            no_cache: as in `submit`, for all runs.
            allow_unknown: as in `submit`, for all runs.

        Raises:
            NotAllSubmitted: some runs were refused; it has the handles of the others. If all were refused, what
                `submit` raises for the first.

        Example:
            `handles = await app.submit_many(mail.s(user) for user in users)`
        """
        self._lifecycle.require()
        common = Submission(
            what=EMPTY, headers=headers or {}, meta=meta or {}, again=again, no_cache=no_cache,
            allow_unknown=allow_unknown,
        )  # fmt: skip
        asked = submissions(signatures, run_ids, from_handler(common, self._propagated_headers))
        return await submit_many(self.parts, self.submitter, asked)

    def _committed(self, decision: Decision, facts: list[Fact], now_ms: int) -> None:
        self.decider.counting.count(self.library, decision, facts, now_ms)
        send_commit_signals(self.signals, self.library, decision, facts, now_ms)
        self.stored_counts.soon()
        if self.service is not None:
            self.service.slots.stop_handlers(decision)

    # -- runs that exist

    async def handle(self, run_id: str) -> RunHandle[Any]:
        """The handle of the run `run_id`. Raises UnknownRun."""
        self._lifecycle.require()
        (root,) = await self.store.read([(expect_id("handle", run_id), "")])
        if root is None:
            raise UnknownRun(run_id, self.store.url)
        return RunHandle(self.parts, run_id)

    @overload
    async def wait_for_task(
        self, task_id: str, timeout: Duration | None = None, *, decode: Callable[[Any], T]
    ) -> TaskResult[T]: ...
    @overload
    async def wait_for_task(self, task_id: str, timeout: Duration | None = None) -> TaskResult[Any]: ...
    async def wait_for_task(self, task_id: str, timeout: Any = None, *, decode: Any = None) -> TaskResult[Any]:
        """Wait for the end of a run or of one of its tasks, in whichever process it was submitted.

        Args:
            task_id: `RUN`, or `RUN/path` of a task (its `context.id`).
            timeout: the longest wait (a duration, or seconds), after which the result is `timed_out`; None: no limit.
            decode: a type or a function for the value; by default that of the registered task.

        Raises:
            UnknownRun: there is no such run, or the run has ended without reaching the task.
        """
        self._lifecycle.require()
        return await wait_by_id(self.parts, task_id, timeout, decode)

    @overload
    async def result(self, task_id: str, *, decode: Callable[[Any], T]) -> TaskResult[T]: ...
    @overload
    async def result(self, task_id: str) -> TaskResult[Any]: ...
    async def result(self, task_id: str, *, decode: Any = None) -> TaskResult[Any]:
        """The current result of the run or task `task_id` (`timed_out`: it has not ended). Raises UnknownRun.

        `decode`: as in `wait_for_task`.
        """
        self._lifecycle.require()
        return await result_by_id(self.parts, task_id, decode)

    async def why(self, task_id: str) -> Why:
        """Why a run, or one node of it, is not final: a reason for each of its open nodes.

        `task_id`: `RUN`, or `RUN/path`, which need not have begun. A reason has a `code` for programs and a `text` for
        people, and as far as they are known the holder that it waits for, its place in the queue, since when, until
        when, and the command that helps. Raises UnknownRun.

            for node in (await app.why(handle.id)).nodes:
                print(node.path, node.reasons[0].text)
        """
        self._lifecycle.require()
        return await why(self.store, self.library, task_id)

    async def metrics(self) -> str:
        """The metrics of the store in the text format of Prometheus: exact for all processes that there were."""
        self._lifecycle.require()
        return await exposition(self.store, self.library.trust, await self.schedules.instants())

    async def cancel(self, run_id: str, *, force: bool = False) -> str:
        """Cancel the run `run_id`; return the state it was in (`stopping`: it was cancelled before).

        Tasks that have not started become CANCELLED; running handlers are cancelled and may take time to end; hooks
        and compensation run. A run that has ended stays as it is. With `force` the run has ended when this returns:
        handlers, hooks and compensation are not waited for. Raises UnknownRun.
        """
        self._lifecycle.require()
        return await self.parts.cancel(run_id, force=force)

    async def rerun(self, run_id: str, *, failed: bool = False, from_step: str | None = None) -> RunHandle[Any]:
        """Start a new run of the same plan that keeps results of an ended one; return its handle.

        The dead letters of the old run are removed in the same commit. Give one of `failed` and `from_step`.

        Args:
            run_id: the run that has ended.
            failed: run again what did not succeed.
            from_step: run again this step and all that depend on it.

        Raises:
            UnknownRun: there is no such run.
            OptionError: none or both of the two are given, or there is no such step.
            DuplicateRun: another run holds the unique key.
        """
        self._lifecycle.require()
        return await rerun(self.parts, self.submitter, run_id, failed=failed, from_step=from_step)

    # -- events and approvals

    async def send_event(
        self, type: str, data: Any = None, *, id: str | None = None, keep: Duration | None = None
    ) -> SentEvent:
        """Send an event to every step that waits for it, and to those that begin to wait while it is kept.

        Args:
            type: The type of the event, such as `order.paid`.
            data: JSON data.
            id: An id, which makes the call idempotent: an event of the same type and id is stored once. Made up if it
                is left out.
            keep: How long the event and its id are kept (a duration, or seconds); a day by default.

        Returns:
            The type and id, and whether the event was there already (`existing`).

        Raises OptionError, UnitError, NotSerializable.

        Example:
            `await app.send_event("order.paid", {"order": "DE000042"}, id=payment.id)`
        """
        self._lifecycle.require()
        return await send_event(self.parts, type, data, id, keep)

    async def approve(
        self, run_id: str, step: str, *, by: str, note: str = "", inputs: Mapping[str, Any] | None = None
    ) -> None:
        """Approve a step that waits for it.

        Args:
            run_id: The id of the run.
            step: The path of the step, such as `release` or `map[3].release`.
            by: The name of the person, which must be among those that the step asks for. It is not authenticated.
            note: A text that is stored with the answer.
            inputs: What the step asks for with an approval.

        Repeating an answer changes nothing. Raises UnknownRun, NotWaiting, OptionError, and InvalidInputs.
        """
        self._lifecycle.require()
        await answer(self.parts, run_id, step, True, by, note, inputs or {})

    async def reject(self, run_id: str, step: str, *, by: str, note: str = "") -> None:
        """Reject a step that waits for an approval; it then fails, unless its definition says otherwise.

        `run_id`, `step`, `by` and `note`: as in `approve`, which also describes what is raised.
        """
        self._lifecycle.require()
        await answer(self.parts, run_id, step, False, by, note, {})

    async def approvals(self, run_id: str | None = None, *, limit: int = 10_000) -> list[Approval]:
        """The steps that wait for an answer: of the run `run_id`, or of those of the newest `limit` runs that go on."""
        self._lifecycle.require()
        return await approvals(self.parts, run_id, limit)

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
        """The dead letters that match all of the filters, newest first.

        Args:
            queue: of this queue alone.
            task: of this task alone.
            reason: why the task failed for good, such as `poison`.
            since: an aware datetime, or how long ago (in seconds, or `"1h"`).
            run: of this run alone.
            limit: at most this many; None: all.

        Raises:
            OptionError: a filter is not of its form; UnitError for a duration.
        """
        self._lifecycle.require()
        which = dead_letter_filter(self.store.now_ms(), queue, task, reason, since, limit)
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
        """Rerun the runs of these dead letters; return one answer for each run, in the order of its first letter.

        The new run keeps the results of the old one, as `rerun` does, and runs again what failed there, with all its
        attempts, after `delay`. All letters of the old run are removed in the commit that
        stores the new one. The id of the new run is derived from the old one, so a replay is idempotent. What cannot
        be replayed stays as it is, and its answer says why (`refused`).

        Args:
            letters: as `dead_letters` returns them.
            delay: the delay of the tasks that run again, in seconds or as a duration such as `"5m"`.
            dry_run: change nothing.
            allow_unknown: accept tasks that are neither registered here, nor declared by a worker.
            known_tasks: names of further tasks that are accepted.
        """
        self._lifecycle.require()
        options = ReplayOptions(duration_of("replay: delay", delay), dry_run, allow_unknown, frozenset(known_tasks))
        return await replay(self.parts, self.submitter, letters, options)

    async def purge(self, letters: Iterable[DeadLetter], *, dry_run: bool = False) -> list[DeadLetter]:
        """Delete the dead letters `letters`; return those that were in the store. Their runs are not changed.

        With `dry_run` nothing is deleted.
        """
        self._lifecycle.require()
        return await purge(self.store, self.ids, letters, dry_run)

    async def hand_back(self, grace_ms: int = 0) -> None:
        """Stop the worker: it takes no new leases, and gives back, uncharged, what still runs after `grace_ms`."""
        if self.service is not None:
            await self.service.stop(grace_ms)


__all__ = ["Stemflow"]
