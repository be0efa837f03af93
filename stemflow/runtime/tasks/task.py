"""A registered task: a function with its name, parameters and options, from which signatures are made."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, Concatenate, Generic, ParamSpec, Protocol, TypeVar, overload

from stemflow.canvas import Canvas
from stemflow.compile.edges import NAMES
from stemflow.core.rates import given_keys
from stemflow.errors import OptionError
from stemflow.expr import ExpressionError, parse_condition, parse_template
from stemflow.model.policy import RETRY_NAMES, Options, effective, normalise
from stemflow.model.signature import MemberPolicy, NoInput, Signature, TaskSig
from stemflow.runtime.payloads.converters import Converter
from stemflow.runtime.payloads.headers import checked_headers, checked_meta
from stemflow.runtime.payloads.json_data import plain
from stemflow.runtime.tasks.callables import check_callable
from stemflow.runtime.tasks.definitions import TaskHandler, TaskMetadata
from stemflow.runtime.tasks.parameters import Parameters, object_parameters, parameters_of, result_of, takes_context
from stemflow.runtime.tasks.placement import check_placement, runs_async
from stemflow.runtime.tasks.retry_decision import RetryStrategy, checked_strategy
from stemflow.units import Duration, duration_of, instant_ms

P = ParamSpec("P")
Q = ParamSpec("Q")
R = TypeVar("R")
A = TypeVar("A")
A_contra = TypeVar("A_contra", contravariant=True)
R_co = TypeVar("R_co", covariant=True)

_NAME = re.compile(r"[^\s\x00-\x1f\x7f]{1,200}")


class Takes(Protocol[A_contra, Q, R_co]):
    """A task whose first parameter is an `A`; mypy infers that from this property, but not from `Task` itself."""

    @property
    def name(self) -> str: ...
    @property
    def typed_as(self) -> Callable[Concatenate[A_contra, Q], R_co]: ...


class Task(Generic[P, R_co]):
    """A registered function, which can still be called directly, and from which signatures are made.

    add = registry.task("add")(lambda: ...)   # or as a decorator
    add.s(1, 2)                               # a signature: a call to be submitted
    Canvas.chain(add.s(1, 2), add.s(3))       # add(3, 3) at the end: the result of the step before comes first
    """

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
        """`given`: the options as users write them. `local`: names that annotations may use besides those of the
        module of the function. `parameters`: those of a handler class, whose arguments are one object.
        Raises OptionError."""
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
        check_condition(name, options)
        check_keys(name, options)
        check_placement(f"task {name}", function, options)
        self.description = self.metadata.description or inspect.getdoc(getattr(function, "func", function)) or ""

    def schema(self) -> dict[str, Any]:
        """The JSON Schema of the arguments by name; `x-stemflow` has the metadata. Raises NotSerializable."""
        data = self.metadata
        fields = {"tags": list(data.tags), "idempotent": data.idempotent, "attributes": dict(data.attributes)}
        extra = {name: value for name, value in fields.items() if value not in ([], None, {})}
        return {
            "title": self.name,
            **({"description": self.description} if self.description else {}),
            **self.parameters.schema(),
            **({"x-stemflow": plain(extra, f"metadata of {self.name}")} if extra else {}),
        }

    @property
    def params(self) -> tuple[str, ...]:
        """The names of the parameters that can be given by position."""
        return tuple(one.name for one in self.parameters.positional)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function directly, without the engine; one that takes a context needs it as the first argument."""
        return self.function(*args, **kwargs)

    # The overlap is meant: with all arguments a call is complete, with all but the first it waits for a value.
    @overload
    def s(  # type: ignore[overload-overlap]
        self: Task[P, R], *args: P.args, **kwargs: P.kwargs
    ) -> Signature[NoInput, R]: ...
    @overload
    def s(self: Takes[A, Q, R], *args: Q.args, **kwargs: Q.kwargs) -> Signature[A, R]: ...
    def s(self, *args: Any, **kwargs: Any) -> Signature[Any, Any]:
        """Make a signature: a call with these arguments, before which a chain puts the result of the previous step.

        Arguments are checked on submission.
        """
        return TaskSig(task=self.name, args=args, kwargs=kwargs)

    def si(self: Task[P, R], *args: P.args, **kwargs: P.kwargs) -> Signature[object, R]:
        """Make a signature of a complete call, which ignores the result of the previous step."""
        return TaskSig(task=self.name, args=args, kwargs=kwargs, immutable=True)

    def map(
        self: Takes[A, Q, R], items: Iterable[A], *, concurrency: int | None = None,
        on_member_error: MemberPolicy = "fail_fast",
    ) -> Signature[NoInput, list[R]]:  # fmt: skip
        """Make a signature of one call for each item, as `Canvas.map`.

        `items`: the first arguments. `concurrency`: calls that run at the same time at most; None: all.
        `on_member_error`: `fail_fast`, `collect` or `ignore`. Raises OptionError.
        """
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
        """Return the same task, whose signatures have these options: `add.with_options(priority=9).s(1, 2)`.

        `countdown`: the delay of the start, in seconds or as text such as `"5m"`. `eta`: the earliest start, an aware
        datetime or seconds since the epoch. `headers`: text by name, in `context.headers`. `meta`: JSON data by name,
        in `context.meta`. `options`: those of TaskOptions. Raises OptionError, UnitError.
        """
        where = f"task {self.name}"
        normalise(options, where)
        extra = {
            "countdown_ms": duration_of(f"{where}: countdown", countdown),
            "eta_at_ms": None if eta is None else instant_ms(eta, where),
            "headers": checked_headers(headers, where),
            "meta": checked_meta(meta, where),
        }
        return _Bound(self, options, {name: value for name, value in extra.items() if value})


class _Bound(Task[P, R_co]):
    """A task with options given at the call."""

    def __init__(self, task: Task[P, R_co], options: Mapping[str, Any], extra: Mapping[str, Any]) -> None:
        self.__dict__.update(task.__dict__)
        before: Mapping[str, Any] = getattr(task, "call", {})
        self.call = {**before, **extra, "options": {**before.get("options", {}), **options}}

    def s(self, *args: Any, **kwargs: Any) -> Any:
        return TaskSig(task=self.name, args=args, kwargs=kwargs, **self.call)

    def si(self, *args: Any, **kwargs: Any) -> Any:
        return TaskSig(task=self.name, args=args, kwargs=kwargs, immutable=True, **self.call)


def check_condition(task: str, options: Options) -> None:
    """Parse the expression `retry.when` at registration. Raises OptionError."""
    try:
        for policy in (options.retry, *options.retry.rules):
            if policy.when is not None:
                parse_condition(policy.when, RETRY_NAMES)
    except ExpressionError as error:
        raise OptionError(f"task {task}: retry.when: {error}") from error


def check_keys(task: str, options: Options) -> None:
    """Parse the keys of rate limits at registration; those of workflow files are parsed with the file."""
    try:
        parse_template(list(given_keys(options)), NAMES | {"args", "headers"})
    except ExpressionError as error:
        raise OptionError(f"task {task}: the key of a rate limit: {error}") from error


def task_of(handler: TaskHandler[Any, Any]) -> Task[..., Any]:
    name = getattr(handler, "name", None)
    if not isinstance(name, str):
        raise OptionError(f"{type(handler).__qualname__}: expected a class attribute `name`, got {name!r}")
    parameters = object_parameters(name, handler.call)
    return Task(
        name, handler.call, handler.options.given(), handler.metadata, parameters=parameters,
        retry_strategy=handler.retry_strategy,
    )  # fmt: skip


def schema_of(converter: Converter) -> dict[str, Any] | None:
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
