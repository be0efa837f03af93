"""Tasks without a decorated function: handler classes, definitions for producers that lack the handler, metadata."""

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
from stemflow.runtime.tasks.context import TaskContext
from stemflow.runtime.tasks.retry_decision import RetryStrategy
from stemflow.units import Duration, duration_of, instant_ms

Args = TypeVar("Args")
Args_contra = TypeVar("Args_contra", contravariant=True)
Result = TypeVar("Result")
Result_co = TypeVar("Result_co", covariant=True)


class TaskMetadata(Struct, frozen=True, kw_only=True):
    """Describes a task for people and tools; it becomes part of the JSON Schema of the task.

    `description`: default: the docstring of the handler. `tags`: any words. `idempotent`: False if a second execution
    of the same call does harm; `stemflow validate` then warns of retries without a unique key. `attributes`: any JSON
    data.
    """

    description: str = ""
    tags: tuple[str, ...] = ()
    idempotent: bool | None = None
    attributes: Mapping[str, Any] = {}
    args_encoder: str | None = None
    """The id of the encoder of the arguments, unless the options name one."""
    result_encoder: str | None = None
    """The id of the encoder of the result, unless the options name one."""

    def encoders(self) -> dict[str, str]:
        """The encoders that are set, as options of the task."""
        named = {"args_encoder": self.args_encoder, "result_encoder": self.result_encoder}
        return {name: encoder for name, encoder in named.items() if encoder is not None}


class TaskHandler(ABC, Generic[Args_contra, Result_co]):
    """A task as a class, with class attributes `name`, `options`, `metadata`, `retry_strategy`, and a method `call`.

    `call` gets all arguments as one object of the class that `args` is annotated with: a dataclass, a msgspec Struct,
    a TypedDict, a pydantic model, or `dict[str, T]`; its fields are the arguments by name.

        class Charge(TaskHandler[Order, str]):
            name = "orders.charge"
            options = TaskOptions(max_retries=3)

            async def call(self, context: TaskContext, args: Order) -> str: ...

        charge = registry.register(Charge())
        await app.submit(charge.call(Order("a", 100)))
    """

    name: str
    options: TaskOptions = TaskOptions()
    metadata: TaskMetadata = TaskMetadata()
    retry_strategy: RetryStrategy | None = None

    @abstractmethod
    def call(self, context: TaskContext, args: Args_contra) -> Awaitable[Result_co] | Result_co:
        """Execute the task: an `async def` on the event loop, or a plain `def` in a thread.

        Args:
            context: the attempt.
            args: the arguments, converted to the type of the handler.
        """


class TaskEnqueueBuilder(TaskSig[In_contra, Out_co], frozen=True, kw_only=True, tag="task"):
    """A call of a task, to which options can be added; each method returns a new one. It is a signature.

    await app.submit(charge.call(order).queue("slow").priority(9).delay("5m"))
    """

    def with_headers(self, headers: Mapping[str, str]) -> TaskEnqueueBuilder[In_contra, Out_co]:
        """Add `headers`: text by name, which the handler finds in `context.headers`."""
        return structs.replace(self, headers={**self.headers, **headers})

    def with_meta(self, meta: Mapping[str, Any]) -> TaskEnqueueBuilder[In_contra, Out_co]:
        """Add metadata, `meta`: JSON data by name, which the handler finds in `context.meta`."""
        return structs.replace(self, meta={**self.meta, **meta})

    def queue(self, name: str) -> TaskEnqueueBuilder[In_contra, Out_co]:
        """Put the task into the queue `name`."""
        return self.with_options(queue=name)

    def priority(self, priority: int) -> TaskEnqueueBuilder[In_contra, Out_co]:
        """Set the `priority`, from 0 to 9; higher ones start first."""
        return self.with_options(priority=priority)

    def delay(self, delay: Duration) -> TaskEnqueueBuilder[In_contra, Out_co]:
        """Start it no earlier than `delay` after it becomes ready: seconds or text such as `"1m"`. Raises UnitError."""
        return structs.replace(self, countdown_ms=duration_of(f"task {self.task}: delay", delay))

    def not_before(self, instant: Any) -> TaskEnqueueBuilder[In_contra, Out_co]:
        """Start it no earlier than `instant`: an aware datetime, or seconds since the epoch. Raises OptionError."""
        return structs.replace(self, eta_at_ms=instant_ms(instant, f"task {self.task}"))

    def with_options(self, options: TaskOptions | None = None, **more: Any) -> TaskEnqueueBuilder[In_contra, Out_co]:
        """Add any `options` of a task, as TaskOptions, or `more` of them as keywords. Raises OptionError."""
        given = given_options(options, more)
        normalise(given, f"task {self.task}")
        return structs.replace(self, options={**self.options, **given})


class TaskDefinition(Generic[Args, Result]):
    """A task by its name, for producers that do not import its handler.

    `name`: the name under which the worker has registered it. `encode_args`: a function from the object that `call`
    gets to the arguments, by name (a mapping) or by position (a list); default: the fields of a dataclass, Struct,
    model or mapping by name, and no arguments for None. `decode_result`: the type of the result, or a function of its
    JSON data. `options`: those of every call.

        charge = TaskDefinition[Order, str]("orders.charge", decode_result=str)
        receipt = await app.run(charge.call(Order("a", 100)))
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
        """Make a complete call with the arguments `args`, to be submitted or to be part of a canvas.

        Raises NotSerializable, OptionError.
        """
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
