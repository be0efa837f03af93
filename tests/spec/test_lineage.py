"""Headers, meta, and what a run that a task starts takes over from it."""

from __future__ import annotations

from typing import Any

import pytest

from stemflow import Canvas, OptionError, Stemflow, TaskContext, TaskRegistry
from stemflow.dsl import parse_workflow
from tests.spec.conftest import OpenApp

TRACE = {"traceparent": "00-1", "tracestate": "a=b"}


@pytest.fixture
def contexts(registry: TaskRegistry) -> dict[str, TaskContext]:
    """The context of each call of the task `see`, under the word that it was given."""
    seen: dict[str, TaskContext] = {}

    @registry.task("see")
    async def see(context: TaskContext, word: str = "", *before: Any) -> str:
        seen[word] = context
        return word

    return seen


def see(registry: TaskRegistry) -> Any:
    return registry.get("see")


# -- headers and meta


async def test_a_tasks_own_headers_are_put_over_those_of_its_run(
    app: Stemflow, registry: TaskRegistry, contexts: dict[str, TaskContext]
) -> None:
    # Given a run with headers and meta, and a task of it that has its own
    own = see(registry).with_options(headers={"tenant": "b", "own": "1"}, meta={"n": [2]})
    headers, meta = {"tenant": "a", "run": "1"}, {"n": [1], "deep": {"a": None}}

    # When they run, alone or as members
    await app.run(own.s("alone"), headers=headers, meta=meta)
    await app.run(see(registry).s("plain") | own.si("member"), headers=headers, meta=meta)

    # Then each learns both, its own first
    for word in ("alone", "member"):
        assert contexts[word].headers == {"tenant": "b", "run": "1", "own": "1"}
        assert contexts[word].meta == {"n": [2], "deep": {"a": None}}
    assert (contexts["plain"].headers, contexts["plain"].meta) == (headers, meta)


async def test_headers_reach_every_task_of_a_run_in_every_composite(
    app: Stemflow, registry: TaskRegistry, contexts: dict[str, TaskContext]
) -> None:
    task = see(registry)
    tree = Canvas.chord([task.s("member"), Canvas.map(task.s(), ["of a map"])], task.si("body"))
    await app.run(tree.on_success(task.si("hook")), headers={"tenant": "a"})
    assert {word: dict(context.headers) for word, context in contexts.items()} == {
        word: {"tenant": "a"} for word in ("member", "of a map", "body", "hook")
    }


async def test_the_headers_of_a_workflow_files_run_reach_its_steps(
    app: Stemflow, registry: TaskRegistry, contexts: dict[str, TaskContext]
) -> None:
    text = 'stemflow: "1"\nname: w\nsteps: {a: {task: see, args: {word: step}}}\n'
    workflow = parse_workflow(text, "w.yaml").workflow
    assert workflow is not None
    await app.run(workflow, headers={"tenant": "a"})
    assert contexts["step"].headers == {"tenant": "a"}


async def test_headers_travel_to_the_worker_of_another_process(
    open_app: OpenApp, registry: TaskRegistry, contexts: dict[str, TaskContext]
) -> None:
    producer = await open_app(worker=False)
    handle = await producer.submit(see(registry).s("far"), headers={"tenant": "a"})
    await open_app()
    await handle.wait()
    assert contexts["far"].headers == {"tenant": "a"}


async def test_a_rerun_keeps_the_headers(
    app: Stemflow, registry: TaskRegistry, contexts: dict[str, TaskContext]
) -> None:
    handle = await app.submit(see(registry).s("x") | see(registry).si("y"), headers={"tenant": "a"})
    await handle.wait()
    first = contexts.pop("x")
    await (await app.rerun(handle.id, from_step="[0]")).wait()
    assert contexts["x"].run_id != first.run_id
    assert contexts["x"].headers == {"tenant": "a"}


async def test_headers_and_meta_cannot_be_written(
    app: Stemflow, registry: TaskRegistry, contexts: dict[str, TaskContext]
) -> None:
    await app.run(see(registry).s("x"), headers={"tenant": "a"})
    for mapping in (contexts["x"].headers, contexts["x"].meta):
        with pytest.raises(TypeError):
            mapping["tenant"] = "b"  # type: ignore[index]


async def test_headers_do_not_distinguish_unique_tasks(app: Stemflow, registry: TaskRegistry) -> None:
    @registry.task("once", unique=True)
    async def once() -> None: ...

    first = await app.submit(once.with_options(countdown=60).s(), headers={"tenant": "a"})
    second = await app.submit(once.with_options(headers={"tenant": "b"}).s())
    assert (second.id, second.existing) == (first.id, True)


async def test_headers_that_are_not_text_and_meta_that_is_not_json_are_refused(
    app: Stemflow, registry: TaskRegistry, contexts: dict[str, TaskContext]
) -> None:
    task = see(registry)
    sentence = "submit: headers: expected text under a name, got 'n': 1"
    with pytest.raises(OptionError, match=sentence):
        await app.submit(task.s(), headers={"n": 1})
    with pytest.raises(OptionError, match="task see: headers: expected text under a name, got 'n': 1"):
        task.with_options(headers={"n": 1})
    with pytest.raises(Exception, match=r"submit: meta\.x: expected a JSON value, got set"):
        await app.submit(task.s(), meta={"x": {1}})
    with pytest.raises(Exception, match=r"task see: meta\.x: expected a JSON value, got set"):
        task.with_options(meta={"x": {1}})
    assert await app.store.runs(1) == []


# -- lineage


async def test_the_parent_is_the_step_before_or_the_task_that_started_the_run(
    app: Stemflow, registry: TaskRegistry, contexts: dict[str, TaskContext]
) -> None:
    # Given a chain whose second step starts a run, a task of which starts another
    runs: list[str] = []

    @registry.task("starts")
    async def starts(context: TaskContext, depth: int) -> None:
        child = starts.si(depth - 1) if depth else see(registry).s("first") | see(registry).si("second")
        runs.append(await context.spawn(child))

    handle = await app.submit(see(registry).s("before") | starts.si(1))
    await handle.wait()
    for run in list(runs):
        await (await app.handle(run)).wait()
    await (await app.handle(runs[-1])).wait()
    middle, last = runs

    # Then each knows who led to it, and all know the run that began it
    assert (contexts["before"].parent_id, contexts["before"].root_id) == (None, handle.id)
    assert (contexts["first"].parent_id, contexts["first"].root_id) == (middle, handle.id)
    assert (contexts["second"].parent_id, contexts["second"].root_id) == (f"{last}/[0]", handle.id)
    assert (await app.library.header(middle)).parent == (handle.id, "[1]")


@pytest.mark.parametrize(
    ("settings", "inherited"),
    [({}, TRACE), ({"propagated_headers": ("tenant",)}, {"tenant": "a"}), ({"propagated_headers": ()}, {})],
)
async def test_a_child_takes_over_the_propagated_headers_alone(
    open_app: OpenApp, registry: TaskRegistry, contexts: dict[str, TaskContext], settings: Any, inherited: Any
) -> None:
    # Given a task with a trace, a tenant and meta, that starts a run
    app = await open_app(**settings)

    @registry.task("starts")
    async def starts(context: TaskContext) -> str:
        return await context.enqueue(see(registry).s("child"), headers={"mine": "1"}, meta={"m": 1})

    child = await app.run(starts.s(), headers={**TRACE, "tenant": "a"}, meta={"of": "parent"})
    await (await app.handle(child)).wait()

    # Then the run has what is propagated by name, and what it was given
    assert contexts["child"].headers == {**inherited, "mine": "1"}
    assert contexts["child"].meta == {"m": 1}


async def test_a_child_joins_no_group_and_shares_no_key_link_or_limit(app: Stemflow, registry: TaskRegistry) -> None:
    # Given a limited, unique member of a group with a callback, that starts the same task as a run of its own
    called: list[Any] = []
    outside: list[bool] = []

    @registry.task("callback")
    async def callback(value: Any) -> None:
        called.append(value)

    @registry.task("plain", queue="default")
    async def plain(context: TaskContext) -> str:
        outside.append(context.in_fan_in)
        return "child"

    @registry.task("starts", unique=True, rate_limit="1/d", priority=7)
    async def starts(context: TaskContext) -> str:
        return await context.enqueue(plain.s())

    (child,) = await app.run(Canvas.group(starts.s().on_success(callback.s())))
    await (await app.handle(child)).wait()

    # Then the child has none of it
    (node,) = await (await app.handle(child)).records()
    assert (node.state, node.claim, node.limits, node.priority) == ("succeeded", None, (), 0)
    assert outside == [False]
    assert called == [child]


async def test_a_later_attempt_finds_the_run_that_an_earlier_one_has_started(
    app: Stemflow, registry: TaskRegistry, contexts: dict[str, TaskContext]
) -> None:
    @registry.task("flaky", max_retries=1)
    async def flaky(context: TaskContext) -> str:
        run = await context.enqueue(see(registry).s("child"), run_id=f"{context.id}-child")
        if context.attempt == 0:
            raise ValueError("after it was started")
        return run

    handle = await app.submit(flaky.s())
    assert (await handle.wait()).value == f"{handle.id}-child"
    assert len(await app.store.runs(10)) == 2
