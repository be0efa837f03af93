"""Typed parameters and results: a handler gets what it is annotated with, and what does not fit is refused early."""

from __future__ import annotations

import asyncio
import dataclasses
import datetime as dt
import enum
import functools
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, NoReturn, NotRequired, TypedDict
from uuid import UUID

import msgspec
import pydantic
import pydantic.dataclasses
import pytest

from stemflow import (
    BadArguments,
    BadResult,
    Canvas,
    InvalidWorkflow,
    NotSerializable,
    OptionError,
    RunFailed,
    Stemflow,
    TaskContext,
    TaskRegistry,
    UnknownRun,
    load_workflow,
)
from tests.spec.conftest import OpenApp

DAY = dt.datetime(2026, 11, 24, 8, 30, tzinfo=dt.UTC)


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


@dataclasses.dataclass
class Line:
    sku: str
    qty: int = 1
    at: dt.date | None = None


class Order(msgspec.Struct):
    lines: list[Line]
    total: Decimal = Decimal(0)


class Address(TypedDict):
    street: str
    zip: NotRequired[str]


class Customer(pydantic.BaseModel):
    name: str
    born: dt.date | None = None


@pydantic.dataclasses.dataclass
class Short:
    text: Annotated[str, pydantic.Field(max_length=3)]


class Place(NamedTuple):
    row: int
    seat: str


class Sku(str):
    """A text with a name of its own."""


class Cat(msgspec.Struct, tag="cat"):
    lives: int


class Dog(msgspec.Struct, tag="dog"):
    tricks: list[str]


FITTING: list[tuple[Any, Any, Any]] = [
    (int, 3, 3),
    (float, 3, 3.0),
    (str, "x", "x"),
    (bool, True, True),
    (None, None, None),
    (Any, {"a": [1]}, {"a": [1]}),
    (object, [1], [1]),
    (bytes, b"\x00\xff", b"\x00\xff"),
    (dt.datetime, DAY, DAY),
    (dt.date, DAY.date(), DAY.date()),
    (dt.time, dt.time(8, 30), dt.time(8, 30)),
    (dt.timedelta, dt.timedelta(minutes=90), dt.timedelta(minutes=90)),
    (UUID, UUID(int=7), UUID(int=7)),
    (Decimal, Decimal("1.20"), Decimal("1.20")),
    (Colour, Colour.BLUE, Colour.BLUE),
    (Literal["a", 1], "a", "a"),
    (int | None, None, None),
    (int | str, "x", "x"),
    (dt.date | None, DAY.date(), DAY.date()),
    (list[dt.date], [DAY.date()], [DAY.date()]),
    (dict[str, Decimal], {"a": Decimal("0.1")}, {"a": Decimal("0.1")}),
    (dict[int, str], {"1": "x"}, {1: "x"}),
    (tuple[int, str], (1, "x"), (1, "x")),
    (set[int], [1, 2], {1, 2}),
    (Sequence[int], [1, 2], [1, 2]),
    (Line, Line("apple", 2, DAY.date()), Line("apple", 2, DAY.date())),
    (Line, {"sku": "apple"}, Line("apple")),
    (Order, Order([Line("apple")], Decimal("1.5")), Order([Line("apple")], Decimal("1.5"))),
    (Address, {"street": "s"}, {"street": "s"}),
    (Customer, Customer(name="Ann", born=DAY.date()), Customer(name="Ann", born=DAY.date())),
    (list[Customer] | None, [{"name": "Ann"}], [Customer(name="Ann")]),
    (Cat | Dog, Dog(["sit"]), Dog(["sit"])),
    (Annotated[int, msgspec.Meta(ge=1)], 1, 1),
    (Annotated[int, pydantic.Field(ge=1)], 1, 1),
    (Short, Short("abc"), Short("abc")),
    (Place, Place(1, "a"), Place(1, "a")),
    (str, Sku("x"), "x"),
]


@pytest.mark.parametrize(("annotation", "given", "got"), FITTING, ids=lambda value: str(value)[:40])
async def test_a_handler_gets_what_its_parameter_is_annotated_with(
    app: Stemflow, registry: TaskRegistry, annotation: Any, given: Any, got: Any
) -> None:
    # Given a handler whose parameter has this type
    seen: list[Any] = []

    async def handler(value):  # type: ignore[no-untyped-def]
        seen.append(value)

    handler.__annotations__["value"] = annotation
    task = registry.task("handler")(handler)

    # When it is called with a value that JSON carries, in code or by name, alone or in a chain
    await app.run(task.s(given))
    await app.run(task.s(value=given))
    await app.run(Canvas.chain(task.s(given), task.si(given)))

    # Then it was given an object of the type each time
    assert seen == [got] * 4
    assert type(seen[0]) is type(got)


UNFITTING: list[tuple[Any, Any, str]] = [
    (int, "3", "value: expected int, got '3'"),
    (int, True, "value: expected int, got true"),
    (int, 1.5, "value: expected int, got 1.5"),
    (str, None, "value: expected str, got null"),
    (dt.datetime, "yesterday", "value: expected a valid RFC3339 encoded datetime, got 'yesterday'"),
    (UUID, "7", "value: expected a valid UUID, got '7'"),
    (Decimal, "much", "value: expected a valid decimal string, got 'much'"),
    (bytes, "%", "value: expected a valid base64 encoded string, got '%'"),
    (Colour, "green", "value: expected one of 'red', 'blue', got 'green'"),
    (Literal["a", "b"], "c", "value: expected one of 'a', 'b', got 'c'"),
    (int | None, "x", "value: expected int | null, got 'x'"),
    (list[int], [1, 2, "x"], "value[2]: expected int, got 'x'"),
    (Line, {"qty": 1}, "value: expected the field sku, got none"),
    (Order, {"lines": [{"sku": "a"}, {"sku": "b", "qty": "two"}]}, "value.lines[1].qty: expected int, got 'two'"),
    (Customer, {"name": 3}, "value.name: expected a valid string, got 3"),
    (list[Customer], [{}], "value[0].name: expected a value, got none"),
    (Annotated[int, msgspec.Meta(ge=1)], 0, "value: expected int >= 1, got 0"),
    (Annotated[int, pydantic.Field(ge=1)], 0, "value: expected greater than or equal to 1, got 0"),
    (Short, {"text": "long"}, "value.text: expected String should have at most 3 characters, got 'long'"),
    (Place, [1], "value: expected array of length 2, got [1]"),
]


@pytest.mark.parametrize(("annotation", "given", "told"), UNFITTING, ids=lambda value: str(value)[:40])
async def test_what_does_not_fit_is_refused_by_submit_with_its_place(
    app: Stemflow, registry: TaskRegistry, annotation: Any, given: Any, told: str
) -> None:
    # Given a handler whose parameter has this type
    async def handler(value: Any) -> None: ...

    handler.__annotations__["value"] = annotation
    task = registry.task("handler")(handler)

    # When it is submitted with a value that does not fit, in any place of a canvas
    other = registry.task("other")(lambda *what: None)
    for canvas in (
        task.s(given),
        Canvas.chain(other.s(), task.si(given)),
        Canvas.chord([task.s(given)], other.s()),
        Canvas.map(task.s(), [given]),
        other.s().on_failure(task.si(given)),
    ):
        with pytest.raises(BadArguments) as refused:
            await app.submit(canvas)
        # Then it learns what was expected where, and nothing was stored
        assert str(refused.value).removeprefix("task handler: ").removeprefix("items[0]: ") == told
    assert await app.store.runs(10) == []


async def test_the_error_names_task_parameter_path_expected_and_got(app: Stemflow, registry: TaskRegistry) -> None:
    @registry.task("orders.place")
    async def place(order: Order) -> None: ...

    with pytest.raises(BadArguments) as refused:
        await app.submit(Canvas.task("orders.place", {"lines": [{"sku": 3}]}))
    error = refused.value
    assert (error.task, error.parameter, error.path) == ("orders.place", "order", ".lines[0].sku")
    assert (error.expected, error.got) == ("str", "3")


@pytest.mark.parametrize(
    ("args", "kwargs", "told"),
    [
        ((), {}, "task pay: amount: expected a value, got none"),
        ((1, "EUR", 3), {}, "task pay: its arguments: expected at most 2 by position, got 3"),
        ((1,), {"amont": 2}, "task pay: amont: expected one of the parameters (amount, currency, note), "
                             "got a name that is none of them"),
        ((1,), {"amount": 2}, "task pay: amount: expected one value, got two, one by position and one by name"),
        ((1,), {"note": 3}, "task pay: note: expected str, got 3"),
    ],
)  # fmt: skip
async def test_number_and_names_of_arguments_are_checked_by_submit(
    app: Stemflow, registry: TaskRegistry, args: tuple[Any, ...], kwargs: dict[str, Any], told: str
) -> None:
    @registry.task("pay")
    async def pay(context: TaskContext, amount: int, currency: str = "EUR", *, note: str = "") -> None: ...

    with pytest.raises(BadArguments) as refused:
        await app.submit(Canvas.task("pay", *args, **kwargs))
    assert str(refused.value) == told


async def test_every_extra_argument_is_converted(app: Stemflow, registry: TaskRegistry) -> None:
    @registry.task("many")
    async def many(first: int, *dates: dt.date, **lines: Line) -> list[Any]:
        return [type(one).__name__ for one in (first, *dates, *lines.values())]

    assert await app.run(many.s(1, DAY.date(), DAY.date(), a=Line("x"))) == ["int", "date", "date", "Line"]
    with pytest.raises(BadArguments, match=r"argument 3: expected a valid RFC3339 encoded date, got 'x'"):
        await app.submit(Canvas.task("many", 1, "2026-01-01", "x"))
    with pytest.raises(BadArguments, match=r"b: expected object, got 2"):
        await app.submit(Canvas.task("many", 1, b=2))


async def test_of_a_partial_call_only_what_is_given_is_checked(app: Stemflow, registry: TaskRegistry) -> None:
    # Given links of a chain that wait for a value in front
    @registry.task("day")
    async def day() -> dt.date:
        return DAY.date()

    @registry.task("later")
    async def later(start: dt.date, days: int) -> dt.date:
        return start + dt.timedelta(days)

    # Then what is given is checked at its place behind that value
    assert await app.run(day.s() | later.s(7)) == DAY.date() + dt.timedelta(7)
    for wrong, told in ((later.s("7"), "days: expected int"), (later.s(), "days: expected a value"),  # type: ignore[misc]
                        (later.s(1, 2), "at most 2 by position, got 3")):  # type: ignore[misc]  # fmt: skip
        with pytest.raises(BadArguments, match=told):
            await app.submit(Canvas.chain(day.s(), wrong))


async def test_a_result_is_converted_for_the_next_link_the_callback_and_the_chunk(
    app: Stemflow, registry: TaskRegistry
) -> None:
    @registry.task("line")
    async def line(sku: str) -> Line:
        return Line(sku, 2, DAY.date())

    @registry.task("skus")
    async def skus(lines: list[Line]) -> str:
        return "+".join(f"{one.sku}:{one.at.isoformat() if one.at else ''}" for one in lines)

    @registry.task("qty")
    async def qty(one: Line) -> int:
        return one.qty

    assert await app.run(line.s("a") | qty.s()) == 2
    assert await app.run(Canvas.chord([line.s("a"), line.s("b")], skus.s())) == "a:2026-11-24+b:2026-11-24"
    assert await app.run(Canvas.chunks(qty.s(), [Line("a", 1), Line("b", 5)], 2)) == [[1, 5]]


async def test_arguments_that_only_the_worker_can_judge_fail_there_without_a_retry(
    open_app: OpenApp, registry: TaskRegistry
) -> None:
    # Given a producer that does not know the task as its worker has it
    known = TaskRegistry()
    known.task("double", max_retries=5)(lambda number: None)
    calls = []

    @registry.task("double", max_retries=5)
    async def double(number: int) -> int:
        calls.append(number)
        return 2 * number

    producer = await open_app(known, worker=False)
    worker = await open_app()

    # When it submits what does not fit
    handle = await producer.submit(Canvas.task("double", "two"))
    result = await handle.wait()

    # Then the task fails once, its handler was never called, and the dead letter says why
    assert (result.status, result.attempt, calls) == ("failed", 0, [])
    assert result.error is not None and result.error.type == "BadArguments"
    assert result.error.message == "task double: number: expected int, got 'two'"
    assert [letter.reason for letter in await worker.store.dead_letters(handle.id)] == ["bad-arguments"]


async def test_a_wrong_value_of_the_step_before_is_bad_arguments(app: Stemflow, registry: TaskRegistry) -> None:
    @registry.task("text")
    async def text() -> Any:
        return "x"

    @registry.task("number", max_retries=3)
    async def number(value: int) -> int:
        return value

    handle = await app.submit(Canvas.chain(text.s(), number.s()))
    result = await handle.wait()
    assert result.error is not None
    assert (result.failed_at, result.attempt, result.error.type) == ("[1]", 0, "BadArguments")


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ({"a": [1, {2}]}, r"arguments of take\[0\]\.a\[1\]: expected a JSON value, got set"),
        (Line("x", float("nan")), r"arguments of take\[0\]\.qty: expected a JSON number, got nan"),  # type: ignore[arg-type]
        ([Line(object())], r"arguments of take\[0\]\[0\]\.sku: expected a JSON value, got object"),  # type: ignore[arg-type]
        (Order([Line(print)]), r"arguments of take\[0\]\.lines\[0\]\.sku: expected a JSON value, got builtin"),  # type: ignore[arg-type]
        (Customer.model_construct(name=object()), r"arguments of take\[0\]: expected a model that can become JSON"),
    ],
)  # fmt: skip
async def test_what_cannot_become_json_is_refused_by_submit_with_its_path(
    app: Stemflow, registry: TaskRegistry, value: Any, told: str
) -> None:
    @registry.task("take")
    async def take(value: Any) -> None: ...

    for canvas in (take.s(value), Canvas.chain(take.s(value), take.si(1))):
        with pytest.raises(NotSerializable, match=told):
            await app.submit(canvas)


async def test_functions_of_many_kinds_can_be_tasks(app: Stemflow, registry: TaskRegistry) -> None:
    # Given a class that is defined next to the task, a partial, and one that never returns
    @dataclasses.dataclass
    class Local:
        n: int

    async def add(line: Line, n: Local) -> int:
        return line.qty + n.n

    @registry.task("never")
    async def never() -> NoReturn:
        raise ValueError("never")

    whole = registry.task("whole")(add)
    part = registry.task("part")(functools.partial(add, n=Local(1)))

    # Then their arguments are converted all the same
    assert await app.run(whole.s(Line("a", 2), Local(3))) == 5
    assert await app.run(part.s(Line("a", 2))) == 3
    with pytest.raises(RunFailed, match="never"):
        await app.run(never.s())


def test_an_annotation_that_json_can_never_become_is_refused_at_registration(registry: TaskRegistry) -> None:
    class Connection: ...

    with pytest.raises(OptionError, match="use: parameter connection: expected an annotation that JSON can"):

        @registry.task("use")
        async def use(connection: list[Connection]) -> None: ...

    with pytest.raises(OptionError, match="may not contain more than one dataclass"):

        @registry.task("either")
        async def either(one: Line | Colours) -> None: ...

    assert list(registry) == []


@dataclasses.dataclass
class Colours:
    first: Colour


def test_an_annotation_that_names_nothing_is_refused_at_registration(registry: TaskRegistry) -> None:
    with pytest.raises(OptionError, match=r"parameter order: expected an annotation that can be read .* 'Ordr'"):

        @registry.task("typo")
        async def typo(order: Ordr) -> None: ...  # type: ignore[name-defined]  # noqa: F821


@pytest.mark.parametrize(
    ("canvas", "told"),
    [
        (lambda pay: Canvas.map(pay.s(currency="EUR"), [1, 2, "3"]), "items[2]: amount: expected int, got '3'"),
        (lambda pay: Canvas.map(pay.s(currency=1), [1, 2]), "currency: expected str, got 1"),
        (lambda pay: Canvas.map(pay.s(), range(3)), "currency: expected a value, got none"),
        (lambda pay: Canvas.starmap(pay.s(), [(1, "EUR"), (2, 3)]), "items[1]: currency: expected str, got 3"),
        (lambda pay: Canvas.chunks(pay.s("EUR"), [1, 2, 3, "4"], 2), "items[1]: amount: expected int, got '4'"),
        (lambda pay: Canvas.group(Canvas.map(pay.s("EUR") | pay.si(1, "x"), ["1"])), "items[0]: amount: expected int"),
    ],
)
async def test_items_of_a_map_are_checked_as_the_arguments_that_they_become(
    app: Stemflow, registry: TaskRegistry, canvas: Any, told: str
) -> None:
    @registry.task("pay")
    async def pay(amount: int, currency: str) -> None: ...

    with pytest.raises(BadArguments) as refused:
        await app.submit(canvas(pay))
    assert str(refused.value).startswith(f"task pay: {told}")


@pytest.mark.parametrize("way", ["enqueue", "replace", "add_to_group"])
async def test_what_a_running_task_asks_for_is_checked_too(app: Stemflow, registry: TaskRegistry, way: str) -> None:
    # Given a task that starts, becomes or adds a call that does not fit
    @registry.task("pay")
    async def pay(amount: int) -> None: ...

    @registry.task("ask")
    async def ask(context: TaskContext) -> None:
        await getattr(context, way)(Canvas.task("pay", "much"))

    # When it runs
    handle = await app.submit(Canvas.group(ask.s()))
    result = await handle.wait()

    # Then it fails with the sentence, and nothing was started
    assert result.error is not None
    assert (result.status, result.error.type) == ("failed", "BadArguments")
    assert result.error.message == "task pay: amount: expected int, got 'much'"
    assert len(await app.store.runs(10)) == 1
    assert [node.path for node in await handle.records()] == ["", "[0]"]


# -- results


RESULTS: list[tuple[Any, Any, Any]] = [
    (Line, Line("a", 2, DAY.date()), {"sku": "a", "qty": 2, "at": "2026-11-24"}),
    (Order, Order([Line("a")], Decimal("1.50")), {"lines": [{"sku": "a", "qty": 1, "at": None}], "total": "1.50"}),
    (Customer, Customer(name="Ann", born=DAY.date()), {"name": "Ann", "born": "2026-11-24"}),
    (dt.datetime, DAY, "2026-11-24T08:30:00Z"),
    (dt.timedelta, dt.timedelta(minutes=90), "PT5400S"),
    (Colour, Colour.RED, "red"),
    (bytes, b"hi", "aGk="),
    (tuple[int, UUID], (1, UUID(int=1)), [1, "00000000-0000-0000-0000-000000000001"]),
    (list[Cat | Dog], [Cat(9), Dog(["sit"])], [{"type": "cat", "lives": 9}, {"type": "dog", "tricks": ["sit"]}]),
    (Line | None, None, None),
    (Any, {"a": 1}, {"a": 1}),
]


@pytest.mark.parametrize(("annotation", "value", "raw"), RESULTS, ids=lambda value: str(value)[:40])
async def test_a_result_is_stored_as_json_and_read_as_it_is_annotated(
    open_app: OpenApp, registry: TaskRegistry, annotation: Any, value: Any, raw: Any
) -> None:
    # Given a task that gives a rich value
    async def give():  # type: ignore[no-untyped-def]
        return value

    give.__annotations__["return"] = annotation
    task = registry.task("give")(give)
    await open_app()

    # When another engine on the store, which knows the task, waits for it
    producer = await open_app(worker=False)
    handle = await producer.submit(task.s())
    result = await handle.wait()

    # Then it has the value and the data; one that knows no task has the data, or what it asks for
    assert (result.value, result.raw) == (value, raw)
    assert type(result.value) is type(value)
    stranger = await open_app(TaskRegistry(), worker=False)
    assert (await stranger.wait_for_task(handle.id)).value == raw
    if annotation is not Any:
        assert (await stranger.wait_for_task(handle.id, decode=annotation)).value == value
        assert (await stranger.result(handle.id, decode=annotation)).required() == value


async def test_the_value_of_a_canvas_is_decoded_slot_by_slot(app: Stemflow, registry: TaskRegistry) -> None:
    @registry.task("line")
    async def line(sku: str) -> Line:
        if sku == "bad":
            raise ValueError("bad")
        return Line(sku)

    @registry.task("keep")
    async def keep(lines: list[Any]) -> list[Line]:
        return [one for one in lines if one is not None and "error" not in one]

    a, b = Line("a"), Line("b")
    assert await app.run(Canvas.group(line.s("a"), line.s("b"))) == [a, b]
    assert await app.run(Canvas.group(Canvas.group(line.s("a")), line.s("b"))) == [[a], b]  # type: ignore[arg-type]
    assert await app.run(Canvas.map(line.s(), ["a", "b"])) == [a, b]
    assert await app.run(Canvas.chunks(line.s(), ["a", "b", "a"], 2)) == [[a, b], [a]]
    assert await app.run(Canvas.chord([line.s("a"), line.s("bad")], keep.s(), on_member_error="ignore")) == [a]
    assert await app.run(line.s("a").on_success(keep.si([]))) == a
    for policy, slot in (("ignore", None), ("collect", {"type": "ValueError", "message": "bad"})):
        value: Any = await app.run(Canvas.group(line.s("a"), line.s("bad"), on_member_error=policy))  # type: ignore[call-overload]
        assert value[0] == a
        assert (value[1] if slot is None else {k: value[1]["error"][k] for k in slot}) == slot


async def test_a_signature_says_itself_how_its_result_is_decoded(app: Stemflow, registry: TaskRegistry) -> None:
    @registry.task("give")
    async def give(sku: Any) -> Any:
        return {"sku": sku}

    as_type = Canvas.task("give", "a", decode=Line)
    as_function = Canvas.task("give", "a", decode=lambda data: data["sku"].upper())
    assert await app.run(as_type) == Line("a")
    assert await app.run(as_function) == "A"
    assert await app.run(Canvas.group(as_type, as_function)) == [Line("a"), "A"]
    linked = Canvas.task("give", decode=lambda data: data["sku"]["sku"]).on_success(give.si("c"))
    assert await app.run(Canvas.chain(give.s("b"), linked)) == "b"


async def test_a_result_that_does_not_fit_is_refused_where_it_is_read(app: Stemflow, registry: TaskRegistry) -> None:
    @registry.task("lie")
    async def lie() -> list[int]:
        return [1, "two"]  # type: ignore[list-item]

    result = await (await app.submit(lie.s())).wait()
    assert result.raw == [1, "two"]
    with pytest.raises(BadResult, match=r"task lie: result\[1\]: expected int, got 'two'; correct the annotation"):
        _ = result.value


async def test_a_result_that_cannot_become_json_fails_the_task_with_its_path(
    app: Stemflow, registry: TaskRegistry
) -> None:
    @registry.task("give", max_retries=3)
    async def give(what: str) -> Any:
        return {"set": {"a": [{1}]}, "nan": Line("a", float("nan"))}[what]  # type: ignore[arg-type]

    for what, told in (("set", "result of give.a[0]: expected a JSON value, got set"),
                       ("nan", "result of give.qty: expected a JSON number, got nan")):  # fmt: skip
        result = await (await app.submit(give.s(what))).wait()
        assert result.error is not None and (result.status, result.attempt) == ("failed", 0)
        assert result.error.message.startswith(told)


async def test_what_a_task_result_gives_when_it_failed(app: Stemflow, registry: TaskRegistry) -> None:
    @registry.task("fail")
    async def fail() -> int:
        raise ValueError("no")

    result = await (await app.submit(fail.s())).wait()
    assert (result.value, result.raw, result.value_or(7), result.timed_out) == (None, None, 7, False)
    assert result.error is not None and result.error.message == "no"
    with pytest.raises(RunFailed, match="ValueError: no"):
        result.required()


async def test_a_task_within_a_run_is_waited_for_by_its_id_from_another_process(
    open_app: OpenApp, registry: TaskRegistry
) -> None:
    # Given a chain whose second step takes a minute
    @registry.task("first")
    async def first() -> Line:
        return Line("a")

    @registry.task("second")
    async def second(line: Line) -> Line:
        await asyncio.sleep(60)
        return Line(line.sku + "b")

    worker = await open_app()
    other = await open_app(worker=False)
    handle = await worker.submit(first.s() | second.s())

    # When another engine waits for its tasks, before they are reached
    early = await other.wait_for_task(f"{handle.id}/[1]", timeout=5)
    done = await asyncio.gather(other.wait_for_task(f"{handle.id}/[0]"), other.wait_for_task(f"{handle.id}/[1]"))

    # Then it learns of each end, and of a timeout
    assert (early.timed_out, early.value) == (True, None)
    assert [(one.task_id, one.value) for one in done] == [
        (f"{handle.id}/[0]", Line("a")), (f"{handle.id}/[1]", Line("ab")),
    ]  # fmt: skip
    assert (await other.result(f"{handle.id}/[0]")).value == Line("a")
    for absent in ("nobody", "nobody/[0]", f"{handle.id}/[7]"):
        with pytest.raises(UnknownRun):
            await other.wait_for_task(absent, timeout=1)
        with pytest.raises(UnknownRun):
            await other.result(absent)


async def test_however_the_end_and_the_wait_interleave_no_end_is_missed(
    open_app: OpenApp, registry: TaskRegistry
) -> None:
    # Given tasks that end a little earlier or later than somebody begins to wait
    @registry.task("nap")
    async def nap(seconds: float) -> float:
        await asyncio.sleep(seconds)
        return seconds

    worker = await open_app()
    other = await open_app(worker=False)
    loop = asyncio.get_running_loop()
    for step in range(40):
        handle = await worker.submit(Canvas.group(nap.s(0.02)))
        await asyncio.sleep(step / 1_000)
        begun = loop.time()
        # Then both kinds of waiting end at once, and not at a timeout
        both = await asyncio.gather(other.wait_for_task(handle.id, 30), other.wait_for_task(f"{handle.id}/[0]", 30))
        assert [one.raw for one in both] == [[0.02], 0.02]
        assert loop.time() - begun < 0.1


# -- workflow files


FLOW = """\
stemflow: "1"
name: flow
inputs: {day: {type: string, default: "2026-11-24"}}
steps:
  book: {task: book, args: {day: "${{ inputs.day }}", lines: [{sku: a}, {sku: "${{ inputs.day }}", qty: x}], late: 3}}
  undo: {task: book, args: {day: tomorrow, lines: []}, compensate: {task: book}}
"""


def test_literal_arguments_of_a_workflow_file_are_checked_with_their_places(
    registry: TaskRegistry, tmp_path: Path
) -> None:
    # Given a file whose calls do not fit their task in several places, next to values that nobody knows yet
    @registry.task("book")
    async def book(day: dt.date, lines: list[Line], *, note: str = "") -> None: ...

    (tmp_path / "flow.yaml").write_text(FLOW)
    # When it is read with the tasks known
    with pytest.raises(InvalidWorkflow) as refused:
        load_workflow(tmp_path / "flow.yaml", known_tasks=registry)
    # Then all is notified at once, and of the value with an expression in it nothing
    assert [(one.code, one.line, one.message) for one in refused.value.diagnostics] == [
        ("SF303", 5, "args.late: `book` has no parameter `late`"),
        ("SF304", 6, "args.day: `book` expects a valid RFC3339 encoded date, got 'tomorrow'"),
        ("SF516", 6, "compensate: nothing undoes this step, neither a failure nor a cancel of the run"),
        ("SF303", 6, "args: `book` needs the argument `day`, got none"),
        ("SF303", 6, "args: `book` needs the argument `lines`, got none"),
    ]


async def test_a_workflow_that_was_read_without_its_tasks_is_checked_by_submit(
    app: Stemflow, registry: TaskRegistry, tmp_path: Path
) -> None:
    @registry.task("book")
    async def book(day: dt.date) -> dt.date:
        return day

    (tmp_path / "flow.yaml").write_text('stemflow: "1"\nname: f\nchain: [{task: book, args: {day: 7}}]\n')
    with pytest.raises(BadArguments, match="task book: day: expected date, got 7"):
        await app.submit(load_workflow(tmp_path / "flow.yaml"))
    (tmp_path / "flow.yaml").write_text('stemflow: "1"\nname: f\nchain: [{task: book, args: {day: 2026-11-24}}]\n')
    assert await app.run(load_workflow(tmp_path / "flow.yaml")) == DAY.date()
