"""The registry of tasks: their names, handlers, parameters and options."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Concatenate, ParamSpec, TypeVar, overload

from msgspec import structs

from stemflow.compile.arguments import ArgumentFault
from stemflow.core.rates import is_late
from stemflow.errors import OptionError, StemflowError
from stemflow.model.options import TaskOptions, given_options
from stemflow.model.policy import Options, effective, normalise
from stemflow.model.signature import TaskSig
from stemflow.model.workflow import Workflow
from stemflow.runtime.payloads.converters import Converter
from stemflow.runtime.payloads.encoders import TaskPayloadEncoderRegistry
from stemflow.runtime.payloads.signing import SigningKeys
from stemflow.runtime.tasks.callables import check_callable, derived_name
from stemflow.runtime.tasks.context import TaskContext
from stemflow.runtime.tasks.definitions import Args, Result, TaskDefinition, TaskHandler, TaskMetadata
from stemflow.runtime.tasks.lifespan import Lifespans
from stemflow.runtime.tasks.middleware import Middleware, MiddlewareChain
from stemflow.runtime.tasks.placement import check_placement
from stemflow.runtime.tasks.rate_limiter import RateLimiter, checked_limiter
from stemflow.runtime.tasks.retry_decision import RetryStrategy, checked_strategy
from stemflow.runtime.tasks.secrets import SecretProvider, Secrets
from stemflow.runtime.tasks.signals import RegistryEvent, Signals
from stemflow.runtime.tasks.sync_context import SyncTaskContext
from stemflow.runtime.tasks.task import Task, check_condition, check_keys, schema_of, task_of
from stemflow.runtime.values.call_keys import with_evaluated_key

P = ParamSpec("P")
Q = ParamSpec("Q")
R = TypeVar("R")
A = TypeVar("A")
A_contra = TypeVar("A_contra", contravariant=True)
R_co = TypeVar("R_co", covariant=True)
P2 = TypeVar("P2", bound=SecretProvider)
F = TypeVar("F", bound=Callable[..., Any])




RemoteOptions = Callable[[str], Mapping[str, Any] | None]
"""Gives the options of a task that another process has registered; None if no worker has declared it."""


class UnknownTask(StemflowError):
    """No task is registered under this name."""


class DuplicateTask(StemflowError):
    """Two tasks were registered under one name."""


class Decorator:
    """The decorator that `registry.task(...)` returns; typed so that `.s()` knows the parameters of the function."""

    def __init__(
        self, registry: TaskRegistry, name: str | None, options: Mapping[str, Any], metadata: TaskMetadata | None,
        retry_strategy: RetryStrategy | None,
    ) -> None:  # fmt: skip
        self.registry, self.name, self.options, self.metadata = registry, name, options, metadata
        self.retry_strategy = retry_strategy

    @overload
    def __call__(self, function: Callable[Concatenate[TaskContext, P], Awaitable[R]]) -> Task[P, R]: ...
    @overload
    def __call__(self, function: Callable[Concatenate[SyncTaskContext, P], R]) -> Task[P, R]: ...
    @overload
    def __call__(self, function: Callable[Concatenate[TaskContext, P], R]) -> Task[P, R]: ...
    @overload
    def __call__(self, function: Callable[P, Awaitable[R]]) -> Task[P, R]: ...
    @overload
    def __call__(self, function: Callable[P, R]) -> Task[P, R]: ...
    def __call__(self, function: Callable[..., Any]) -> Task[..., Any]:
        check_callable(f"task {self.name or ''}".rstrip(), function)
        name = derived_name(function) if self.name is None else self.name
        local = sys._getframe(1).f_locals  # annotations may name classes of the same scope
        task: Task[..., Any] = Task(
            name, function, self.options, self.metadata, local=local, retry_strategy=self.retry_strategy
        )
        self.registry.register(task)
        return task


class TaskRegistry:
    """The tasks of a program by name. Only a registered name can become code: workflows and stores cannot add tasks.

    `retry_strategy`: gives the delays of retries, unless the task or the call has delays of its own. `rate_limiter`:
    asked by workers before they start a task with a group rate limit. `defaults`: options (as TaskOptions) of all tasks
    that do not set them. Raises OptionError.

        registry = TaskRegistry(max_retries=3)

        @registry.task("orders.charge", hard_time_limit="30s")
        async def charge(order: str, cents: int) -> str: ...
    """

    def __init__(
        self, *, retry_strategy: RetryStrategy | None = None, rate_limiter: RateLimiter | None = None, **defaults: Any
    ) -> None:
        self.defaults = normalise(defaults, "registry defaults")
        self.retry_strategy = checked_strategy(retry_strategy, "registry")
        self.rate_limiter = checked_limiter(rate_limiter)
        self.home: str = sys._getframe(1).f_globals.get("__name__", "")
        """The module that made the registry; processes of the pool import it to find its tasks."""
        self.encoders = TaskPayloadEncoderRegistry()
        """The encoders of stored values, unless `Stemflow(encoders=...)` has others."""
        self.signals = Signals()
        """Events of the tasks and runs of this registry in this process: `signals.failed.connect(listener)`."""
        self.middleware = MiddlewareChain()
        self.signing: SigningKeys | None = None
        self.lifespans = Lifespans()
        self.secrets = Secrets()
        self._tasks: dict[str, Task[..., Any]] = {}
        self._workflows: dict[str, Workflow] = {}

    def copy(self) -> TaskRegistry:
        """Return an independent registry with the same tasks, defaults, encoders and middlewares.

        Its signals have no listeners.
        """
        twin = TaskRegistry()
        twin._set_up_as(self, self.encoders)
        twin.middleware = self.middleware.copy()
        twin.lifespans.join(self.lifespans)
        twin.secrets = self.secrets.copy()
        twin._tasks = dict(self._tasks)
        twin._workflows = dict(self._workflows)
        return twin

    @classmethod
    def joined(cls, registries: Sequence[TaskRegistry], encoders: TaskPayloadEncoderRegistry) -> TaskRegistry:
        """One registry with the tasks, middlewares, lifespans and listeners of all `registries`, and with `encoders`.

        Defaults, strategy, limiter and keys are those of the first; all must have the same. Raises DuplicateTask when
        two of them hold the same name.
        """
        joined = cls()
        joined._set_up_as(registries[0], encoders)
        joined.signing = registries[0].signing
        for registry in registries:
            joined.middleware.join(registry.middleware)
            joined.lifespans.join(registry.lifespans)
            joined.signals.join(registry.signals)
            joined.secrets.join(registry.secrets)
            for task in registry._tasks.values():
                joined.register(task)
            for name, workflow in registry.workflows.items():
                joined.add_workflow(workflow, name)
        return joined

    def _set_up_as(self, other: TaskRegistry, encoders: TaskPayloadEncoderRegistry) -> None:
        self.defaults, self.retry_strategy, self.rate_limiter = other.defaults, other.retry_strategy, other.rate_limiter
        self.encoders = encoders

    def lifespan(self, function: F) -> F:
        """Register what workers set up before their tasks and take down afterwards; what it yields is `context.state`.

        `function`: an async generator function (or a class of async context managers) is entered when a worker starts,
        before it leases anything, and left after its last report. A plain one is entered by each process of the pool
        for `isolation="process"` before its first task, and left when the process ends in order; a process that is
        killed does not leave it. Returns the function. Raises OptionError.

            @registry.lifespan
            async def database():
                async with connect("postgres://...") as pool:
                    yield {"pool": pool}
        """
        self.lifespans.add(function)
        return function

    def secret_provider(self, name: str) -> Callable[[P2], P2]:
        """Register a function that gives the values of secrets in workflow files: `secrets: {db: {NAME: KEY}}`.

        Args:
            name: the name of the provider in workflow files; `env` and `file` replace the built-in ones.

        Returns:
            A decorator for a plain function, which is called in a thread, or an async one: it gets the key, and returns
            the value as a text. It is asked before each attempt of a task that reads the secret; if it raises, the
            attempt fails and is retried as the task says.

        Raises:
            OptionError: the name is empty, or what is decorated cannot be called.

        Example:
            `@registry.secret_provider("vault")`
        """

        def add(provider: P2) -> P2:
            self.secrets.add(name, provider)
            return provider

        return add

    def thread_cleanup(self, function: F) -> F:
        """Register a function to be called after each handler that is a plain function, in its thread.

        `function`: has no parameters; for example, it returns database connections. What it raises is logged. Returns
        the function.
        """
        self.lifespans.add_clean_up(function)
        return function

    def use(self, middleware: Middleware) -> None:
        """Add `middleware`; the first one that is added is the outermost. Raises OptionError."""
        self.middleware.add(middleware)

    @overload
    def register(self, task: TaskHandler[Args, Result], override: bool = False) -> TaskDefinition[Args, Result]: ...
    @overload
    def register(self, task: Task[P, R], override: bool = False) -> Task[P, R]: ...
    def register(self, task: Any, override: bool = False) -> Any:
        """Add `task`: a Task, or an instance of a TaskHandler.

        `override`: replace a task of the same name. Returns the task, or the TaskDefinition with which a handler is
        called. Raises DuplicateTask, OptionError.
        """
        made = task_of(task) if isinstance(task, TaskHandler) else task
        if not isinstance(made, Task):
            raise OptionError(
                f"register: expected a Task or an instance of a TaskHandler, got {task!r}; "
                'decorate a function with @registry.task("name")'
            )
        if not override and made.name in self._tasks:
            raise DuplicateTask(
                f"task {made.name}: expected a new name, it is registered already; pass override=True to replace it"
            )
        self._tasks[made.name] = made
        if self.signals.registered:
            self.signals.registered.send(RegistryEvent(signal="registered", task=made.name))
        if made is task:
            return made
        decode = None if made.result.convert is None else made.result.annotation
        return TaskDefinition(made.name, decode_result=decode)

    def task(
        self,
        name: str | None = None,
        *,
        options: TaskOptions | None = None,
        metadata: TaskMetadata | None = None,
        retry_strategy: RetryStrategy | None = None,
        **more: Any,
    ) -> Decorator:
        """Register a function as a task: an `async def` on the event loop, or a plain `def` in a thread.

            @registry.task("orders.charge", max_retries=3, hard_time_limit="30s")
            async def charge(context: TaskContext, order: str, cents: int) -> str: ...

        `name`: 1 to 200 visible characters without spaces; default: `module.function`. `options`: a TaskOptions object.
        `more`: options as keywords, which win: `queue`, `priority` (0 to 9), `max_retries`, `retry`, `soft_time_limit`,
        `hard_time_limit`, `rate_limit`, `unique`, `isolation` and the others of TaskOptions. `metadata`: describes the
        task. `retry_strategy`: gives the delays of its retries.

        The first parameter may be annotated with TaskContext (SyncTaskContext for a plain function); it is not an
        argument of the task. Raises OptionError for wrong options or annotations, and for generators; DuplicateTask.
        """
        if name is not None and not isinstance(name, str):
            raise OptionError('registry.task: expected a name, got a function; write @registry.task("name")')
        return Decorator(self, name, given_options(options, more), metadata, retry_strategy)

    def get(self, name: str) -> Task[..., Any] | None:
        """The task with the name `name`; None if there is none."""
        return self._tasks.get(name)

    def result_converter(self, task: str) -> Converter | None:
        """The converter to the annotated result type of `task`; None when it is not registered here."""
        found = self._tasks.get(task)
        return None if found is None else found.result

    def __contains__(self, name: object) -> bool:
        return name in self._tasks

    def __iter__(self) -> Iterator[str]:
        return iter(self._tasks)

    def __len__(self) -> int:
        return len(self._tasks)

    @property
    def workflows(self) -> Mapping[str, Workflow]:
        """The registered workflows by name."""
        return self._workflows

    def add_workflow(self, workflow: Workflow, name: str | None = None) -> None:
        """Register a workflow, so that steps of files can call it by its name: `workflow: {ref: NAME}`.

        Args:
            workflow: What `load_workflow` read.
            name: By default the `name` of the workflow.

        Raises:
            OptionError: Another workflow has the name, or the name is that of a file.

        Example:
            `registry.add_workflow(load_workflow("workflows/refund.yaml"))`
        """
        name = workflow.name if name is None else name
        if "/" in name or name.endswith((".yaml", ".yml")):
            raise OptionError(f"add_workflow: expected a name, got {name!r}, which is the path of a file")
        if self._workflows.setdefault(name, workflow) is not workflow:
            raise OptionError(f"add_workflow: {name}: a workflow is registered under this name already")

    def options_of(
        self,
        sig: TaskSig[Any, Any],
        workflow_defaults: Mapping[str, Any] | None = None,
        remote: RemoteOptions | None = None,
    ) -> Options:
        """The effective options of the call `sig`: its own, then those of the workflow, the task, the registry.

        `workflow_defaults`: the defaults of the workflow, by option. `remote`: gives the options of a task that is not
        registered here. Raises UnknownTask, OptionError.
        """
        if sig.file_defaults is not None:
            workflow_defaults = sig.file_defaults
        task = self._tasks.get(sig.task)
        own = task.options if task is not None else remote(sig.task) if remote is not None else None
        if own is None and not sig.declared:
            also = (
                ""
                if remote is None
                else (", and no worker has declared it; start its worker first, or submit with allow_unknown=True")
            )
            raise UnknownTask(f"task {sig.task}: expected a registered task; registered are {self._names()}{also}")
        own = own or {}
        if not sig.options and not workflow_defaults and not self.defaults:
            options = effective(sig.task, own)
        else:
            given = normalise(sig.options, f"task {sig.task}")
            options = effective(f"task {sig.task}", self.defaults, own, workflow_defaults or {}, given)
            if task is not None:
                check_placement(f"task {sig.task}", task.function, options)
            if "retry" in sig.options:
                check_condition(sig.task, options)
            if sig.bind is None and sig.options.keys() & {"rate_limit", "group_rate_key"}:
                check_keys(sig.task, options)
        if options.unique or options.concurrency is not None or is_late(options):
            if task is not None:
                options = structs.replace(options, params=task.params, defaults=task.parameters.defaults)
            options = with_evaluated_key(sig.task, options, (sig.args, sig.kwargs))
        return options

    def lone_options_of(self, sig: TaskSig[Any, Any], remote: RemoteOptions | None = None) -> Options:
        """The effective options of the call `sig`, submitted alone; its unique key is in the header of its run.

        `remote`: as in `options_of`.
        """
        options = self.options_of(sig, None, remote)
        return structs.replace(options, unique_by=None, unique_key=None) if options.unique else options

    def strategy_of(self, task: Task[..., Any], options: Options) -> RetryStrategy | None:
        """The strategy that gives the delays of retries of `task` under `options`; None if the policy gives them.

        The first of these that is set: the policy of the call, step or workflow; the strategy of the task; the policy
        of the task or registry; the strategy of the registry.
        """
        own = task.options.get("retry", self.defaults.get("retry"))
        if task.retry_strategy is not None and (options.retry == own or not options.retry.paced):
            return task.retry_strategy
        return None if options.retry.paced else self.retry_strategy

    def schema(self, name: str) -> dict[str, Any]:
        """The JSON Schema of the arguments of the task `name`, with its metadata. Raises UnknownTask."""
        task = self._tasks.get(name)
        if task is None:
            raise UnknownTask(f"task {name}: expected a registered task; registered are {self._names()}")
        return task.schema()

    def args_encoder_of(self, sig: TaskSig[Any, Any], declared: Mapping[str, Any]) -> str | None:
        """The id of the encoder of the arguments of the call `sig`; None: the default of the engine.

        `declared`: the options of a task that is not registered here.
        """
        task = self._tasks.get(sig.task)
        layers = (sig.options, declared if task is None else task.options, self.defaults)
        return next((layer["args_encoder"] for layer in layers if layer.get("args_encoder")), None)

    def argument_faults(self, task: str, bind: Mapping[str, Any]) -> Iterable[ArgumentFault]:
        """The faults of the arguments `bind` of a call of `task` in a workflow file; none for an unknown task."""
        found = self._tasks.get(task)
        return () if found is None else found.parameters.faults(bind)

    def result_schema(self, task: str) -> dict[str, Any] | None:
        """The JSON Schema of what `task` returns; None where it is unknown or not annotated."""
        found = self._tasks.get(task)
        return None if found is None else schema_of(found.result)

    def parameter_schema(self, task: str, parameter: str) -> dict[str, Any] | None:
        """The JSON Schema of `parameter` of `task`; None where it is unknown or takes more than a schema says."""
        found = self._tasks.get(task)
        known = None if found is None else found.parameters.names.get(parameter)
        return None if known is None or known.converter.is_loose() else schema_of(known.converter)

    def retries_with_harm(self, sig: TaskSig[Any, Any], defaults: Mapping[str, Any]) -> bool:
        """Whether the call `sig` is retried although its task is not idempotent and has no unique key.

        `defaults`: the defaults of the workflow, by option.
        """
        found = self._tasks.get(sig.task)
        if found is None or found.metadata.idempotent is not False:
            return False
        options = self.options_of(sig, normalise(defaults, "defaults.task"))
        return options.max_retries > 0 and not options.unique

    def _names(self) -> str:
        names = sorted(self._tasks)
        return ", ".join(names[:10]) + (", ..." if len(names) > 10 else "") if names else "none"
