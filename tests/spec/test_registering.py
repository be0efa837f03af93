"""Registering: names, options, metadata, handlers as classes, definitions for producers without the handler."""

from __future__ import annotations

import dataclasses
import datetime as dt
from typing import Any, TypedDict

import msgspec
import pydantic
import pytest

from stemflow import (
    BadArguments,
    Canvas,
    DuplicateTask,
    OptionError,
    RetryPolicy,
    Stemflow,
    SyncTaskContext,
    TaskContext,
    TaskDefinition,
    TaskEnqueueBuilder,
    TaskHandler,
    TaskMetadata,
    TaskOptions,
    TaskRegistry,
    UnknownTask,
)
from stemflow.model.policy import OPTION_NAMES
from stemflow.testing.simulation.virtual_loop import VirtualClock
from tests.spec.conftest import OpenApp


@dataclasses.dataclass
class Charge:
    amount: int
    currency: str = "EUR"
    due: dt.date | None = None


@dataclasses.dataclass
class Receipt:
    text: str
    at: dt.date | None = None


class ChargeHandler(TaskHandler[Charge, Receipt]):
    name = "orders.charge"
    options = TaskOptions(max_retries=3, queue="default")
    metadata = TaskMetadata(description="Charges a card.", tags=("money",), idempotent=False)

    async def call(self, context: TaskContext, args: Charge) -> Receipt:
        assert isinstance(args, Charge)
        return Receipt(f"{args.amount} {args.currency} by {context.name}", args.due)


# -- names


@pytest.mark.parametrize("name", ["", "two words", "line\nbreak", "x" * 201, 3])
def test_a_name_that_cannot_be_used_is_refused(registry: TaskRegistry, name: Any) -> None:
    with pytest.raises(OptionError, match="expected a name"):
        registry.task(name)(lambda: None)


def test_a_name_is_taken_once_unless_it_is_overridden(registry: TaskRegistry) -> None:
    # Given a task
    registry.task("a")(lambda: 1)
    again = TaskRegistry().task("a")(lambda: 2)
    # When another of its name is registered, then it is refused, and taken when the registrant insists
    with pytest.raises(DuplicateTask, match="task a: expected a new name"):
        registry.register(again)
    assert registry.register(again, override=True) is again
    assert registry.get("a") is again


def test_only_tasks_can_be_registered(registry: TaskRegistry) -> None:
    with pytest.raises(OptionError, match="expected a Task or an instance of a TaskHandler"):
        registry.register(print)  # type: ignore[call-overload]


# -- options


def test_task_options_know_every_option() -> None:
    assert set(TaskOptions.__struct_fields__) == OPTION_NAMES


WRONG: list[tuple[str, Any, str]] = [
    ("queue", "", "a text that is not empty"),
    ("queue", 3, "a text that is not empty"),
    ("priority", 10, "from 0 to 9"),
    ("priority", True, "a whole number"),
    ("max_retries", -1, "from 0"),
    ("max_retries", 1.5, "a whole number"),
    ("retry", "often", "a RetryPolicy"),
    ("retry", {"backoff": "wild"}, "fixed or linear or exponential"),
    ("retry", {"factor": 0}, "factor: expected a number from 0.001 to 1000"),
    ("retry", {"jitter": 2}, "jitter: expected a number from 0 to 1"),
    ("soft_time_limit", -1, "a duration from 0"),
    ("hard_time_limit", "soon", "a duration such as"),
    ("soft_raises", "yes", "True or False"),
    ("rate_limit", "10", "a rate such as"),
    ("rate_limit", "0/s", "a rate such as"),
    ("unique", 1, "True or False"),
    ("unique_mode", "sometimes", "expected return_existing"),
    ("unique_for", "-1s", "a duration"),
    ("visibility_timeout", "x", "a duration"),
    ("expires", "x", "a duration"),
    ("isolation", "moon", "expected auto or async"),
    ("acks_late", 0, "True or False"),
    ("max_deliveries", 0, "from 1"),
    ("no_such_option", 1, "there is no option 'no_such_option'"),
]


@pytest.mark.parametrize(("option", "value", "told"), WRONG)
def test_a_wrong_option_is_refused_at_registration_with_a_sentence(
    registry: TaskRegistry, option: str, value: Any, told: str
) -> None:
    given: dict[str, Any] = {option: value}
    with pytest.raises(OptionError, match=f"task pay: .*{told}"):
        registry.task("pay", **given)(lambda: None)
    if option in OPTION_NAMES:
        with pytest.raises(OptionError, match=told):
            TaskOptions(**given)
    assert "pay" not in registry


def test_options_that_contradict_each_other_and_wrong_expressions_are_refused_at_registration(
    registry: TaskRegistry,
) -> None:
    with pytest.raises(OptionError, match="expected the soft time limit below the hard one"):
        registry.task("a", soft_time_limit=5, hard_time_limit=5)(lambda: None)
    with pytest.raises(OptionError, match=r"task a: retry.when: this is not an expression"):
        registry.task("a", retry=RetryPolicy.of(when="error.type =="))(lambda: None)


async def test_options_are_given_as_a_whole_as_keywords_or_both(app: Stemflow, registry: TaskRegistry) -> None:
    # Given options as a whole, and a keyword next to them
    @registry.task("a", options=TaskOptions(priority=5, max_retries=2), max_retries=4)
    async def a() -> None: ...

    # Then the keyword wins, and a 0 given at the call counts
    assert registry.options_of(a.s()).max_retries == 4  # type: ignore[arg-type]
    assert registry.options_of(a.s()).priority == 5  # type: ignore[arg-type]
    assert registry.options_of(a.with_options(priority=0).s()).priority == 0  # type: ignore[arg-type]


# -- handlers as classes


async def test_a_handler_class_is_called_with_its_context_and_one_object(app: Stemflow, registry: TaskRegistry) -> None:
    # Given a handler that was registered as a class
    charge = registry.register(ChargeHandler())
    due = dt.date(2026, 12, 1)

    # When it is called by its definition, by name, and as a link of a chain
    first = await app.run(charge.call(Charge(3, due=due)))
    by_name = await app.run(Canvas.task("orders.charge", 4, currency="USD"))
    amount = registry.task("amount")(lambda: 7)
    linked = await app.run(amount.s() | Canvas.task("orders.charge"))

    # Then it got its object each time, and what it gave is what it is annotated with
    assert first == Receipt("3 EUR by orders.charge", due)
    assert by_name == Receipt("4 USD by orders.charge")
    assert linked == Receipt("7 EUR by orders.charge")
    assert registry.options_of(charge.call(Charge(3))).max_retries == 3


async def test_arguments_of_a_handler_class_are_checked_by_submit(app: Stemflow, registry: TaskRegistry) -> None:
    registry.register(ChargeHandler())
    for call, told in (
        (Canvas.task("orders.charge"), "amount: expected a value, got none"),
        (Canvas.task("orders.charge", "x"), "amount: expected int, got 'x'"),
        (Canvas.task("orders.charge", 1, colour="red"), "colour: expected one of the parameters"),
    ):
        with pytest.raises(BadArguments, match=f"task orders.charge: {told}"):
            await app.submit(call)


class Named(TypedDict):
    word: str


class Strict(msgspec.Struct):
    word: str

    def __post_init__(self) -> None:
        if not self.word:
            raise ValueError("a word is needed")


class Model(pydantic.BaseModel):
    word: str = pydantic.Field(min_length=1)


@pytest.mark.parametrize("kind", [Named, Strict, Model, dict[str, str]])
async def test_the_object_of_a_handler_may_be_of_many_kinds(app: Stemflow, registry: TaskRegistry, kind: Any) -> None:
    # Given a plain handler, which runs in a thread
    class Say(TaskHandler[Any, str]):
        name = "say"

        def call(self, context: TaskContext, args: Any) -> str:
            return type(args).__name__ + (args["word"] if isinstance(args, dict) else args.word)

    Say.call.__annotations__["args"] = kind
    registry.register(Say())
    # Then it gets an object of its kind
    name = "dict" if kind in (Named, dict[str, str]) else kind.__name__
    assert await app.run(Canvas.task("say", word="x")) == f"{name}x"
    with pytest.raises(BadArguments):
        await app.submit(Canvas.task("say", word=3))


async def test_the_object_of_a_complete_call_is_made_by_submit(app: Stemflow, registry: TaskRegistry) -> None:
    # Given a class with a rule of its own
    class Say(TaskHandler[Strict, None]):
        name = "say"

        async def call(self, context: TaskContext, args: Strict) -> None: ...

    registry.register(Say())
    # When its fields fit but the rule does not hold, then submit says so
    with pytest.raises(BadArguments, match="a word is needed"):
        await app.submit(Canvas.task("say", word=""))


async def test_a_handler_may_take_nothing(app: Stemflow, registry: TaskRegistry) -> None:
    class Tick(TaskHandler[None, str]):
        name = "tick"

        async def call(self, context: TaskContext, args: None) -> str:
            return f"{args}"

    tick = registry.register(Tick())
    assert await app.run(tick.call(None)) == "None"
    with pytest.raises(BadArguments, match="at most 0 by position"):
        await app.submit(Canvas.task("tick", 1))


def test_a_handler_without_a_name_or_with_other_parameters_is_refused(registry: TaskRegistry) -> None:
    class Nameless(TaskHandler[Charge, None]):
        async def call(self, context: TaskContext, args: Charge) -> None: ...

    class Scalar(TaskHandler[int, None]):
        name = "scalar"

        async def call(self, context: TaskContext, args: int) -> None: ...

    with pytest.raises(OptionError, match="expected a class attribute `name`"):
        registry.register(Nameless())
    with pytest.raises(OptionError, match="task scalar: args: expected a dataclass, Struct, TypedDict, model or dict"):
        registry.register(Scalar())


# -- definitions


async def test_a_producer_without_the_handler_calls_by_a_definition(
    open_app: OpenApp, registry: TaskRegistry
) -> None:
    # Given a producer that knows no task, and a worker that has the handler
    producer = await open_app(TaskRegistry(), worker=False)
    registry.register(ChargeHandler())
    await open_app()

    # When it calls by a definition
    charge = TaskDefinition[Charge, Receipt]("orders.charge", decode_result=Receipt, options=TaskOptions(max_retries=2))
    handle = await producer.submit(charge.call(Charge(5)))
    result = await handle.wait(timeout=30)

    # Then the worker ran it under the definition's options, and the result is decoded
    assert result.value == Receipt("5 EUR by orders.charge")
    (root,) = await handle.records()
    plan = await producer.store.plan(root.plan)
    assert plan is not None and plan.options[0].max_retries == 2
    # And by a bare name only what a worker has declared
    with pytest.raises(UnknownTask):
        await producer.submit(Canvas.task("orders.refund", 5))


@pytest.mark.parametrize(
    ("args", "encode", "positional", "named"),
    [
        (Charge(1), None, (), {"amount": 1, "currency": "EUR", "due": None}),
        ({"a": 1}, None, (), {"a": 1}),
        ([1, 2], None, (1, 2), {}),
        (None, None, (), {}),
        (Charge(1), lambda charge: [charge.amount, charge.currency], (1, "EUR"), {}),
        (7, lambda number: {"n": number}, (), {"n": 7}),
    ],
)
def test_a_definition_encodes_its_arguments(
    args: Any, encode: Any, positional: tuple[Any, ...], named: dict[str, Any]
) -> None:
    call = TaskDefinition[Any, Any]("a", encode_args=encode).call(args)
    assert (call.args, call.kwargs) == (positional, named)


def test_a_definition_refuses_arguments_that_are_neither_named_nor_listed() -> None:
    with pytest.raises(OptionError, match="task a: encode_args: expected a mapping or a list of arguments, got 7"):
        TaskDefinition[int, None]("a").call(7)


async def test_a_builder_adds_the_given_members_and_may_be_anywhere_in_a_canvas(
    app: Stemflow, registry: TaskRegistry, clock: VirtualClock
) -> None:
    # Given a definition and a task that tells what reached it
    @registry.task("tell")
    async def tell(context: TaskContext, word: str) -> list[Any]:
        return [word, dict(context.headers), dict(context.meta), context.queue]

    define = TaskDefinition[dict[str, str], list[Any]]("tell")

    # When calls are built from it, each step answering a new builder
    plain = define.call({"word": "a"})
    built = plain.with_headers({"tenant": "x"}).with_headers({"lang": "en"}).with_meta({"n": 1}).priority(7)
    assert isinstance(built, TaskEnqueueBuilder) and plain.headers == {}

    # Then they are signatures like any other
    assert await app.run(built) == ["a", {"tenant": "x", "lang": "en"}, {"n": 1}, "default"]
    assert await app.run(Canvas.group(plain, built)) == [
        ["a", {}, {}, "default"], ["a", {"tenant": "x", "lang": "en"}, {"n": 1}, "default"],
    ]  # fmt: skip
    assert registry.options_of(built).priority == 7
    assert registry.options_of(plain.queue("slow")).queue == "slow"


async def test_a_builder_delays(app: Stemflow, registry: TaskRegistry, clock: VirtualClock) -> None:
    @registry.task("now")
    async def now() -> int:
        return clock.now_ms()

    define, start = TaskDefinition[None, int]("now"), clock.now_ms()
    instant = dt.datetime.fromtimestamp(start / 1_000 + 60, dt.UTC)
    assert await app.run(define.call(None).delay("90s")) == start + 90_000
    assert await app.run(define.call(None).not_before(instant + dt.timedelta(minutes=5))) == start + 360_000
    with pytest.raises(OptionError, match="expected a datetime with a time zone"):
        define.call(None).not_before(dt.datetime(2026, 1, 1))


def test_a_builder_refuses_a_wrong_option() -> None:
    with pytest.raises(OptionError, match=r"task a: priority: .*from 0 to 9"):
        TaskDefinition[None, None]("a").call(None).priority(11)


# -- schema


def test_the_schema_of_a_task_says_what_it_takes_and_what_is_said_of_it(registry: TaskRegistry) -> None:
    registry.register(ChargeHandler())

    @registry.task("place")
    async def place(context: TaskContext, lines: list[Charge], *, gift: bool = False) -> None:
        """Places an order."""

    assert registry.schema("orders.charge") == {
        "title": "orders.charge",
        "description": "Charges a card.",
        "type": "object",
        "properties": {
            "amount": {"type": "integer"},
            "currency": {"type": "string"},
            "due": {"anyOf": [{"type": "string", "format": "date"}, {"type": "null"}]},
        },
        "required": ["amount"],
        "additionalProperties": False,
        "x-stemflow": {"tags": ["money"], "idempotent": False},
    }
    schema = registry.schema("place")
    assert schema["description"] == "Places an order."
    assert schema["properties"]["lines"] == {"type": "array", "items": {"$ref": "#/definitions/Charge"}}
    assert schema["definitions"]["Charge"]["required"] == ["amount"]
    assert schema["required"] == ["lines"]
    with pytest.raises(UnknownTask):
        registry.schema("nobody")


def test_a_context_that_is_not_the_first_parameter_is_refused_where_the_task_is_registered() -> None:
    async def late(word: str, context: TaskContext) -> str:
        return word

    def named(word: str, *, context: SyncTaskContext) -> str:
        return word

    for function in (late, named):
        with pytest.raises(OptionError, match="expected the context as the first parameter, got it as number 2"):
            TaskRegistry().task("a")(function)
