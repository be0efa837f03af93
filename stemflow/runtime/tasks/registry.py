"""The registry: which names are tasks, how each is called, and with which options."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, Concatenate, Generic, ParamSpec, Protocol, TypeVar, overload

from msgspec import structs

from stemflow.canvas import Canvas
from stemflow.compile.arguments import ArgumentFault
from stemflow.compile.edges import NAMES
from stemflow.core.rates import given_keys, is_late
from stemflow.errors import OptionError, StemflowError
from stemflow.expr import ExpressionError, parse_condition, parse_template
from stemflow.model.options import TaskOptions, given_options
from stemflow.model.policy import Options, effective, normalise
from stemflow.model.signature import MemberPolicy, NoInput, Signature, TaskSig
from stemflow.runtime.payloads.converters import Converter
from stemflow.runtime.payloads.encoders import TaskPayloadEncoderRegistry
from stemflow.runtime.payloads.headers import checked_headers, checked_meta
from stemflow.runtime.payloads.json_data import plain
from stemflow.runtime.payloads.signing import SigningKeys
from stemflow.runtime.tasks.callables import check_callable, derived_name
from stemflow.runtime.tasks.context import TaskContext, instant_ms
from stemflow.runtime.tasks.definitions import Args, Result, TaskDefinition, TaskHandler, TaskMetadata
from stemflow.runtime.tasks.middleware import Middleware, MiddlewareChain
from stemflow.runtime.tasks.parameters import Parameters, object_parameters, parameters_of, result_of, takes_context
from stemflow.runtime.tasks.placement import check_placement, runs_async
from stemflow.runtime.tasks.rate_limiter import RateLimiter, checked_limiter
from stemflow.runtime.tasks.retry_decision import RetryStrategy, checked_strategy
from stemflow.runtime.tasks.signals import Signals
from stemflow.runtime.tasks.sync_context import SyncTaskContext
from stemflow.runtime.values.call_keys import with_evaluated_key
from stemflow.units import Duration, duration_of

P = ParamSpec("P")
Q = ParamSpec("Q")
R = TypeVar("R")
A = TypeVar("A")
A_contra = TypeVar("A_contra", contravariant=True)
R_co = TypeVar("R_co", covariant=True)


_NAME = re.compile(r"[^\s\x00-\x1f\x7f]{1,200}")


RemoteOptions = Callable[[str], Mapping[str, Any] | None]
"""The options of a task that is registered in another process; None where nobody knows it."""


class UnknownTask(StemflowError):
    """No task is registered under this name."""


class DuplicateTask(StemflowError):
    """Two tasks were registered under one name."""


class Takes(Protocol[A_contra, Q, R_co]):
    """A task whose first parameter is an `A`: mypy infers it from this property, but not from `Task` itself."""

    @property
    def name(self) -> str: ...
    @property
    def typed_as(self) -> Callable[Concatenate[A_contra, Q], R_co]: ...


class Task(Generic[P, R_co]):
    """A registered function: still callable as one, and a maker of signatures."""

    if TYPE_CHECKING:

        @property
        def typed_as(self) -> Callable[P, R_co]: ...

    def __init__(
        self,
        name: str,
        function: Callable[..., Any],
        given: Mapping[str, Any],
        metadata: TaskMetadata | None = None,
        *,
        local: Mapping[str, Any] | None = None,
        parameters: Parameters | None = None,
        retry_strategy: RetryStrategy | None = None,
    ) -> None:
        """`local`: names that annotations may use besides those of the function's module. `parameters`: those of a
        handler that is given its arguments as one object. `retry_strategy`: says when it is tried again."""
        self.name = _valid_name(name)
        check_callable(f"task {name}", function)
        self.function = function
        self.metadata = metadata or TaskMetadata()
        self.retry_strategy = checked_strategy(retry_strategy, f"task {name}")
        self.given = {**self.metadata.encoders(), **given}
        self.options = normalise(self.given, f"task {name}")
        self.takes_context = parameters is not None or takes_context(function)
        self.parameters = parameters or parameters_of(name, function, local)
        self.result = result_of(name, function, local)
        options = effective(f"task {name}", self.options)
        self.is_async = runs_async(function, self.takes_context, options.isolation)
        _check_condition(name, options)
        _check_keys(name, options)
        check_placement(f"task {name}", function, options)
        self.description = self.metadata.description or inspect.getdoc(getattr(function, "func", function)) or ""

    def schema(self) -> dict[str, Any]:
        """The JSON Schema of the arguments by name; `x-stemflow` holds what the metadata says."""
        said = self.metadata
        all_said = {"tags": list(said.tags), "idempotent": said.idempotent, "attributes": dict(said.attributes)}
        told = {name: value for name, value in all_said.items() if value not in ([], None, {})}
        return {
            "title": self.name,
            **({"description": self.description} if self.description else {}),
            **self.parameters.schema(),
            **({"x-stemflow": plain(told, f"metadata of {self.name}")} if told else {}),
        }

    @property
    def params(self) -> tuple[str, ...]:
        """Names of the positional parameters."""
        return tuple(one.name for one in self.parameters.positional)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the plain function, without the engine."""
        return self.function(*args, **kwargs)

    # The overlap is meant: with all arguments a call is complete, with all but the first it waits for a value.
    @overload
    def s(  # type: ignore[overload-overlap]
        self: Task[P, R], *args: P.args, **kwargs: P.kwargs
    ) -> Signature[NoInput, R]: ...
    @overload
    def s(self: Takes[A, Q, R], *args: Q.args, **kwargs: Q.kwargs) -> Signature[A, R]: ...
    def s(self, *args: Any, **kwargs: Any) -> Signature[Any, Any]:
        """A partial call: the result of the step before is put in front of `args`."""
        return TaskSig(task=self.name, args=args, kwargs=kwargs)

    def si(self: Task[P, R], *args: P.args, **kwargs: P.kwargs) -> Signature[object, R]:
        """A complete call that ignores the result of the step before."""
        return TaskSig(task=self.name, args=args, kwargs=kwargs, immutable=True)

    def map(
        self: Takes[A, Q, R], items: Iterable[A], *, concurrency: int | None = None,
        on_member_error: MemberPolicy = "fail_fast",
    ) -> Signature[NoInput, list[R]]:  # fmt: skip
        """One call for each item, as `Canvas.map`."""
        each: Signature[A, R] = TaskSig(task=self.name)
        return Canvas.map(each, items, concurrency=concurrency, on_member_error=on_member_error)

    def with_options(
        self,
        *,
        countdown: Duration = 0,
        eta: datetime | float | None = None,
        headers: Mapping[str, str] | None = None,
        meta: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> Task[P, R_co]:
        """The same task whose signatures carry these options (`countdown` in seconds, `eta` aware or epoch seconds).

        `headers` and `meta` travel beside the arguments: `context.headers`, `context.meta`.
        """
        where = f"task {self.name}"
        normalise(options, where)
        beside = {
            "countdown_ms": duration_of(f"{where}: countdown", countdown),
            "eta_at_ms": None if eta is None else instant_ms(eta, where),
            "headers": checked_headers(headers, where),
            "meta": checked_meta(meta, where),
        }
        return _Bound(self, options, {name: value for name, value in beside.items() if value})


class _Bound(Task[P, R_co]):
    """A task with options given at the call."""

    def __init__(self, task: Task[P, R_co], options: Mapping[str, Any], beside: Mapping[str, Any]) -> None:
        self.__dict__.update(task.__dict__)
        before: Mapping[str, Any] = getattr(task, "call", {})
        self.call = {**before, **beside, "options": {**before.get("options", {}), **options}}

    def s(self, *args: Any, **kwargs: Any) -> Any:
        return TaskSig(task=self.name, args=args, kwargs=kwargs, **self.call)

    def si(self, *args: Any, **kwargs: Any) -> Any:
        return TaskSig(task=self.name, args=args, kwargs=kwargs, immutable=True, **self.call)


def _check_condition(task: str, options: Options) -> None:
    """The expression among the options is read at registration, so that a wrong one is not found at the worker."""
    if options.retry.when is None:
        return
    try:
        parse_condition(options.retry.when, {"error"})
    except ExpressionError as error:
        raise OptionError(f"task {task}: retry.when: {error}") from error


def _check_keys(task: str, options: Options) -> None:
    """So are the keys of its rate limits; those of a workflow file were read where they stand."""
    try:
        parse_template(list(given_keys(options)), NAMES | {"args", "headers"})
    except ExpressionError as error:
        raise OptionError(f"task {task}: the key of a rate limit: {error}") from error


def _task_of(handler: TaskHandler[Any, Any]) -> Task[..., Any]:
    name = getattr(handler, "name", None)
    if not isinstance(name, str):
        raise OptionError(f"{type(handler).__qualname__}: expected a class attribute `name`, got {name!r}")
    parameters = object_parameters(name, handler.call)
    return Task(
        name, handler.call, handler.options.given(), handler.metadata, parameters=parameters,
        retry_strategy=handler.retry_strategy,
    )  # fmt: skip


def _schema_of(converter: Converter) -> dict[str, Any] | None:
    try:
        return converter.schema() or None
    except TypeError:  # msgspec and pydantic have no schema for some types that they convert
        return None


def _valid_name(name: str) -> str:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise OptionError(
            f"task {name!r}: expected a name of 1 to 200 visible characters without spaces, such as orders.pay"
        )
    return name


class Decorator:
    """What `registry.task(...)` gives; typed so that `.s()` knows the function's parameters."""

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
        local = sys._getframe(1).f_locals  # annotations may name classes that are defined beside the task
        task: Task[..., Any] = Task(
            name, function, self.options, self.metadata, local=local, retry_strategy=self.retry_strategy
        )
        self.registry.register(task)
        return task


class TaskRegistry:
    """Task name -> task. The only place where a name in a workflow becomes code.

    `retry_strategy`: says when tasks are tried again for whose retries no other delays were given. `rate_limiter`: is
    asked by workers before they start a task of a group. `defaults`: options of tasks that do not say otherwise.
    """

    def __init__(
        self, *, retry_strategy: RetryStrategy | None = None, rate_limiter: RateLimiter | None = None, **defaults: Any
    ) -> None:
        self.defaults = normalise(defaults, "registry defaults")
        self.retry_strategy = checked_strategy(retry_strategy, "registry")
        self.rate_limiter = checked_limiter(rate_limiter)
        self.home: str = sys._getframe(1).f_globals.get("__name__", "")
        """The module that made it, which a process that must find its tasks imports."""
        self.encoders = TaskPayloadEncoderRegistry()
        """How values are stored where an app is not told otherwise; found with the tasks by the command line."""
        self.signals = Signals()
        """What happens to the tasks and runs of this registry in this process: `signals.failed.connect(listener)`."""
        self.middleware = MiddlewareChain()
        self.signing: SigningKeys | None = None
        self._tasks: dict[str, Task[..., Any]] = {}

    def copy(self) -> TaskRegistry:
        """Another registry of the same tasks, defaults, encoders and middleware; what is added to one is not in the
        other. Its signals are its own."""
        twin = TaskRegistry()
        twin.defaults, twin.encoders, twin.retry_strategy = self.defaults, self.encoders, self.retry_strategy
        twin.rate_limiter = self.rate_limiter
        twin.middleware = self.middleware.copy()
        twin._tasks = dict(self._tasks)
        return twin

    def use(self, middleware: Middleware) -> None:
        """Add a middleware; those that were added first stand outermost. Raises OptionError."""
        self.middleware.add(middleware)

    @overload
    def register(self, task: TaskHandler[Args, Result], override: bool = False) -> TaskDefinition[Args, Result]: ...
    @overload
    def register(self, task: Task[P, R], override: bool = False) -> Task[P, R]: ...
    def register(self, task: Any, override: bool = False) -> Any:
        """Add a task; raises DuplicateTask unless `override`. For a handler the answer is the definition to call."""
        made = _task_of(task) if isinstance(task, TaskHandler) else task
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
        """Register an `async def` or a plain `def` (which runs in a thread), with options as a whole, as keywords, or
        both; `retry_strategy` says when it is tried again. Raises OptionError when the function is decorated."""
        if name is not None and not isinstance(name, str):
            raise OptionError('registry.task: expected a name, got a function; write @registry.task("name")')
        return Decorator(self, name, given_options(options, more), metadata, retry_strategy)

    def get(self, name: str) -> Task[..., Any] | None:
        return self._tasks.get(name)

    def result_converter(self, task: str) -> Converter | None:
        """The converter to the annotated result type of a task; None when it is not registered here."""
        found = self._tasks.get(task)
        return None if found is None else found.result

    def __contains__(self, name: object) -> bool:
        return name in self._tasks

    def __iter__(self) -> Iterator[str]:
        return iter(self._tasks)

    def __len__(self) -> int:
        return len(self._tasks)

    def options_of(
        self,
        sig: TaskSig[Any, Any],
        workflow_defaults: Mapping[str, Any] | None = None,
        remote: RemoteOptions | None = None,
    ) -> Options:
        """The effective options of a call: call or step > workflow defaults > handler > registry; for a task that is
        not registered here `remote` gives the handler's. Raises UnknownTask."""
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
                _check_condition(sig.task, options)
            if sig.bind is None and sig.options.keys() & {"rate_limit", "group_rate_key"}:
                _check_keys(sig.task, options)
        if options.unique or options.concurrency is not None or is_late(options):
            if task is not None:
                options = structs.replace(options, params=task.params, defaults=task.parameters.defaults)
            options = with_evaluated_key(sig.task, options, (sig.args, sig.kwargs))
        return options

    def lone_options_of(self, sig: TaskSig[Any, Any], remote: RemoteOptions | None = None) -> Options:
        """The effective options of a task that is submitted alone; its unique key stands in the header of its run."""
        options = self.options_of(sig, None, remote)
        return structs.replace(options, unique_by=None, unique_key=None) if options.unique else options

    def strategy_of(self, task: Task[..., Any], options: Options) -> RetryStrategy | None:
        """What says when a call under these options is tried again; None when their policy does.

        The nearest counts: delays that the call, the step or the workflow gave, the task's strategy, delays that the
        task or the registry gave, the registry's strategy.
        """
        own = task.options.get("retry", self.defaults.get("retry"))
        if task.retry_strategy is not None and (options.retry == own or not options.retry.paced):
            return task.retry_strategy
        return None if options.retry.paced else self.retry_strategy

    def schema(self, name: str) -> dict[str, Any]:
        """The JSON Schema of a task's arguments by name, with what its metadata says; raises UnknownTask."""
        task = self._tasks.get(name)
        if task is None:
            raise UnknownTask(f"task {name}: expected a registered task; registered are {self._names()}")
        return task.schema()

    def args_encoder_of(self, sig: TaskSig[Any, Any], declared: Mapping[str, Any]) -> str | None:
        """The encoder of the arguments of a call, where one is named; `declared`: options of a task that is not
        registered here."""
        task = self._tasks.get(sig.task)
        layers = (sig.options, declared if task is None else task.options, self.defaults)
        return next((layer["args_encoder"] for layer in layers if layer.get("args_encoder")), None)

    def argument_faults(self, task: str, bind: Mapping[str, Any]) -> Iterable[ArgumentFault]:
        """What is wrong with the arguments of a call in a workflow file; nothing for an unknown task."""
        found = self._tasks.get(task)
        return () if found is None else found.parameters.faults(bind)

    def result_schema(self, task: str) -> dict[str, Any] | None:
        """The JSON Schema of what a task returns; None where it is unknown or not annotated."""
        found = self._tasks.get(task)
        return None if found is None else _schema_of(found.result)

    def parameter_schema(self, task: str, parameter: str) -> dict[str, Any] | None:
        """The JSON Schema of one parameter of a task; None where it is unknown or takes more than a schema says."""
        found = self._tasks.get(task)
        known = None if found is None else found.parameters.names.get(parameter)
        return None if known is None or known.converter.is_loose() else _schema_of(known.converter)

    def retries_with_harm(self, sig: TaskSig[Any, Any], defaults: Mapping[str, Any]) -> bool:
        """Whether a call is tried again though its task is not idempotent and has no unique key."""
        found = self._tasks.get(sig.task)
        if found is None or found.metadata.idempotent is not False:
            return False
        options = self.options_of(sig, normalise(defaults, "defaults.task"))
        return options.max_retries > 0 and not options.unique

    def _names(self) -> str:
        names = sorted(self._tasks)
        return ", ".join(names[:10]) + (", ..." if len(names) > 10 else "") if names else "none"
