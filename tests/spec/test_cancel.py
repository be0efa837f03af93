"""Cancelling: the whole tree ends, in whatever state its nodes are; hooks run once; nothing else starts any more."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from stemflow import Canvas, RunHandle, Signature, Stemflow, TaskContext, TaskRegistry, UnknownRun, load_workflow
from stemflow.model.signature import TaskSig, WaitSig
from stemflow.store.base import Request, Want
from tests.spec.conftest import OpenApp

Step = Signature[Any, Any]
LONG_S = 10
"""Longer than a run is watched before it is cancelled."""


class Log(list[tuple[str, str]]):
    """(what, node) in the order in which handlers did it."""

    def of(self, what: str) -> list[str]:
        return [node for done, node in self if done == what]


@pytest.fixture
def log(registry: TaskRegistry) -> Log:
    """Registers the tasks of this file; `started`, `ended`, `cancelled` and `hook` are what they write."""
    log = Log()

    async def work(context: TaskContext, seconds: float) -> str:
        log.append(("started", context.node))
        try:
            await asyncio.sleep(seconds)
        except asyncio.CancelledError:
            log.append(("cancelled", context.node))
            raise
        log.append(("ended", context.node))
        return context.node

    for name, options in {
        "work": {},
        "rated": {"rate_limit": "1/m"},
        "alone": {"concurrency": 1},
        "only": {"unique": True, "unique_by": "k"},
        "keep_last": {"unique": True, "unique_by": "l", "unique_mode": "keep_last"},
    }.items():
        registry.task(name, **options)(work)  # type: ignore[call-overload]

    @registry.task("flaky", max_retries=3, retry={"backoff": "fixed", "initial": f"{LONG_S}s", "jitter": 0})
    async def flaky(context: TaskContext) -> None:
        log.append(("started", context.node))
        raise ValueError("not yet")

    @registry.task("stubborn")
    async def stubborn(context: TaskContext, seconds: float) -> str:
        """Ends well all the same when it is cancelled, in its own time."""
        log.append(("started", context.node))
        try:
            await asyncio.sleep(LONG_S)
        except asyncio.CancelledError:
            await asyncio.sleep(seconds)
        log.append(("ended", context.node))
        return "well"

    @registry.task("replaced")
    async def replaced(context: TaskContext) -> None:
        log.append(("started", context.node))
        await context.replace(Canvas.chain(task("work", LONG_S), task("work", 1)))

    @registry.task("adds")
    async def adds(context: TaskContext) -> None:
        log.append(("started", context.node))
        await context.add_to_group(task("work", LONG_S))
        await context.add_to_group(task("late", 1))

    @registry.task("hook")
    async def hook(context: TaskContext, news: Any, seconds: float = 0) -> None:
        log.append(("hook", context.node))
        await asyncio.sleep(seconds)
        log.append(("hook ended", context.node))

    return log


def task(name: str, *args: Any) -> Step:
    """A call that ignores the result of the step before; `late` waits for a while first."""
    if name == "late":
        return TaskSig(task="work", args=args, immutable=True, countdown_ms=LONG_S * 1_000)
    return TaskSig(task=name, args=args, immutable=True)


async def states(handle: RunHandle) -> dict[str, str]:
    return {node.path: node.state for node in await handle.records()}


class Case(NamedTuple):
    """A step whose nodes stand as `before` says when the run is cancelled; `beside` is a run that came first."""

    step: Callable[[], Step]
    before: dict[str, str]
    beside: Callable[[], Step] | None = None


def work() -> Step:
    return task("work", 2 * LONG_S)


CASES = {
    "waiting": Case(lambda: Canvas.chain(work(), work()), {"[0]": "running", "[0][0]": "running"}),
    "delayed": Case(lambda: task("late", 1), {"[0]": "ready"}),
    "delayed for a retry": Case(lambda: task("flaky"), {"[0]": "ready"}),
    "limited by its rate": Case(lambda: task("rated", 1), {"[0]": "ready"}, lambda: task("rated", 1)),
    "waiting for a place under its concurrency key": Case(
        lambda: task("alone", 1), {"[0]": "held"}, lambda: task("alone", 3 * LONG_S)
    ),
    "a scope that waits for its place": Case(
        lambda: Canvas.chain(work()).with_concurrency("room"),
        {"[0]": "held"},
        lambda: Canvas.chain(task("work", 3 * LONG_S)).with_concurrency("room"),
    ),
    "holding a place under its concurrency key": Case(lambda: task("alone", 2 * LONG_S), {"[0]": "running"}),
    "waiting for the holder of its unique key": Case(
        lambda: task("only", 1), {"[0]": "held"}, lambda: task("only", 3 * LONG_S)
    ),
    "waiting for its turn under a unique key": Case(
        lambda: task("keep_last", 1), {"[0]": "held"}, lambda: task("keep_last", 3 * LONG_S)
    ),
    "holding its unique key": Case(lambda: task("only", 2 * LONG_S), {"[0]": "running"}),
    "running": Case(work, {"[0]": "running"}),
    "a timer": Case(
        lambda: Canvas.chain(WaitSig(for_ms=2 * LONG_S * 1_000), work()), {"[0]": "running", "[0][0]": "held"}
    ),
    "a group": Case(
        lambda: Canvas.group(work(), work(), task("late", 1)),
        {"[0]": "running", "[0][0]": "running", "[0][1]": "running", "[0][2]": "ready"},
    ),
    "a chord whose header is not done": Case(
        lambda: Canvas.chord([task("work", 1), work()], task("work", 1)),
        {"[0]": "running", "[0][0]": "succeeded", "[0][1]": "running"},
    ),
    "a chord whose body runs": Case(
        lambda: Canvas.chord([task("work", 1)], work()),
        {"[0]": "running", "[0][0]": "succeeded", "[0].then": "running"},
    ),
    "a map with a window": Case(
        lambda: Canvas.map(Canvas.task("work"), [1, 2 * LONG_S, 2 * LONG_S, 1, 1], concurrency=2),
        {"[0]": "running", "[0][0]": "succeeded", "[0][1]": "running", "[0][2]": "running"},
    ),
    "replaced": Case(lambda: task("replaced"), {"[0]": "running", "[0][0]": "running"}),
    "members that a task added": Case(
        lambda: Canvas.group(task("adds")),
        {"[0]": "running", "[0][0]": "succeeded", "[0][1]": "running", "[0][2]": "ready"},
    ),
}


@pytest.mark.parametrize("force", [False, True], ids=["plain", "force"])
@pytest.mark.parametrize("case", CASES.values(), ids=list(CASES))
async def test_the_whole_tree_ends_and_nothing_more_starts(
    app: Stemflow, open_app: OpenApp, registry: TaskRegistry, log: Log, case: Case, force: bool
) -> None:
    # Given a run that is under way, and is as the case says
    if case.beside is not None:
        other = await app.submit(case.beside())
        await asyncio.sleep(1)
    handle = await app.submit(Canvas.chain(case.step(), task("work", 1)).on_cancel(Canvas.task("hook")))
    await asyncio.sleep(5)
    assert await states(handle) == {"": "running", **case.before}
    running = [node.path for node in await handle.records() if node.state == "running" and node.tally is None]
    begun = log.of("started")

    # When another process cancels it
    elsewhere = await (await open_app(TaskRegistry(), worker=False)).handle(handle.id)
    assert await elsewhere.cancel(force=force) == "running"
    if force:
        # Then it has ended
        assert (await states(handle))[""] == "cancelled"
    else:
        assert (await handle.wait(timeout=5)).status == "cancelled"
    ends = await states(handle)
    hooks = {path: ends.pop(path) for path in list(ends) if "!" in path}
    ended_well = {path for path, state in case.before.items() if state == "succeeded"}
    assert ends == {path: "succeeded" if path in ended_well else "cancelled" for path in ["", *case.before]}

    # And its handlers were notified, its hook ran once unless the cancel was forced, and nothing of it starts any more
    await asyncio.sleep(2 * LONG_S)
    assert sorted(log.of("cancelled")) == sorted(running)
    assert log.of("started") == begun
    assert list(hooks.values()) == [] if force else ["succeeded"]
    assert len(log.of("hook")) == (0 if force else 1)

    # And a second cancel says so, and its keys are free for others
    assert await handle.cancel() == "cancelled"
    if case.beside is not None:
        assert (await other.wait(timeout=5 * LONG_S)).status == "succeeded"
    again = await app.submit(Canvas.chain(task("only", 1), task("keep_last", 1), task("alone", 1)))
    assert (await again.wait(timeout=60)).status == "succeeded"


async def test_a_task_that_is_ready_and_has_no_worker_is_cancelled_at_once(
    open_app: OpenApp, registry: TaskRegistry, log: Log
) -> None:
    producer = await open_app(worker=False)
    handle = await producer.submit(task("work", 1))
    assert await states(handle) == {"": "ready"}
    assert await handle.cancel() == "ready"
    assert await states(handle) == {"": "cancelled"}
    await open_app()
    await asyncio.sleep(LONG_S)
    assert log == []


# -- being told again, and what cannot be cancelled


async def test_a_second_cancel_says_so_and_changes_nothing(app: Stemflow, log: Log) -> None:
    # Given a run whose handler takes its time to end, and one with a hook that takes its time
    slow = await app.submit(Canvas.chain(task("stubborn", 0.5), task("work", 1)).on_cancel(Canvas.task("hook")))
    hooked = await app.submit(task("work", LONG_S).on_cancel(Canvas.task("hook", seconds=5)))
    await asyncio.sleep(1)
    assert [await handle.cancel() for handle in (slow, hooked)] == ["running", "running"]
    # When they are cancelled once more
    await asyncio.sleep(0.2)
    before = [await states(slow), await states(hooked)]
    assert [await handle.cancel() for handle in (slow, hooked)] == ["stopping", "stopping"]
    # Then they were stopping already, and nothing is any different
    assert [await states(slow), await states(hooked)] == before
    assert [(await handle.wait()).status for handle in (slow, hooked)] == ["cancelled", "cancelled"]
    assert sorted(log.of("hook ended")) == ["!cancel", "!cancel"]


async def test_an_id_that_nobody_knows_is_an_error(app: Stemflow) -> None:
    for force in (False, True):
        with pytest.raises(UnknownRun, match=r"run nobody: expected it in .*, found none"):
            await app.cancel("nobody", force=force)


async def test_a_run_that_has_ended_stays_as_it_is(app: Stemflow, log: Log) -> None:
    handle = await app.submit(task("work", 1).on_cancel(Canvas.task("hook")))
    assert (await handle.wait()).status == "succeeded"
    before = await handle.records()
    for force in (False, True):
        assert await handle.cancel(force=force) == "succeeded"
    assert await handle.records() == before
    assert log.of("hook") == []


# -- what ends well while it is stopping


async def test_a_leaf_that_ends_well_while_it_is_stopping_keeps_its_result(app: Stemflow, log: Log) -> None:
    handle = await app.submit(Canvas.chain(task("stubborn", 0.5), task("work", 1)))
    await asyncio.sleep(1)
    await handle.cancel()
    assert (await handle.wait()).status == "cancelled"
    assert await states(handle) == {"": "cancelled", "[0]": "succeeded"}
    assert await handle.value_of("[0]") == "well"
    assert log.of("started") == ["[0]"]


UNDONE = """
stemflow: "1"
name: undone
steps:
  first: {task: work, args: {seconds: 1}, compensate: {task: hook, args: {news: first, seconds: 5}}}
  second: {needs: [first], task: stubborn, args: {seconds: 0.5}, compensate: {task: hook, args: {news: second}}}
  third: {needs: [second], task: work, args: {seconds: 1}, compensate: {task: hook, args: {news: third}}}
"""
COMPENSATE = "on_cancel: {compensate: true}\n"


async def undoing(app: Stemflow, text: str, tmp_path: Path) -> RunHandle:
    """A run that is cancelled while its second step runs, which ends well all the same."""
    (tmp_path / "undone.yaml").write_text(text)
    handle = await app.submit(load_workflow(tmp_path / "undone.yaml"))
    await asyncio.sleep(3)
    assert await handle.cancel() == "running"
    return handle


async def test_what_has_ended_well_is_undone_when_on_cancel_says_so(app: Stemflow, log: Log, tmp_path: Path) -> None:
    handle = await undoing(app, UNDONE + COMPENSATE, tmp_path)
    assert (await handle.wait()).status == "cancelled"
    assert log.of("hook ended") == ["!undo.second", "!undo.first"]
    assert (await states(handle))["second"] == "succeeded"


async def test_nothing_is_undone_when_on_cancel_does_not_say_so(app: Stemflow, log: Log, tmp_path: Path) -> None:
    handle = await undoing(app, UNDONE, tmp_path)
    assert (await handle.wait()).status == "cancelled"
    assert log.of("hook") == []


# -- by force


async def test_a_compensation_that_has_begun_ends_only_by_force(app: Stemflow, log: Log, tmp_path: Path) -> None:
    # Given a run that is cancelled and undoes its first step
    handle = await undoing(app, UNDONE + COMPENSATE, tmp_path)
    await asyncio.sleep(2)
    assert (await states(handle))["!undo.first"] == "running"
    # When it is cancelled again, then the compensation goes on
    assert await handle.cancel() == "stopping"
    assert (await states(handle))["!undo.first"] == "running"
    # When it is cancelled by force, then all is over at once, and the handler is cancelled
    assert await handle.cancel(force=True) == "stopping"
    ends = await states(handle)
    assert (ends[""], ends["!undo"], ends["!undo.first"]) == ("cancelled", "cancelled", "cancelled")
    assert (ends["!undo.second"], ends["first"], ends["second"]) == ("succeeded", "succeeded", "succeeded")
    await asyncio.sleep(LONG_S)
    assert log.of("hook ended") == ["!undo.second"]


async def test_an_outcome_stays_when_the_hooks_that_it_has_started_are_cut_off(app: Stemflow, log: Log) -> None:
    # Given a run that has succeeded but for its hook
    handle = await app.submit(task("work", 1).on_success(Canvas.task("hook", seconds=LONG_S)))
    await asyncio.sleep(5)
    assert await handle.cancel() == "running"
    assert (await states(handle))["!success"] == "running"
    # When it is cancelled by force
    assert await handle.cancel(force=True) == "running"
    # Then it has succeeded, and its hook is cancelled
    result = await handle.wait(timeout=0)
    assert (result.status, result.value) == ("succeeded", "[0]")
    assert (await states(handle))["!success"] == "cancelled"


async def test_a_handler_that_was_cut_off_reports_in_vain(app: Stemflow, log: Log) -> None:
    handle = await app.submit(Canvas.chain(task("stubborn", 0.5), task("work", 1)))
    await asyncio.sleep(1)
    await handle.cancel(force=True)
    before = await handle.records()
    await asyncio.sleep(LONG_S)
    assert log.of("ended") == ["[0]"]
    assert await handle.records() == before
    assert app.service is not None and app.service.exchange_loop.stale_reports == 1


# -- where no worker lives


async def die_under(app: Stemflow, handle: RunHandle) -> None:
    """A worker takes what is ready of the run, and is never heard of again."""
    answer = await app.store.exchange(Request(f"dying {handle.id}", 1), [], Want(owner="dying", limit=9))
    assert answer.leases


async def test_a_run_whose_worker_has_died_is_ended_by_the_cancel_that_finds_its_leases_lost(
    open_app: OpenApp, log: Log
) -> None:
    # Given two runs whose worker has died, and nobody else who works
    app = await open_app(worker=False)
    handle = await app.submit(Canvas.group(task("work", 1), task("work", 1)))
    other = await app.submit(task("work", 1))
    await die_under(app, handle)
    # When one is cancelled before its leases are lost, then it is stopping
    assert await handle.cancel() == "running"
    assert (await states(handle))[""] == "stopping"
    # When it is cancelled again after that, then it ends, and the other is left alone
    await asyncio.sleep(31)
    assert await handle.cancel() == "stopping"
    assert await states(handle) == {"": "cancelled", "[0]": "cancelled", "[1]": "cancelled"}
    assert await states(other) == {"": "running"}


async def test_force_ends_a_run_whose_worker_has_died_at_once(open_app: OpenApp, log: Log) -> None:
    app = await open_app(worker=False)
    handle = await app.submit(Canvas.group(task("work", 1), task("work", 1)))
    await die_under(app, handle)
    assert await handle.cancel() == "running"
    assert await handle.cancel(force=True) == "stopping"
    assert await states(handle) == {"": "cancelled", "[0]": "cancelled", "[1]": "cancelled"}
