"""Everything that enters through the public calls is checked there, on every store: wrong input gets a sentence."""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from stemflow import (
    Canvas,
    HandBack,
    OptionError,
    RateLimit,
    RetryPolicy,
    RunConflict,
    Stemflow,
    StemflowError,
    TaskDefinition,
    TaskRegistry,
    UnitError,
    skew,
)

registry_of_names = TaskRegistry()


@registry_of_names.task("add")
async def add(x: int = 0, y: int = 0) -> int:
    return x + y


def plain(x: int) -> int:
    return x


NO_SIGNATURES: dict[str, Callable[[], Any]] = {
    "a task after |": lambda: add.s(1) | add,  # type: ignore[operator]
    "tasks in a group": lambda: Canvas.group(add, add),  # type: ignore[call-overload]
    "tasks in a chain": lambda: Canvas.chain(add, add),  # type: ignore[call-overload]
    "a task as a body": lambda: Canvas.chord([add.s(1)], add),  # type: ignore[call-overload]
    "None as a body": lambda: Canvas.chord([add.s(1)], None),  # type: ignore[call-overload]
    "a task in a header": lambda: Canvas.chord([add], add.s()),  # type: ignore[call-overload]
    "a task in a map": lambda: Canvas.map(add, [1]),  # type: ignore[call-overload,arg-type]
    "a task as a hook": lambda: add.s(1).on_failure(add),  # type: ignore[arg-type]
    "names in a group": lambda: Canvas.group("add", "add"),  # type: ignore[call-overload]
    "one name in a group": lambda: Canvas.group("add"),  # type: ignore[call-overload,arg-type]
}


@pytest.mark.parametrize("make", NO_SIGNATURES.values(), ids=NO_SIGNATURES)
def test_what_is_no_signature_is_refused_where_it_is_given(make: Callable[[], Any]) -> None:
    with pytest.raises(OptionError, match=r"expected a signature, got"):
        make()


@pytest.mark.parametrize(
    "what", [add, add.s, "add", None, plain, [add.s(1)]], ids=["task", "method", "name", "None", "function", "list"]
)
async def test_what_is_no_signature_is_not_submitted(app: Stemflow, what: Any) -> None:
    with pytest.raises(OptionError, match=r"submit: expected a signature, got"):
        await app.submit(what)


CANVASES: dict[str, Callable[[], Any]] = {
    "a policy that does not exist": lambda: Canvas.group(add.s(), on_member_error="fail-fast"),  # type: ignore[arg-type]
    "a policy of a chord": lambda: Canvas.chord([add.s()], add.s(), on_member_error="none"),  # type: ignore[call-overload]
    "a policy of a map": lambda: Canvas.map(add.s(), [1], on_member_error="x"),  # type: ignore[arg-type]
    "a name with a separator": lambda: add.s(1).named("a.b"),
    "an empty name": lambda: add.s(1).named(""),
    "a name that is no text": lambda: add.s(1).named(5),  # type: ignore[arg-type]
    "no concurrency": lambda: Canvas.map(add.s(), [1], concurrency=0),
    "concurrency as text": lambda: Canvas.map(add.s(), [1], concurrency="5"),  # type: ignore[arg-type]
    "items that are text": lambda: Canvas.map(add.s(), "abc"),  # type: ignore[arg-type]
    "items that are a number": lambda: Canvas.map(add.s(), 5),  # type: ignore[arg-type]
    "chunks of nothing": lambda: Canvas.chunks(add.s(), [1], 0),
    "chunks of a half": lambda: Canvas.chunks(add.s(), [1], 0.5),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("make", CANVASES.values(), ids=CANVASES)
def test_a_wrong_argument_of_a_constructor_is_refused(make: Callable[[], Any]) -> None:
    with pytest.raises(OptionError, match="expected"):
        make()


SAME_NAMES: dict[str, Callable[[], Any]] = {
    "two members": lambda: Canvas.group(add.s(1).named("a"), add.s(2).named("a")),
    "two links": lambda: Canvas.chain(add.s(1).named("a"), add.s(2).named("a")),
    "a member and the body": lambda: Canvas.chord([add.s(1).named("then")], add.s()),
    "two members of groups that a header takes in": lambda: Canvas.chord(
        [Canvas.group(add.s(1).named("a")), Canvas.group(add.s(1).named("a"))], add.s()
    ),
}


@pytest.mark.parametrize("make", SAME_NAMES.values(), ids=SAME_NAMES)
async def test_siblings_have_different_names(app: Stemflow, registry: TaskRegistry, make: Callable[[], Any]) -> None:
    registry.register(add)
    with pytest.raises(OptionError, match="expected members of different names"):
        await app.submit(make())


WRONG: dict[str, dict[str, Any]] = {
    "a number as an id": {"run_id": 7},
    "True as an id": {"run_id": True},
    "bytes as an id": {"run_id": b"x"},
    "a UUID as an id": {"run_id": uuid.UUID(int=5)},
    "an empty id": {"run_id": ""},
    "a long id": {"run_id": "x" * 201},
    "a lone surrogate in an id": {"run_id": "half \ud800"},
    "a line feed in an id": {"run_id": "a\nb"},
    "a number as a file": {"file": 5},
    "a lone surrogate in a file": {"file": "\udcff.yaml"},
    "text as tasks": {"tasks": "abc"},
    "numbers as tasks": {"tasks": (1,)},
    "text as headers": {"headers": "abc"},
    "numbers in headers": {"headers": {"a": 1}},
    "a lone surrogate in headers": {"headers": {"a": "\ud800"}},
    "headers of over a MiB": {"headers": {"a": "x" * 2_000_000}},
    "a list as meta": {"meta": [1]},
    "a set in meta": {"meta": {"a": {1}}},
    "text as again": {"again": "yes"},
    "inputs of a canvas": {"inputs": {"a": 1}},
}


@pytest.mark.parametrize("given", WRONG.values(), ids=WRONG)
async def test_a_wrong_argument_of_submit_is_named_and_nothing_is_stored(
    app: Stemflow, registry: TaskRegistry, given: dict[str, Any]
) -> None:
    # Given an engine with a worker; when a run is submitted with an argument of a wrong type or value
    registry.register(add)
    with pytest.raises(StemflowError, match=f"submit: {next(iter(given))}"):
        await app.submit(add.s(1, 2), **given)
    # then nothing was stored, and the worker goes on
    assert await app.store.runs(10) == []
    assert await app.run(add.s(1, 2)) == 3


@pytest.mark.parametrize("run_id", ["x" * 200, "invoice/4711", "a b", "Größe – 3 €", "🙂‍↔️", "%2F", "/", "x/"])
async def test_an_id_of_any_visible_characters_is_a_run(app: Stemflow, registry: TaskRegistry, run_id: str) -> None:
    registry.register(add)
    handle = await app.submit(add.s(1, 2), run_id=run_id)
    assert (await handle.wait()).value == 3
    assert (await app.result(handle.id)).value == 3


async def test_a_path_names_the_file_of_a_run(app: Stemflow, registry: TaskRegistry) -> None:
    registry.register(add)
    handle = await app.submit(add.s(), file=Path("workflows") / "order.yaml", tasks=["shop.tasks"])  # type: ignore[arg-type,call-overload]
    header = await app.library.header(handle.id)
    assert (header.file, header.tasks) == ("workflows/order.yaml", ("shop.tasks",))


@pytest.mark.parametrize(
    "given", [{"file": "a.csv"}, {"tasks": ("a",)}, {"again": True}, {"run_id": "x"}], ids=lambda g: next(iter(g))
)
async def test_a_keyword_that_is_also_a_parameter_of_the_task_is_refused(
    app: Stemflow, registry: TaskRegistry, given: dict[str, Any]
) -> None:
    @registry.task("load")
    async def load(file: Any = None, tasks: Any = None, again: Any = None, run_id: Any = None) -> list[Any]:
        return [file, tasks, again, run_id]

    (name,) = given
    with pytest.raises(OptionError, match=rf"submit: {name}: .* load has a parameter of this name.*\.s\({name}=...\)"):
        await app.submit(load.s(), **given)
    # What is bound already is not ambiguous: the keyword is the engine's.
    handle = await app.submit(load.s(None, None, None, None), **given)
    assert (await handle.wait()).value == [None] * 4


async def test_the_same_id_again_is_the_same_run(app: Stemflow, registry: TaskRegistry) -> None:
    registry.register(add)
    first = await app.submit(add.s(1, 2), run_id="order-5")
    again = await app.submit(add.s(1, 2), run_id="order-5")
    assert (first.existing, again.existing, again.id) == (False, True, first.id)
    assert (await again.wait()).value == 3


OTHER_WORK: dict[str, Callable[[], Any]] = {
    "other arguments": lambda: add.s(2, 2),
    "another option": lambda: add.with_options(priority=3).s(1, 2),
    "a canvas": lambda: add.s(1, 2) | add.s(3),
}


@pytest.mark.parametrize("make", OTHER_WORK.values(), ids=OTHER_WORK)
async def test_the_same_id_for_other_work_is_a_conflict(
    app: Stemflow, registry: TaskRegistry, make: Callable[[], Any]
) -> None:
    # Given a run; when other work is submitted under its id, before its end and after it; then it is refused
    registry.register(add)
    first = await app.submit(add.s(1, 2), run_id="order-5")
    with pytest.raises(RunConflict, match=r"order-5.*digest"):
        await app.submit(make(), run_id="order-5")
    await first.wait()
    with pytest.raises(RunConflict, match="order-5"):
        await app.submit(make(), run_id="order-5")
    # and the first run is what it was
    assert (await first.wait()).value == 3


async def test_the_items_of_a_map_are_part_of_its_work(app: Stemflow, registry: TaskRegistry) -> None:
    registry.register(add)
    first = await app.submit(Canvas.map(add.s(), [1, 2]), run_id="m")
    assert (await app.submit(Canvas.map(add.s(), [1, 2]), run_id="m")).existing
    with pytest.raises(RunConflict):
        await app.submit(Canvas.map(add.s(), [1, 3]), run_id="m")
    assert (await first.wait()).value == [1, 2]


SECOND = timedelta(seconds=1)
DURATIONS: dict[str, Callable[[Any], Any]] = {
    **{
        name: (lambda given, name=name: add.with_options(**{name: given}).s())
        for name in (
            "countdown", "expires", "soft_time_limit", "hard_time_limit", "visibility_timeout", "unique_for",
            "result_ttl",
        )
    },
    "initial": lambda given: RetryPolicy.of(initial=given),
    "per": lambda given: RateLimit(1, given).rate(),
    "delay": lambda given: TaskDefinition[Any, Any]("t").call({}).delay(given),
    "start": lambda given: skew(Canvas.group(add.s(), add.s()), start=given),
    "HandBack": HandBack,
    "unroutable_after": lambda given: Stemflow("memory:", unroutable_after=given),
}  # fmt: skip


@pytest.mark.parametrize("name", DURATIONS)
def test_a_duration_may_be_a_timedelta(name: str) -> None:
    DURATIONS[name](SECOND)


@pytest.mark.parametrize("given", [-5, float("nan"), float("inf"), "5", "5 minutes", True, [5], -SECOND], ids=repr)
@pytest.mark.parametrize("name", DURATIONS)
def test_what_is_no_duration_is_refused_under_the_name_of_the_option(name: str, given: Any) -> None:
    with pytest.raises((OptionError, UnitError), match=f"{name}.*expected a duration"):
        DURATIONS[name](given)


CALLS: dict[str, Callable[[Stemflow, Any], Awaitable[Any]]] = {
    "handle": lambda app, run: app.handle(run),
    "result": lambda app, run: app.result(run),
    "wait_for_task": lambda app, run: app.wait_for_task(run),
    "cancel": lambda app, run: app.cancel(run),
    "rerun": lambda app, run: app.rerun(run, failed=True),
    "why": lambda app, run: app.why(run),
    "approve": lambda app, run: app.approve(run, "step", by="ann"),
    "reject": lambda app, run: app.reject("run", run, by="ann"),
}


@pytest.mark.parametrize("given", [None, 5, b"run", ["run"], uuid.UUID(int=1), "a\ud800"], ids=repr)
async def test_what_is_no_id_is_refused_by_each_call_that_takes_one(app: Stemflow, given: Any) -> None:
    for name, call in CALLS.items():
        with pytest.raises(OptionError, match=f"^{name}.*: expected .*(id|text)"):
            await call(app, given)


@pytest.mark.parametrize("timeout", [float("nan"), True, "soon", [1], 10**30, -SECOND], ids=repr)
async def test_a_timeout_that_is_no_duration_is_refused(app: Stemflow, registry: TaskRegistry, timeout: Any) -> None:
    handle = await app.submit(registry.register(add).s(1))
    for call in (
        handle.wait(timeout),
        app.wait_for_task(handle.id, timeout),
        app.wait_for_task(f"{handle.id}/x", timeout),
    ):
        with pytest.raises(UnitError, match=r"^wait.*: timeout: expected a duration"):
            await call


async def test_a_timeout_may_be_text_a_timedelta_or_over_already(app: Stemflow, registry: TaskRegistry) -> None:
    handle = await app.submit(registry.register(add).with_options(countdown=3_600).s(1))
    for short in ("30s", SECOND, 0.5, 0, -3, float("-inf")):
        assert (await handle.wait(short)).timed_out
        assert (await app.wait_for_task(handle.id, short)).timed_out
    assert (await handle.wait(float("inf"))).value == 1


@pytest.mark.parametrize("name", ["", " ", "a\0b", "a\nb", "\ud800", "x" * 201, 5, None], ids=ascii)
def test_a_queue_has_a_short_printable_name(name: Any) -> None:
    with pytest.raises(OptionError, match="queue: expected "):
        add.with_options(queue=name)
