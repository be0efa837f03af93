"""Prepares a submission: compiles its plan, checks its arguments, encodes its inputs. Nothing is stored here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec import Struct, structs

from stemflow.canvas import call
from stemflow.compile.freeze import compile_task, compile_tree
from stemflow.core.shape import shares_keys
from stemflow.errors import OptionError
from stemflow.model.effects import Pages
from stemflow.model.plan import Plan
from stemflow.model.policy import normalise
from stemflow.model.records import FINAL, NO_RUN, ClaimSpec, Header, Node
from stemflow.model.signature import AnySig, MapSig, TaskSig
from stemflow.model.subworkflow import body_of
from stemflow.model.tree import everything, first_task, walk
from stemflow.model.workflow import Workflow
from stemflow.ports import IdSource
from stemflow.runtime.catalog.remote_tasks import RemoteTasks
from stemflow.runtime.client.run_ids import colocated_run_id
from stemflow.runtime.commit.decider import Decider
from stemflow.runtime.commit.events import run_event
from stemflow.runtime.payloads.headers import checked_headers, checked_meta, merged
from stemflow.runtime.payloads.json_data import encode, plain, written
from stemflow.runtime.tasks.argument_checks import check_items, check_plan, plain_signature, task_names
from stemflow.runtime.tasks.registry import RemoteOptions, TaskRegistry
from stemflow.runtime.tasks.submission import Prepared, Submission, checked_submission, swallowed
from stemflow.runtime.tasks.task import Task
from stemflow.runtime.values.binding import pages_of, seal_literals
from stemflow.runtime.values.cached_results import cached_key
from stemflow.runtime.values.call_keys import key_text, lone_key
from stemflow.runtime.values.resolver import Values
from stemflow.runtime.values.value_codec import value_location


class _Recipe(Struct, frozen=True):
    """What all submissions of one registered task share, if the call gives no options of its own."""

    task: Task[..., Any]
    plan: Plan
    encoder: str


class _Compiled(Struct, frozen=True, gc=False):
    """A compiled canvas or workflow; `body` is the tree that its plan was made of."""

    plan: Plan
    body: AnySig
    name: str
    inputs: bytes = b"{}"
    claim: ClaimSpec | None = None
    headers: Mapping[str, str] = {}
    meta: Mapping[str, Any] = {}
    labels: Mapping[str, str] = {}


class Preparer:
    """Prepares the submissions of one engine. Keeps the compiled plans of single tasks."""

    def __init__(self, registry: TaskRegistry, decider: Decider, ids: IdSource) -> None:
        self._registry, self._decider, self._ids = registry, decider, ids
        self._store, self._library = decider.store, decider.library
        self._encoders = self._library.encoders
        self.remote_tasks = RemoteTasks(self._store, registry, decider.library)
        self._recipes: dict[str, _Recipe] = {}

    async def prepare(self, asked: Submission) -> Prepared:
        """Compile and check a submission. Raises what `Stemflow.submit` does, except DuplicateRun and RunConflict."""
        asked = checked_submission(asked)
        run = asked.run_id or self._ids.run_id()
        made = await self._compiled(asked, run)
        claim = made.claim or asked.claim
        if self._store.partition_of(run) != self._store.partition_of(NO_RUN) and (
            claim is not None or shares_keys(made.plan)
        ):
            self._library.headers.pop(run, None)
            if asked.run_id is not None:
                raise OptionError(
                    f"submit: run_id {run}: expected an id of the partition of the keys, since this run has "
                    "unique keys, concurrency keys or rate limits; leave run_id out, or choose one that is no UUIDv7"
                )
            run = colocated_run_id(self._ids, self._store, NO_RUN)
            made = await self._compiled(asked, run)
        now_ms = self._store.now_ms()
        header = Header(
            run=run,
            plan=made.plan.digest,
            name=made.name,
            inputs=made.inputs,
            created_at_ms=now_ms,
            base=0 if asked.run_id is None else now_ms // 1_000,
            claim=made.claim or asked.claim,
            not_before_ms=asked.not_before_ms,
            file=asked.file,
            tasks=asked.tasks,
            headers=merged(checked_headers(asked.headers, "submit"), made.headers) if asked.headers else made.headers,
            meta=merged(checked_meta(asked.meta, "submit"), made.meta) if asked.meta else made.meta,
            labels=made.labels,
            parent=asked.parent,
            root=asked.root,
            no_cache=asked.no_cache,
            reply_to=self._store.address,
        )
        if made.plan.digest not in self._library.shapes:
            self._library.learn(made.plan)
        signals = self._registry.signals
        if signals.before_publish.listeners:
            signals.before_publish.send(run_event("before_publish", header, now_ms))
        items = () if isinstance(made.body, TaskSig) else self._items_of(made.body, run)
        if asked.run_id is None:
            self._decider.expect_no_run(run)
        if asked.run_id is None or not await self._under_way(run):
            # The conditions of the first steps read both before they are stored.
            self._library.remember(header)
            for some in items:
                self._library.items.staged[some.key] = some.pages
        return Prepared(header, made.plan, items, made.body)

    async def _under_way(self, run: str) -> bool:
        """Whether a run of this id has not ended, whose cached header and items must not be replaced."""
        (root,) = await self._store.read([(run, "")])
        return isinstance(root, Node) and root.state not in FINAL

    async def _compiled(self, asked: Submission, run: str) -> _Compiled:
        what: Any = asked.what
        if isinstance(what, Workflow):
            return await self._workflow(what, run, asked, await self._others(what.body, asked))
        what = call(what, asked.args, asked.kwargs)
        self._refuse_swallowed(what, asked)
        if not isinstance(what, TaskSig) or what.has_follow_ups:
            return self._canvas(what, run, await self._others(what, asked))
        recipe = self._recipe(what)
        lone = self._lone(what, run, recipe, None if recipe is not None else await self._others(what, asked))
        if lone.claim is None or not lone.plan.options[0].cached:
            return lone
        key = await cached_key(self._store, what.task, lone.claim.key, (run, "") if asked.no_cache else None)
        return structs.replace(lone, claim=structs.replace(lone.claim, key=key))

    def _refuse_swallowed(self, sig: AnySig, asked: Submission) -> None:
        """Raise OptionError for a keyword that `submit` takes though it may be meant for the first task."""
        given = swallowed(asked)
        first = first_task(sig) if given and asked.parent is None else None
        parameters = None if first is None else self.remote_tasks.parameters(first.task)
        if first is None or parameters is None:
            return
        for name in given:
            bound = name in first.kwargs or parameters.place.get(name, len(first.args)) < len(first.args)
            if name in parameters.names and not bound:
                raise OptionError(
                    f"submit: {name}: expected it to be clear for whom it is, since {first.task} has a parameter of "
                    f"this name, too; write .s({name}=...) for the task"
                )

    async def _others(self, sig: Any, asked: Submission) -> RemoteOptions | None:
        """The options of tasks that only other processes have registered; see `RemoteTasks.look`."""
        return await self.remote_tasks.look(set(task_names(sig)), asked.allow_unknown)

    # -- one task

    def _lone(
        self, sig: TaskSig[Any, Any], run: str, recipe: _Recipe | None, remote: RemoteOptions | None
    ) -> _Compiled:
        parameters = self.remote_tasks.parameters(sig.task)
        if recipe is not None:
            plan, encoder = recipe.plan, recipe.encoder
        else:
            plan = compile_task(sig, lambda sig: self._registry.lone_options_of(sig, remote))
            encoder = self._args_encoder(sig)
        where = f"arguments of {sig.task}"
        args, kwargs = sig.args, sig.kwargs
        if encoder == "json":
            args, kwargs = tuple(plain(args, where)), plain(kwargs, where)
        if parameters is not None:
            parameters.check(args, kwargs)
        if encoder == "json":
            inputs = written({"args": args, "kwargs": kwargs}, where)
        else:
            write = self._encoders.writer(encoder, value_location(run, "", "inputs"))
            inputs = write({"args": list(args), "kwargs": dict(kwargs)}, where)
        claim = None
        if plan.options[0].unique:
            options = self._registry.options_of(sig, None, remote)
            if parameters is not None:
                args, kwargs = parameters.canonical(args, kwargs)
            key = lone_key(sig.task, options, (args, kwargs))
            claim = ClaimSpec(key, options.unique_mode, options.unique_for_ms)
        return _Compiled(plan, sig, sig.task, inputs, claim, sig.headers, sig.meta)

    def _recipe(self, sig: TaskSig[Any, Any]) -> _Recipe | None:
        """The shared parts of a call; None if the call has options or times of its own."""
        task = self._registry.get(sig.task)
        if task is None or sig.options or sig.countdown_ms or sig.eta_at_ms:
            return None
        found = self._recipes.get(sig.task)
        if found is None or found.task is not task:
            plan = compile_task(sig, self._registry.lone_options_of)
            found = self._recipes[sig.task] = _Recipe(task, plan, self._args_encoder(sig))
        return found

    # -- canvases and workflows

    def _canvas(self, sig: AnySig, run: str, remote: RemoteOptions | None) -> _Compiled:
        sig = plain_signature(sig, self._as_json)
        encode([*self._literals(sig)], "arguments", limit=1 << 40)
        plan, tree = compile_tree(sig, lambda sig: self._registry.options_of(sig, None, remote))
        check_plan(plan, self.remote_tasks.parameters)
        check_items(tree, self.remote_tasks.parameters)
        name = tree.name or type(tree).__name__[:-3].lower()
        return _Compiled(seal_literals(plan, self._encoders, run), tree, name)

    async def _workflow(
        self, flow: Workflow, run: str, asked: Submission, remote: RemoteOptions | None
    ) -> _Compiled:
        # A program that has a Workflow has loaded this module already; others do not pay for the import.
        from stemflow.runtime.client.workflow_files import complete_inputs  # noqa: PLC0415

        inputs = complete_inputs(flow, asked.inputs)
        defaults = normalise(flow.task_defaults, "defaults.task")
        plan, tree = compile_tree(
            body_of(flow),
            lambda sig: self._registry.options_of(sig, defaults, remote),
            variables=flow.vars,
            outputs=flow.outputs,
            compensate_on=flow.compensate_on,
            run_hooks=True,
        )
        check_plan(plan, self.remote_tasks.parameters)
        write = self._encoders.writer(self._encoders.args, value_location(run, "", "inputs"))
        stored = write(inputs, "inputs")
        claim = None
        if flow.unique_key is not None:
            header = Header(run=run, plan=plan.digest, name=flow.name, inputs=stored)
            claim = await self._workflow_claim(flow, plan, header, asked.again)
        labels = {name: str(text) for name, text in flow.labels.items()}
        return _Compiled(plan, tree, flow.name, stored, claim, labels=labels)

    async def _workflow_claim(self, flow: Workflow, plan: Plan, header: Header, again: bool) -> ClaimSpec:
        self._library.learn(plan)
        self._library.headers[header.run] = header
        root = Node(run=header.run, path="", plan=plan.digest, node=0, state="waiting")
        binder = await self._decider.binder(plan.digest)
        key = await binder.template(Values(self._library), root, flow.unique_key)
        mode = "take" if again else flow.unique_mode
        return ClaimSpec(f"workflow:{flow.name}:{key_text(key)}", mode, flow.unique_for_ms)

    def _args_encoder(self, sig: TaskSig[Any, Any] | None) -> str:
        return self.remote_tasks.args_encoder(sig, self._encoders.args)

    def _as_json(self, sig: TaskSig[Any, Any]) -> bool:
        return self._args_encoder(sig) == "json"

    def _literals(self, sig: AnySig) -> list[Any]:
        """Every argument that the canvas was given and that is stored as JSON, to be checked."""
        tasks = [one for one in everything(sig) if isinstance(one, TaskSig) and self._as_json(one)]
        return [given for one in tasks for given in (list(one.args), dict(one.kwargs))]

    def _items_of(self, sig: AnySig, run: str) -> tuple[Pages, ...]:
        """Items that the canvas was given, in pages; they are stored in the commit that makes the run."""
        found = []
        for path, one in walk(sig):
            # A map inside a map has its items in the plan.
            if isinstance(one, MapSig) and isinstance(one.items, tuple) and "*" not in path:
                encoder = self._args_encoder(first_task(one.do))
                where = value_location(run, path, "items")
                pages = pages_of(one.items, f"items of {path or 'the map'}", self._encoders, encoder, where)
                found.append(Pages((run, path), pages))
        return tuple(found)
