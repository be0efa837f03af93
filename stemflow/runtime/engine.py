"""The front door: `Stemflow` submits, waits, cancels, reruns, and holds the embedded worker."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import Any, TypeVar, overload

from msgspec import structs

from stemflow.canvas import call
from stemflow.compile.desugar import desugar
from stemflow.compile.edges import first_task, members_of
from stemflow.compile.freeze import compile_plan, compile_task
from stemflow.core.shape import Shape
from stemflow.errors import OptionError, StemflowError
from stemflow.model.effects import Decision, Pages
from stemflow.model.facts import Fact, Requested, Stop
from stemflow.model.plan import Plan
from stemflow.model.policy import Duration, normalise
from stemflow.model.records import FINAL, SKIPPED, SUCCEEDED, ClaimSpec, Header, Node, child_path
from stemflow.model.signature import AnySig, MapSig, Signature, TaskSig, Workflow
from stemflow.ports import Clock, IdSource
from stemflow.runtime.advance import Advance
from stemflow.runtime.bind import pages_of, seal_literals
from stemflow.runtime.bulk import submit_many
from stemflow.runtime.clock import SystemClock, SystemIds
from stemflow.runtime.commits import Commits
from stemflow.runtime.elsewhere import Elsewhere
from stemflow.runtime.encoders import TaskPayloadEncoderRegistry
from stemflow.runtime.handle import DuplicateRun, RunFailed, RunHandle, TaskResult, UnknownRun
from stemflow.runtime.headers import TRACE_HEADERS, checked_headers, checked_meta, merged
from stemflow.runtime.isolate import Processes
from stemflow.runtime.keys import key_text, lone_key
from stemflow.runtime.payload import encode
from stemflow.runtime.prepare import args_encoder, check_items, check_plan, plain_signature, task_names
from stemflow.runtime.registry import OptionsElsewhere, TaskRegistry
from stemflow.runtime.rerun import redo_paths, stored_maps
from stemflow.runtime.service import Service
from stemflow.runtime.signals import Signals
from stemflow.runtime.signing import SigningKeys, Trust
from stemflow.runtime.submission import Prepared, Submission
from stemflow.runtime.telling import run_event, tell_commit
from stemflow.runtime.values import Library, Values, place
from stemflow.runtime.waiting import result_by_id, wait_by_id
from stemflow.store.base import Store
from stemflow.store.open import open_store
from stemflow.units import parse_duration_ms

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
        self.encoders = encoders or self.registry.encoders
        self.library = Library(self.store, self.encoders, Trust(signing or self.registry.signing))
        self.propagated_headers = propagated_headers
        self.advance = Advance(self.store, self.library)
        self.commits = Commits(self.store, self.advance, f"engine-{self.ids.run_id()}", self._committed)
        self._tasks: dict[tuple[str, str], Plan] = {}
        self.elsewhere = Elsewhere(self.store)
        away_ms = parse_duration_ms(unroutable_after)
        self.service = Service(self, concurrency, queues, only_run, processes, name, away_ms) if worker else None

    async def __aenter__(self) -> Stemflow:
        await self.store.open()
        if self.service is not None:
            await self.service.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.service is not None:
            await self.service.stop(0)
        await self.signals.settle()
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
        Submitting the same `run_id` again answers the same run. Under a unique key that is held the handle is the
        holder's (`existing`), or DuplicateRun is raised, as its mode says. Raises UnknownTask, OptionError, CycleError,
        BadArguments, NotSerializable; for a workflow InvalidInputs, when `inputs` do not fit what it declares.
        """
        asked = Submission(
            what=what, args=args, kwargs=kwargs, inputs=inputs or {}, headers=headers or {}, meta=meta or {},
            run_id=run_id, file=file, tasks=tasks, again=again, allow_unknown=allow_unknown,
        )  # fmt: skip
        return await self.accept(asked)

    @property
    def signals(self) -> Signals:
        """The registry's signals: what happens in this process to its tasks and runs."""
        return self.registry.signals

    async def accept(self, asked: Submission) -> RunHandle[Any]:
        """The one way into the store, past the middlewares: of `submit`, and of tasks that start runs."""
        chain = self.registry.middleware
        return await (chain.enqueue(asked, self._accept) if chain.on_enqueue else self._accept(asked))

    async def submit_many(self, signatures: Iterable[Signature[Any, Any]]) -> list[RunHandle[Any]]:
        """Submit many runs in few round trips; their handles in order.

        Each is a run of its own that is stored or refused alone. DuplicateRun is raised when all are through.
        """
        return await submit_many(self, signatures)

    async def _accept(self, asked: Submission) -> RunHandle[Any]:
        one = await self.prepare(asked)
        try:
            return self.handle_of(one, await self.commit([Requested(one.header)], one))
        finally:
            self.unstage(one)

    def unstage(self, one: Prepared) -> None:
        """The items of a submission are in the store now, or never will be."""
        for some in one.items:
            self.library.staged.pop(some.key, None)

    async def prepare(self, asked: Submission) -> Prepared:
        """Compile and check what was asked for; nothing is stored yet."""
        if asked.run_id == "":
            raise OptionError("submit: expected a run id that is not empty")
        run = asked.run_id or self.ids.run_id()
        now_ms = self.store.now_ms()
        header = Header(
            run=run,
            plan="",
            created_at_ms=now_ms,
            base=0 if asked.run_id is None else now_ms // 1_000,
            file=asked.file,
            tasks=asked.tasks,
            headers=checked_headers(asked.headers, "submit"),
            meta=checked_meta(asked.meta, "submit"),
            parent=asked.parent,
            root=asked.root,
            reply_to=self.store.address,
        )
        body = asked.what.body if isinstance(asked.what, Workflow) else asked.what
        missing = {name for name in task_names(body) if name not in self.registry}
        elsewhere = await self.elsewhere.look(missing, asked.allow_unknown) if missing else None
        if isinstance(asked.what, Workflow):
            header, plan, body = await self._workflow(asked.what, header, asked.inputs, asked.again, elsewhere)
        else:
            header, plan, body = self._canvas(call(asked.what, asked.args, asked.kwargs), header, elsewhere)
        if plan.digest not in self.library.shapes:
            self.library.shapes[plan.digest] = Shape(plan)
        if self.signals.before_publish:
            self.signals.before_publish.send(run_event("before_publish", header, self.store.now_ms()))
        if asked.run_id is None:
            self.advance.made(run)
        self.library.remember(header)  # gates of the first steps ask for it before it is stored
        items = self._items_of(body, run)
        if items and (asked.run_id is None or await self.store.read([(run, "")]) == [None]):
            self.library.staged.update((some.key, some.pages) for some in items)  # gates of members may ask for them
        return Prepared(header, plan, items, body)

    def handle_of(self, one: Prepared, decision: Decision) -> RunHandle[Any]:
        """The handle of what was submitted, after its commit; raises DuplicateRun when its key is held."""
        header = one.header
        if not decision.headers or any(end.run == header.run for end in decision.ended):
            self.library.headers.pop(header.run, None)
        reply = next((reply for reply in decision.replies), None)
        if reply is None:
            raise StemflowError(f"run {header.run}: the store answered nothing to its submission")
        if reply.status == "refused":
            raise DuplicateRun(reply.run)
        existing = reply.status == "existing"
        if self.signals.after_publish:
            told = run_event("after_publish", header, self.store.now_ms(), run_id=reply.run, existing=existing)
            self.signals.after_publish.send(told)
        asked = None if one.body is None else (one.plan.digest, one.body)
        return RunHandle(self, reply.run, existing=existing, holder=reply.holder, known=True, asked=asked)

    async def _workflow(
        self, flow: Workflow, header: Header, inputs: Mapping[str, Any], again: bool, elsewhere: OptionsElsewhere | None
    ) -> tuple[Header, Plan, AnySig]:
        # Whoever has a Workflow has loaded this module already; others do not pay for it.
        from stemflow.runtime.workflows import complete_inputs  # noqa: PLC0415

        inputs = complete_inputs(flow, inputs)
        defaults = normalise(flow.task_defaults, "defaults.task")
        body = flow.body if flow.timeout_ms is None else structs.replace(flow.body, timeout_ms=flow.timeout_ms)
        if flow.concurrency is not None:
            body = structs.replace(body, concurrency=flow.concurrency)
        plan = compile_plan(
            body,
            lambda sig: self.registry.options_of(sig, defaults, elsewhere),
            variables=flow.vars,
            outputs=flow.outputs,
            compensate_on=flow.compensate_on,
        )
        check_plan(plan, self.registry)
        write = self.encoders.writer(self.encoders.args, place(header.run, "", "inputs"))
        header = structs.replace(header, plan=plan.digest, name=flow.name, inputs=write(inputs, "inputs"))
        if flow.unique_key is not None:
            self.library.shapes.setdefault(plan.digest, Shape(plan))
            self.library.headers[header.run] = header
            root = Node(run=header.run, path="", plan=plan.digest, node=0, state="waiting")
            binder = await self.advance.binder(plan.digest)
            key = await binder.template(Values(self.library), root, flow.unique_key)
            mode = "take" if again else flow.unique_mode
            spec = ClaimSpec(f"workflow:{flow.name}:{key_text(key)}", mode, flow.unique_for_ms)
            header = structs.replace(header, claim=spec)
        return header, plan, desugar(body)

    def _canvas(self, sig: Any, header: Header, elsewhere: OptionsElsewhere | None) -> tuple[Header, Plan, AnySig]:
        sig = plain_signature(sig, self._as_json)
        if isinstance(sig, TaskSig) and not (sig.success_hooks or sig.failure_hooks or sig.cancel_hooks):
            plan = self._task_plan(sig, elsewhere)
            task = self.registry.get(sig.task)
            if task is not None:
                task.parameters.check(sig.args, sig.kwargs)
            write = self.encoders.writer(self._args_encoder(sig), place(header.run, "", "inputs"))
            inputs = write({"args": list(sig.args), "kwargs": dict(sig.kwargs)}, f"arguments of {sig.task}")
            if plan.options[0].unique:
                options = self.registry.options_of(sig, None, elsewhere)
                spec = ClaimSpec(lone_key(sig.task, options, (sig.args, sig.kwargs)), options.unique_mode,
                                 options.unique_for_ms)  # fmt: skip
                header = structs.replace(header, claim=spec)
            header = structs.replace(
                header,
                plan=plan.digest,
                name=sig.task,
                inputs=inputs,
                headers=merged(header.headers, sig.headers),
                meta=merged(header.meta, sig.meta),
            )
            return header, plan, sig
        encode([*self._literals(sig)], "arguments", limit=1 << 40)
        sig = desugar(sig)
        plan = compile_plan(sig, lambda sig: self.registry.options_of(sig, None, elsewhere))
        check_plan(plan, self.registry)
        check_items(sig, self.registry)
        plan = seal_literals(plan, self.encoders, header.run)
        return structs.replace(header, plan=plan.digest, name=sig.name or type(sig).__name__[:-3].lower()), plan, sig

    def _args_encoder(self, sig: TaskSig[Any, Any] | None) -> str:
        return args_encoder(sig, self.registry, self.encoders)

    def _as_json(self, sig: TaskSig[Any, Any]) -> bool:
        return self._args_encoder(sig) == "json"

    def _literals(self, sig: AnySig) -> list[Any]:
        """Every argument that the canvas was given and that is stored as JSON, to be checked."""
        found: list[Any] = []
        if isinstance(sig, TaskSig) and self._as_json(sig):
            found += [list(sig.args), dict(sig.kwargs)]
        for _, member in members_of(sig):
            found += self._literals(member)
        return found

    def _items_of(self, sig: AnySig, run: str) -> tuple[Pages, ...]:
        """Items that the canvas was given, in pages; they are stored in the commit that makes the run."""
        found = []
        for path, one in _maps(sig):
            if isinstance(one.items, tuple):
                encoder = self._args_encoder(first_task(one.do))
                where = place(run, path, "items")
                pages = pages_of(one.items, f"items of {path or 'the map'}", self.encoders, encoder, where)
                found.append(Pages((run, path), pages))
        return tuple(found)

    def _task_plan(self, sig: TaskSig[Any, Any], elsewhere: OptionsElsewhere | None) -> Plan:
        if sig.options or sig.countdown_ms or sig.eta_at_ms or elsewhere is not None:
            return compile_task(sig, lambda sig: self.registry.lone_options_of(sig, elsewhere))
        found = self._tasks.get((sig.task, ""))
        if found is None:
            found = self._tasks[(sig.task, "")] = compile_task(sig, self.registry.lone_options_of)
        return found

    async def commit(self, facts: list[Fact], prepared: Prepared | None = None) -> Decision:
        """Decide and commit, again while it is stale."""
        return await self.commits.one(facts, prepared)

    def _committed(self, decision: Decision, facts: list[Fact]) -> None:
        tell_commit(self.signals, self.library, decision, facts, self.store.now_ms())
        if self.service is not None:
            self.service.heard(decision)

    # -- runs that exist

    async def handle(self, run_id: str) -> RunHandle[Any]:
        """The handle of a run by its id; raises UnknownRun."""
        (root,) = await self.store.read([(run_id, "")])
        if root is None:
            raise UnknownRun(run_id, self.store.url)
        return RunHandle(self, run_id)

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
        return await wait_by_id(self, task_id, timeout, decode)

    @overload
    async def result(self, task_id: str, *, decode: Callable[[Any], T]) -> TaskResult[T]: ...
    @overload
    async def result(self, task_id: str) -> TaskResult[Any]: ...
    async def result(self, task_id: str, *, decode: Any = None) -> TaskResult[Any]:
        """How a run or a task stands now (`timed_out`: it has not ended); raises UnknownRun."""
        return await result_by_id(self, task_id, decode)

    async def cancel(self, run_id: str) -> str:
        """Stop everything of a run that has not ended; answers the state that it was in. Raises UnknownRun."""
        (root,) = await self.store.read([(run_id, "")])
        if not isinstance(root, Node):
            raise UnknownRun(run_id, self.store.url)
        if root.state not in FINAL:
            await self.commit([Stop((run_id, ""))])
        return root.state

    async def rerun(self, run_id: str, *, failed: bool = False, from_step: str | None = None) -> RunHandle[Any]:
        """A new run of the same plan that keeps the results of the old one.

        `failed`: only what did not succeed runs again; `from_step`: that step and all that depends on it. The old run
        must have ended.
        """
        if failed == (from_step is not None):
            raise OptionError("rerun: expected either failed or from_step")
        (root,) = await self.store.read([(run_id, "")])
        if not isinstance(root, Node):
            raise UnknownRun(run_id, self.store.url)
        if root.state not in FINAL:
            raise OptionError(f"rerun: expected run {run_id} to have ended, it is {root.state}; cancel it first")
        old = await self.library.header(run_id)
        shape = await self.library.shape(old.plan)
        redo = () if from_step is None else redo_paths(shape, from_step)
        run = self.ids.run_id()
        claim = None if old.claim is None else structs.replace(old.claim, mode="take")
        header = structs.replace(
            old,
            run=run,
            inputs=await self._inputs_of(root, old),
            created_at_ms=self.store.now_ms(),
            base=0,
            not_before_ms=0,
            rerun_of=run_id,
            origin=old.origin or run_id,
            redo=redo,
            claim=claim,
            reply_to=self.store.address,
            seal=None,
        )
        await self._copy_items(shape, run_id, run)
        self.library.headers[run] = header
        one = Prepared(header, shape.plan)
        return self.handle_of(one, await self.commit([Requested(header)], one))

    async def _inputs_of(self, root: Node, header: Header) -> bytes:
        """The inputs of a run for another of the same; they may be those of a later submission that was debounced."""
        if root.inputs is None:
            return header.inputs
        inputs = await Values(self.library).inputs(header, root)
        write = self.encoders.writer(self.encoders.args, place(header.origin or header.run, "", "inputs"))
        return write(inputs, "inputs")

    async def _copy_items(self, shape: Shape, old: str, new: str) -> None:
        for path in stored_maps(shape):
            number = 0
            while (page := await self.store.page((old, path), number)) is not None:
                await self.store.put_pages((new, path), number, [page])
                number += 1

    async def hand_back(self, grace_ms: int = 0) -> None:
        """Lease nothing more, and after `grace_ms` give back what runs, uncharged; runs stay active."""
        if self.service is not None:
            await self.service.stop(grace_ms)


def _maps(sig: AnySig) -> list[tuple[str, MapSig[Any, Any]]]:
    """The maps of a tree with their paths; a map inside a map has its items by expression, not by value."""
    found = [("", sig)] if isinstance(sig, MapSig) else []
    if not isinstance(sig, MapSig):
        for segment, member in members_of(sig):
            found += [(child_path(segment, path) if path else segment, one) for path, one in _maps(member)]
    return found


__all__ = ["Stemflow"]
