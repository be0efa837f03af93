"""Tasks apart from functions: a definition for producers that lack the handler, a class that handles, and metadata."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Generic, TypeVar

from msgspec import Struct, structs

from stemflow.errors import OptionError
from stemflow.model.options import TaskOptions, given_options
from stemflow.model.policy import normalise
from stemflow.model.signature import In_contra, Out_co, TaskSig
from stemflow.runtime.payloads.json_data import plain
from stemflow.runtime.tasks.context import TaskContext, instant_ms
from stemflow.runtime.tasks.retry_decision import RetryStrategy
from stemflow.units import Duration, duration_of

Args = TypeVar("Args")
Args_contra = TypeVar("Args_contra", contravariant=True)
Result = TypeVar("Result")
Result_co = TypeVar("Result_co", covariant=True)


class TaskMetadata(Struct, frozen=True, kw_only=True):
    """What is said of a task, for people and tools; it is part of the task's schema.

    `idempotent=False` says that a second run of the same call does harm: `validate` then warns of retries without a
    unique key. `attributes` is any JSON data.
    """

    description: str = ""
    tags: tuple[str, ...] = ()
    idempotent: bool | None = None
    attributes: Mapping[str, Any] = {}
    args_encoder: str | None = None
    """Ids of the encoders that store arguments and result, where the options name none."""
    result_encoder: str | None = None

    def encoders(self) -> dict[str, str]:
        """The encoders as options."""
        named = {"args_encoder": self.args_encoder, "result_encoder": self.result_encoder}
        return {name: encoder for name, encoder in named.items() if encoder is not None}


class TaskHandler(ABC, Generic[Args_contra, Result_co]):
    """A task as a class: `name`, `options`, `metadata`, `retry_strategy`, and `call`, whose `args` is one object.

    Its arguments by name are the fields of that object's class: a dataclass, a msgspec Struct, a TypedDict, a pydantic
    model, or `dict[str, T]`.
    """

    name: str
    options: TaskOptions = TaskOptions()
    metadata: TaskMetadata = TaskMetadata()
    retry_strategy: RetryStrategy | None = None

    @abstractmethod
    def call(self, context: TaskContext, args: Args_contra) -> Awaitable[Result_co] | Result_co:
        """Do the work; `async def`, or a plain `def` that runs in a thread."""


class TaskEnqueueBuilder(TaskSig[In_contra, Out_co], frozen=True, kw_only=True, tag="task"):
    """A call to which options are added one after another; each step answers a new one. It is a signature."""

    def with_headers(self, headers: Mapping[str, str]) -> TaskEnqueueBuilder[In_contra, Out_co]:
        """Add headers, texts that reach `context.headers`."""
        return structs.replace(self, headers={**self.headers, **headers})

    def with_meta(self, meta: Mapping[str, Any]) -> TaskEnqueueBuilder[In_contra, Out_co]:
        """Add JSON data that reaches `context.meta`."""
        return structs.replace(self, meta={**self.meta, **meta})

    def queue(self, name: str) -> TaskEnqueueBuilder[In_contra, Out_co]:
        """Send it to this queue."""
        return self.with_options(queue=name)

    def priority(self, priority: int) -> TaskEnqueueBuilder[In_contra, Out_co]:
        """0 to 9, higher first."""
        return self.with_options(priority=priority)

    def delay(self, delay: Duration) -> TaskEnqueueBuilder[In_contra, Out_co]:
        """Start it no earlier than so long after it becomes ready."""
        return structs.replace(self, countdown_ms=duration_of(f"task {self.task}: delay", delay))

    def not_before(self, instant: Any) -> TaskEnqueueBuilder[In_contra, Out_co]:
        """Start it no earlier than a datetime that knows its time zone, or seconds since the epoch."""
        return structs.replace(self, eta_at_ms=instant_ms(instant, f"task {self.task}"))

    def with_options(self, options: TaskOptions | None = None, **more: Any) -> TaskEnqueueBuilder[In_contra, Out_co]:
        """Add any options of a task; raises OptionError."""
        given = given_options(options, more)
        normalise(given, f"task {self.task}")
        return structs.replace(self, options={**self.options, **given})


class TaskDefinition(Generic[Args, Result]):
    """A task by its name, for producers that do not import its handler.

    `encode_args` gives the arguments of a call, by name (a mapping) or by position (a list); without it the fields of
    a dataclass, Struct, model or mapping are arguments by name, and None is none. `decode_result` is a type, or a
    function of the result's JSON data. `options` are given with every call.
    """

    def __init__(
        self,
        name: str,
        *,
        encode_args: Callable[[Args], Mapping[str, Any] | Sequence[Any]] | None = None,
        decode_result: Callable[[Any], Result] | None = None,
        options: TaskOptions | None = None,
    ) -> None:
        self.name = name
        self.encode_args, self.decode_result = encode_args, decode_result
        self.options = options or TaskOptions()

    def call(self, args: Args) -> TaskEnqueueBuilder[object, Result]:
        """A complete call, to be submitted or put anywhere in a canvas. Raises NotSerializable, OptionError."""
        what = f"arguments of {self.name}"
        given = plain(args if self.encode_args is None else self.encode_args(args), what)
        if given is not None and not isinstance(given, (dict, list, tuple)):
            raise OptionError(
                f"task {self.name}: encode_args: expected a mapping or a list of arguments, got {given!r}; "
                "give a dataclass, or write encode_args"
            )
        return TaskEnqueueBuilder(
            task=self.name,
            args=() if given is None or isinstance(given, dict) else tuple(given),
            kwargs=given if isinstance(given, dict) else {},
            immutable=True,
            options=self.options.given(),
            decode=self.decode_result,
            declared=True,
        )
