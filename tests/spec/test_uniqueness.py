"""Unique keys: which calls are the same, and what becomes of one that comes while another holds its key."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from stemflow import (
    BadArguments,
    Canvas,
    DuplicateRun,
    Ignore,
    OptionError,
    Reject,
    RunFailed,
    RunHandle,
    Stemflow,
    TaskContext,
    TaskHandler,
    TaskOptions,
    TaskRegistry,
    load_workflow,
)
from stemflow.model.facts import Ended, Ok
from stemflow.store.base import Request, Want

OpenApp = Callable[..., Awaitable[Stemflow]]
Log = list[Any]


@pytest.fixture
def log() -> Log:
    """What handlers were called with, in order."""
    return []


@pytest.fixture
def index(registry: TaskRegistry, log: Log) -> Any:
    """Works for 10 s and gives back the version that it was called with; its key is the page alone."""

    @registry.task("index", unique=True, unique_by="${{ args.page }}")
    async def index(page: str, version: int) -> int:
        log.append(version)
        await asyncio.sleep(10)
        return version

    return index


@pytest.fixture(autouse=True)
def noted(registry: TaskRegistry, log: Log) -> Any:
    @registry.task("note")
    async def note(what: Any, more: Any = None) -> Any:
        log.append(what)
        return what

    return note


def mode(index: Any, name: str, **options: Any) -> Any:
    return index.with_options(unique_mode=name, **options)


async def ended(handle: RunHandle) -> tuple[str, Any]:
    result = await handle.wait(timeout=3_600)
    assert not result.timed_out, [(node.path, node.state) for node in await handle.records()]
    return result.status, result.value


# -- the key


async def test_a_key_over_the_arguments_reads_them_by_name_however_they_were_given(
    app: Stemflow, index: Any, log: Log
) -> None:
    # Given the same page in calls by position, by name, and within a canvas
    one = await app.submit(index.s("home", 1))
    two = await app.submit(index.s(version=2, page="home"))
    value = await app.run(Canvas.chain(index.si("home", version=3), index.si("home", 4)))

    # Then those that came while one of them ran share its result
    assert two.id == one.id and two.existing
    assert value == 4
    assert log == [1, 4]


async def test_without_a_key_of_its_own_a_call_is_known_by_task_queue_and_arguments(
    app: Stemflow, registry: TaskRegistry
) -> None:
    # Given a task that is unique by its whole call
    @registry.task("fetch", unique=True)
    async def fetch(url: str, depth: int = 0) -> None:
        await asyncio.sleep(10)

    first = await app.submit(fetch.s("a", 1))

    # Then the same call by name is the same, whatever its headers; other arguments or another queue are not
    assert (await app.submit(fetch.s(url="a", depth=1), headers={"trace": "t"})).id == first.id
    assert (await app.submit(fetch.s("a", 2))).id != first.id
    assert (await app.submit(fetch.with_options(queue="slow").s("a", 1))).id != first.id


async def test_a_key_may_be_a_function_of_the_arguments_by_name(app: Stemflow, registry: TaskRegistry) -> None:
    # Given a key that ignores case
    @registry.task("mail", unique=True, unique_by=lambda args: args["to"].lower())
    async def mail(to: str) -> str:
        await asyncio.sleep(10)
        return to

    first = await app.submit(mail.s("Ann"))

    # Then it is judged at submission, for a task alone and in a canvas
    assert (await app.submit(mail.s("ANN"))).id == first.id
    assert await app.run(Canvas.group(mail.s("aNN"), mail.s("Bob"))) == ["Ann", "Bob"]


async def test_a_function_that_needs_what_another_step_gives_is_refused_at_submission(
    app: Stemflow, registry: TaskRegistry, noted: Any
) -> None:
    @registry.task("mail", unique=True, unique_by=lambda args: args["to"].lower())
    async def mail(to: str) -> None: ...

    with pytest.raises(OptionError, match="task mail: unique_by: the function raised KeyError"):
        await app.submit(noted.s("Ann") | mail.s())
    assert await app.store.runs(10) == []


async def test_the_result_of_the_step_before_is_part_of_the_key(app: Stemflow, index: Any, noted: Any) -> None:
    # Given two chains whose first steps give the same page
    chains = Canvas.group(noted.s("home") | index.s(1), noted.s("home") | index.s(2))
    # Then the page is indexed once
    assert await app.run(chains) in ([1, 1], [2, 2])


async def test_what_data_holds_is_never_evaluated_in_a_key(app: Stemflow, registry: TaskRegistry) -> None:
    @registry.task("echo", unique=True, unique_by=lambda args: args["text"])
    async def echo(text: str) -> str:
        return text

    assert await app.run(Canvas.group(echo.s("${{ 1 / 0 }}"))) == ["${{ 1 / 0 }}"]


async def test_a_key_that_cannot_be_evaluated_fails_its_step(app: Stemflow, registry: TaskRegistry) -> None:
    @registry.task("broken", unique=True, unique_by="${{ args.page.missing }}")
    async def broken(page: str) -> None: ...

    with pytest.raises(RunFailed, match="unique"):
        await app.run(Canvas.group(broken.s("home")))


# -- return_existing


async def test_two_chains_that_share_a_first_step_run_it_once_and_both_go_on(
    app: Stemflow, index: Any, noted: Any, log: Log
) -> None:
    one = await app.submit(index.s("home", 1) | noted.s("one"))
    two = await app.submit(index.s("home", 2) | noted.s("two"))
    assert (await ended(one), await ended(two)) == (("succeeded", 1), ("succeeded", 1))
    assert log == [1, 1, 1]


async def test_waiters_share_a_failure_and_leave_one_dead_letter(app: Stemflow, registry: TaskRegistry) -> None:
    @registry.task("refuse", unique=True, unique_by="k")
    async def refuse(n: int) -> None:
        await asyncio.sleep(10)
        raise Reject("not today")

    handles = [await app.submit(Canvas.chain(refuse.s(n))) for n in range(3)]
    assert [(await handle.wait()).error.message for handle in handles] == ["not today"] * 3  # type: ignore[union-attr]
    assert len(await app.store.dead_letters()) == 1


async def test_when_the_holder_is_cancelled_the_first_who_waits_runs_and_the_others_wait_for_it(
    app: Stemflow, index: Any, log: Log
) -> None:
    # Given one that runs and two that wait
    first, second, third = [await app.submit(Canvas.chain(index.s("home", n))) for n in (1, 2, 3)]
    await asyncio.sleep(5)

    # When the first is cancelled
    await first.cancel()

    # Then the second runs, and the third shares its result
    assert [(await ended(handle)) for handle in (first, second, third)] == [
        ("cancelled", None), ("succeeded", 2), ("succeeded", 2),
    ]  # fmt: skip
    assert log == [1, 2]


async def test_a_task_alone_waits_on_a_step_of_another_run_as_on_its_own(app: Stemflow, index: Any) -> None:
    # Given a key that a step of a canvas holds
    canvas = await app.submit(Canvas.group(index.s("home", 1), index.s("shop", 2)))

    # When the same is submitted alone, then its result is that of the step, not that of the canvas
    alone = await app.submit(index.s("home", 3))
    assert alone.holder == f"{canvas.id}/[0]"
    assert await ended(alone) == ("succeeded", 1)


async def test_the_key_of_an_ancestor_is_refused(app: Stemflow, registry: TaskRegistry) -> None:
    # Given a task that puts another one with its own key in its place
    @registry.task("again", unique=True, unique_by="k")
    async def again(ctx: TaskContext) -> None:
        await ctx.replace(Canvas.chain(again.si()))

    result = await (await app.submit(Canvas.chain(again.s()))).wait(60)
    assert result.error is not None and result.error.type == "Duplicate"


# -- reject and skip


async def test_reject_raises_with_the_run_that_holds_the_key(app: Stemflow, index: Any) -> None:
    first = await app.submit(index.s("home", 1))
    with pytest.raises(DuplicateRun) as refused:
        await app.submit(mode(index, "reject").s("home", 2))
    assert refused.value.run_id == first.id
    assert len(await app.store.runs(10)) == 1


async def test_reject_fails_a_step_with_duplicate(app: Stemflow, index: Any) -> None:
    await app.submit(index.s("home", 1))
    with pytest.raises(RunFailed) as failed:
        await app.run(Canvas.chain(mode(index, "reject").s("home", 2)))
    assert failed.value.error is not None and failed.value.error.type == "Duplicate"


async def test_skip_skips_a_step_as_its_own_condition_would(app: Stemflow, index: Any, noted: Any, log: Log) -> None:
    await app.submit(index.s("home", 1))
    skipping = mode(index, "skip").s("home", 2)
    assert await app.run(Canvas.group(skipping, noted.s("beside"))) == [None, "beside"]
    assert await ended(await app.submit(skipping | noted.s())) == ("skipped", None)
    assert 2 not in log


async def test_skip_at_the_door_gives_a_run_of_its_own_that_is_skipped_and_names_the_holder(
    app: Stemflow, index: Any
) -> None:
    first = await app.submit(index.s("home", 1))
    second = await app.submit(mode(index, "skip").s("home", 2))
    assert (second.existing, second.holder) == (False, first.id)
    assert await ended(second) == ("skipped", None)


# -- replace


async def test_replace_runs_instead_of_what_has_not_started_which_gets_its_result(
    open_app: OpenApp, index: Any, log: Log
) -> None:
    # Given calls while no worker is there: one in a chain, one alone, then the newest
    app = await open_app(worker=False)
    first = await app.submit(Canvas.chain(mode(index, "replace").s("home", 1)))
    second = await app.submit(mode(index, "replace").s("home", 2))
    third = await app.submit(mode(index, "replace").s("home", 3))

    # When a worker comes
    await open_app()

    # Then only the newest runs, and all have its result
    assert [await ended(handle) for handle in (first, second, third)] == [("succeeded", 3)] * 3
    assert log == [3]


async def test_replace_waits_for_what_runs_and_then_runs(app: Stemflow, index: Any, log: Log) -> None:
    first = await app.submit(mode(index, "replace").s("home", 1))
    await asyncio.sleep(1)
    second = await app.submit(mode(index, "replace").s("home", 2))
    assert (await ended(first), await ended(second)) == (("succeeded", 1), ("succeeded", 2))
    assert log == [1, 2]


async def test_what_was_replaced_runs_after_all_when_its_replacement_is_cancelled(
    open_app: OpenApp, index: Any, log: Log
) -> None:
    app = await open_app(worker=False)
    first = await app.submit(mode(index, "replace").s("home", 1))
    second = await app.submit(mode(index, "replace").s("home", 2))
    await second.cancel()
    await open_app()
    assert (await ended(first), await ended(second)) == (("succeeded", 1), ("cancelled", None))
    assert log == [1]


# -- keep_last


async def test_keep_last_has_one_that_runs_and_one_that_waits_the_newest(app: Stemflow, index: Any, log: Log) -> None:
    # Given one that runs, and three that come after it
    handles = []
    for version in (1, 2, 3, 4):
        handles.append(await app.submit(mode(index, "keep_last").s("home", version)))
        await asyncio.sleep(1)

    # Then the newest runs next, and those that it displaced have its result
    assert [await ended(handle) for handle in handles] == [("succeeded", n) for n in (1, 4, 4, 4)]
    assert log == [1, 4]


async def test_the_newest_runs_however_the_one_before_it_ended(app: Stemflow, registry: TaskRegistry) -> None:
    @registry.task("maybe", unique=True, unique_by="k", unique_mode="keep_last")
    async def maybe(n: int) -> int:
        await asyncio.sleep(5)
        if n == 1:
            raise Reject("the first fails")
        return n

    first, second = [await app.submit(maybe.s(n)) for n in (1, 2)]
    assert (await ended(first), await ended(second)) == (("failed", None), ("succeeded", 2))


async def test_one_that_waits_and_is_cancelled_gives_its_turn_to_the_one_that_it_displaced(
    app: Stemflow, index: Any, log: Log
) -> None:
    first, second, third = [await app.submit(mode(index, "keep_last").s("home", n)) for n in (1, 2, 3)]
    await asyncio.sleep(1)
    await third.cancel()
    assert [(await ended(one)) for one in (first, second)] == [("succeeded", 1), ("succeeded", 2)]


async def test_one_that_waits_for_its_turn_expires(app: Stemflow, index: Any) -> None:
    first, second = [await app.submit(mode(index, "keep_last", expires="5s").s("home", n)) for n in (1, 2)]
    result = await second.wait(60)
    assert result.error is not None and result.error.type == "Expired"
    assert await ended(first) == ("succeeded", 1)


# -- debounce


async def test_debounce_runs_once_with_the_newest_arguments_when_nothing_has_come_for_a_while(
    app: Stemflow, index: Any, log: Log
) -> None:
    # Given three calls, 3 s apart, with a quiet period of 5 s
    quiet = mode(index, "debounce", unique_for="5s")
    handles = []
    for version in (1, 2, 3):
        handles.append(await app.submit(quiet.s("home", version)))
        await asyncio.sleep(3)
    assert log == []

    # Then they are one run, which starts 5 s after the last of them
    assert len({handle.id for handle in handles}) == 1
    await asyncio.sleep(1.9)
    assert log == []
    await asyncio.sleep(0.2)
    assert log == [3]
    assert await ended(handles[0]) == ("succeeded", 3)


async def test_debounce_puts_a_countdown_off(app: Stemflow, index: Any, log: Log) -> None:
    late = mode(index, "debounce").with_options(countdown="5s")
    await app.submit(late.s("home", 1))
    await asyncio.sleep(4)
    await app.submit(late.s("home", 2))
    await asyncio.sleep(4)
    assert log == []
    await asyncio.sleep(2)
    assert log == [2]


async def test_debounced_steps_of_canvases_give_their_arguments_and_share_the_result(
    app: Stemflow, index: Any, noted: Any, log: Log
) -> None:
    # Given a chain whose step waits out its quiet period
    quiet = mode(index, "debounce", unique_for="5s")
    first = await app.submit(Canvas.chain(quiet.s("home", 1)))
    await asyncio.sleep(1)

    # When the same page comes again, from another canvas after another step, and then alone
    second = await app.submit(noted.s("home") | quiet.s(version=2))
    await asyncio.sleep(1)
    assert log == ["home"]
    third = await app.submit(quiet.s("home", 3))

    # Then it runs once, with the newest arguments
    assert [await ended(one) for one in (first, second, third)] == [("succeeded", 3)] * 3
    assert log == ["home", 3]


async def test_debounce_never_changes_what_has_started(app: Stemflow, index: Any, log: Log) -> None:
    quiet = mode(index, "debounce", unique_for="5s")
    first = await app.submit(quiet.s("home", 1))
    await asyncio.sleep(6)
    second, third = [await app.submit(quiet.s("home", version)) for version in (2, 3)]
    assert second.id == third.id != first.id
    assert (await ended(first), await ended(third)) == (("succeeded", 1), ("succeeded", 3))
    assert log == [1, 3]


# -- windows


async def test_within_its_window_a_call_gets_the_result_of_the_one_that_has_ended(
    app: Stemflow, index: Any, log: Log
) -> None:
    # Given a call with a window of a minute that has succeeded
    once = mode(index, "return_existing", unique_for="1m")
    first = await app.submit(once.s("home", 1))
    assert await ended(first) == ("succeeded", 1)

    # Then until the minute is over nothing runs again, alone or in a canvas
    assert (await app.submit(once.s("home", 2))).id == first.id
    assert await app.run(Canvas.chain(once.s("home", 3))) == 1
    assert await ended(await app.submit(mode(index, "skip", unique_for="1m").s("home", 4))) == ("skipped", None)
    await asyncio.sleep(60)
    assert await app.run(once.s("home", 5)) == 5
    assert log == [1, 5]


@pytest.mark.parametrize("end", ["failed", "cancelled"])
async def test_the_window_is_dropped_when_its_holder_failed_or_was_cancelled(
    app: Stemflow, registry: TaskRegistry, log: Log, end: str
) -> None:
    @registry.task("try", unique=True, unique_by="k", unique_for="1d")
    async def attempt(n: int) -> int:
        log.append(n)
        await asyncio.sleep(5)
        if n == 1:
            raise Reject("no")
        return n

    first = await app.submit(attempt.s(1))
    if end == "cancelled":
        await first.cancel()
    assert (await ended(first))[0] == end
    assert await app.run(attempt.s(2)) == 2


async def test_keep_last_with_a_window_starts_the_newest_when_the_window_is_over(
    app: Stemflow, index: Any, log: Log
) -> None:
    throttled = mode(index, "keep_last", unique_for="1m")
    first = await app.submit(throttled.s("home", 1))
    await ended(first)
    later = [await app.submit(throttled.s("home", version)) for version in (2, 3)]
    await asyncio.sleep(48)
    assert log == [1]
    assert [await ended(one) for one in later] == [("succeeded", 3)] * 2


# -- a window that ends while nobody works


async def _waiting_beyond_the_window(open_app: OpenApp, index: Any, *versions: int) -> tuple[Stemflow, list[RunHandle]]:
    """Calls that wait for the end of a window of 20 s, which passes while no worker is there."""
    worker = await open_app()
    kept = mode(index, "keep_last", unique_for="20s")
    assert await ended(await worker.submit(kept.s("home", 1))) == ("succeeded", 1)
    await worker.hand_back()
    producer = await open_app(worker=False)
    handles = [await producer.submit(kept.s("home", version)) for version in versions]
    await asyncio.sleep(30)
    return producer, handles


async def test_one_that_was_displaced_takes_its_turn_when_the_other_is_cancelled_after_the_window(
    open_app: OpenApp, index: Any, log: Log
) -> None:
    _, (second, third) = await _waiting_beyond_the_window(open_app, index, 2, 3)
    await third.cancel()
    await open_app()
    assert await ended(second) == ("succeeded", 2)
    assert log == [1, 2]


async def test_a_waiter_with_a_pending_notification_is_replaced_by_a_newer_call_and_does_not_run_as_well(
    open_app: OpenApp, index: Any, log: Log
) -> None:
    producer, (second,) = await _waiting_beyond_the_window(open_app, index, 2)
    third = await producer.submit(mode(index, "replace").s("home", 3))
    await open_app()
    assert [await ended(one) for one in (second, third)] == [("succeeded", 3), ("succeeded", 3)]
    assert log == [1, 3]


# -- the key becomes free


ENDS: dict[str, tuple[Any, str]] = {
    "success": (None, "succeeded"),
    "failure": (Reject("no"), "failed"),
    "failure after retries": (ValueError("no"), "failed"),
    "skip": (Ignore("not now"), "skipped"),
}


@pytest.mark.parametrize("end", ENDS)
async def test_the_key_is_free_after_each_end_of_its_handler(app: Stemflow, registry: TaskRegistry, end: str) -> None:
    error, status = ENDS[end]

    @registry.task("once", unique=True, unique_by="k", unique_mode="reject", max_retries=1)
    async def once() -> None:
        await asyncio.sleep(1)
        if error is not None:
            raise error

    for shape in (once.s(), Canvas.chain(once.s()), once.s()):
        assert (await ended(await app.submit(shape)))[0] == status
    assert await _claims(app, "unique:once:k") is None


async def _claims(app: Stemflow, key: str) -> Any:
    return (await app.store.read([("", key)]))[0]


async def test_the_key_is_free_after_a_cancel_and_after_expiry(open_app: OpenApp, index: Any) -> None:
    app = await open_app(worker=False)
    only = mode(index, "reject", expires="5s")
    await (await app.submit(only.s("home", 1))).cancel()
    second = await app.submit(only.s("home", 2))
    await asyncio.sleep(6)
    await open_app()
    assert (await ended(second))[0] == "failed"
    assert await ended(await app.submit(only.s("home", 3))) == ("succeeded", 3)


async def test_a_task_that_kills_its_workers_gives_its_key_back_as_poison(open_app: OpenApp, index: Any) -> None:
    # Given workers that die with the task in their hands
    app = await open_app(worker=False)
    first = await app.submit(mode(index, "reject", max_deliveries=2, visibility_timeout="1s").s("home", 1))
    await _die_with_it(app, "one", 1)
    await asyncio.sleep(2)
    await open_app(queues=("none",))  # only looks for what the dead had
    await asyncio.sleep(3)
    await _die_with_it(app, "two", 1)
    await asyncio.sleep(5)

    # Then it is a dead letter, and its key is free
    result = await first.wait(60)
    assert result.error is not None and result.error.type == "Poison"
    assert await _claims(app, "unique:index:home") is None


async def _die_with_it(app: Stemflow, name: str, count: int) -> list[Any]:
    """A worker that takes what is ready and is never heard of again."""
    answer = await app.store.exchange(Request(name, 1), [], Want(owner=name, limit=count))
    assert len(answer.leases) == count
    return list(answer.leases)


async def test_a_zombie_never_gives_the_key_of_the_new_holder_back(open_app: OpenApp, index: Any) -> None:
    # Given a worker that holds the task and sleeps past its lease, while the run is cancelled and another one begins
    app = await open_app(worker=False)
    one = mode(index, "reject", visibility_timeout="1s")
    first = await app.submit(one.s("home", 1))
    (lease,) = await _die_with_it(app, "zombie", 1)
    await first.cancel()
    await asyncio.sleep(2)
    worker = await open_app()
    await ended(first)
    second = await worker.submit(one.s("home", 2))
    await asyncio.sleep(1)

    # When the zombie reports
    late = Ended(lease.node.key, lease.node.delivery, Ok(b"1"))
    decision = await app.parts.committer.commit([late])

    # Then its report is refused, and the key is still held by the new one
    assert decision.refused == (late,)
    assert (await _claims(app, "unique:index:home")).holders == ((second.id, ""),)
    with pytest.raises(DuplicateRun):
        await app.submit(one.s("home", 3))


async def test_nothing_is_held_when_the_submission_is_refused(app: Stemflow, index: Any) -> None:
    with pytest.raises(BadArguments, match="version"):
        await app.submit(index.s("home", "not a number"))
    assert await _claims(app, "unique:index:home") is None
    assert await app.run(index.s("home", 1)) == 1


async def test_of_64_submissions_at_once_one_wins_and_all_learn_its_id(open_app: OpenApp, index: Any, log: Log) -> None:
    # Given four processes
    apps = [await open_app(worker=number == 0) for number in range(4)]

    # When they submit one key 64 times at once
    handles = await asyncio.gather(*[apps[n % 4].submit(index.s("home", n)) for n in range(64)])

    # Then one run is there, which all of them name, and its duplicates are counted
    assert len({handle.id for handle in handles}) == 1
    assert sum(handle.existing for handle in handles) == 63
    assert await handles[0].duplicates() == 63
    await ended(handles[0])
    assert len(log) == 1
    assert await handles[0].duplicates() == 63
    assert len(await apps[0].store.runs(100)) == 1


# -- runs of a workflow

FILE = """\
stemflow: "1"
name: publish
inputs: {version: {type: integer}}
unique: {key: site, on_conflict: MODE}
steps:
  index: {task: slow, args: {version: "${{ inputs.version }}"}}
outputs: {version: "${{ steps.index.output }}"}
"""


@pytest.fixture
def publish(registry: TaskRegistry, log: Log, tmp_path: Path) -> Any:
    """The workflow in a mode of `unique`."""

    @registry.task("slow")
    async def slow(version: int) -> int:
        log.append(version)
        await asyncio.sleep(10)
        return version

    def load(conflict: str) -> Any:
        path = tmp_path / "publish.yaml"
        path.write_text(FILE.replace("MODE", conflict), "utf-8")
        return load_workflow(path)

    return load


async def _submitted(app: Stemflow, workflow: Any, *versions: int, pause_s: float = 0) -> list[RunHandle]:
    handles = []
    for version in versions:
        handles.append(await app.submit(workflow, inputs={"version": version}))
        await asyncio.sleep(pause_s)
    return handles


RUNS: dict[str, list[tuple[str, int | None]]] = {
    "return_existing": [("succeeded", 1), ("succeeded", 1), ("succeeded", 1)],
    "skip": [("succeeded", 1), ("skipped", None), ("skipped", None)],
    "replace": [("succeeded", 1), ("succeeded", 3), ("succeeded", 3)],
    "keep_last": [("succeeded", 1), ("succeeded", 3), ("succeeded", 3)],
    "debounce, for: 5s": [("succeeded", 3), ("succeeded", 3), ("succeeded", 3)],
}


@pytest.mark.parametrize("conflict", RUNS)
async def test_runs_under_one_key_end_as_their_mode_says(app: Stemflow, publish: Any, log: Log, conflict: str) -> None:
    handles = await _submitted(app, publish(conflict), 1, 2, 3, pause_s=1)
    ends = [await ended(handle) for handle in handles]
    assert [(status, value and value["version"]) for status, value in ends] == RUNS[conflict]
    assert log == sorted({version for _, version in RUNS[conflict] if version})


async def test_a_run_that_has_not_started_is_replaced_and_gets_the_result_of_the_newest(
    open_app: OpenApp, publish: Any, log: Log
) -> None:
    app = await open_app(worker=False)
    handles = await _submitted(app, publish("replace"), 1, 2, 3)
    await open_app()
    assert [await ended(handle) for handle in handles] == [("succeeded", {"version": 3})] * 3
    assert log == [3]


async def test_a_rerun_of_a_debounced_run_has_the_newest_inputs(app: Stemflow, publish: Any, log: Log) -> None:
    first, _ = await _submitted(app, publish("debounce, for: 5s"), 1, 2)
    assert await ended(first) == ("succeeded", {"version": 2})
    assert await ended(await app.rerun(first.id, from_step="index")) == ("succeeded", {"version": 2})
    assert log == [2, 2]


async def test_again_takes_the_key_over_once_its_holder_has_ended(app: Stemflow, publish: Any, log: Log) -> None:
    (first,) = await _submitted(app, publish("return_existing, for: 1d"), 1)
    with pytest.raises(DuplicateRun):
        await app.submit(publish("return_existing, for: 1d"), inputs={"version": 2}, again=True)
    await ended(first)
    again = await app.submit(publish("return_existing, for: 1d"), inputs={"version": 3}, again=True)
    assert await ended(again) == ("succeeded", {"version": 3})


async def test_a_key_of_a_step_in_a_file_reads_its_arguments_by_name(
    app: Stemflow, index: Any, tmp_path: Path, log: Log
) -> None:
    path = tmp_path / "pages.yaml"
    path.write_text(
        'stemflow: "1"\nname: pages\nsteps:\n'
        "  pages:\n    map:\n      items: ['home', 'shop', 'home']\n"
        "      do: {task: index, args: {page: '${{ item }}', version: '${{ index }}'},"
        " unique: {key: '${{ args.page }}', on_conflict: return_existing}}\n"
        "outputs: {pages: '${{ steps.pages.output }}'}\n",
        "utf-8",
    )
    assert await app.run(load_workflow(path)) == {"pages": [0, 1, 0]}
    assert sorted(log) == [0, 1]


# -- equal calls


@pytest.mark.parametrize("elsewhere", [False, True], ids=["registered", "declared by a worker"])
async def test_equal_calls_are_one_run_however_they_are_written(
    app: Stemflow, registry: TaskRegistry, open_app: OpenApp, elsewhere: bool, log: Log
) -> None:
    # Given a task of which a run is under way, with a default and a parameter that whole numbers are converted for
    @registry.task("rate", unique=True)
    async def rate(a: float, b: int = 2, *, c: list[int] = [1]) -> float:  # noqa: B006
        log.append((a, b, c))
        await asyncio.sleep(60)
        return a + b

    producer = app
    if elsewhere:
        await asyncio.sleep(10)  # until the worker has declared it
        producer = await open_app(TaskRegistry(), worker=False)
    calls = [((1, 2), {}), ((1,), {}), ((1.0, 2), {}), ((), {"a": 1, "b": 2}), ((1,), {"c": [1]})]
    # When
    runs = {(await producer.submit(Canvas.task("rate", *args, **kwargs))).id for args, kwargs in calls}
    group = await producer.submit(Canvas.group([Canvas.task("rate", 1.0), Canvas.task("rate", 1, b=2)]))
    other = await producer.submit(Canvas.task("rate", 1, 3))
    # Then
    assert len(runs) == 1
    assert other.id not in runs
    assert (await group.wait()).value == [3, 3]
    assert (await other.wait()).value == 4
    assert sorted(log) == [(1.0, 2, [1]), (1.0, 3, [1])]


@dataclass
class Order:
    sku: str
    due: dt.date
    count: int = 1
    tags: list[str] = field(default_factory=list)


async def test_equal_arguments_of_a_handler_class_are_one_run(app: Stemflow, registry: TaskRegistry) -> None:
    class Buy(TaskHandler[Order, None]):
        name = "buy"
        options = TaskOptions(unique=True)

        async def call(self, context: TaskContext, args: Order) -> None:
            await asyncio.sleep(60)

    buy = registry.register(Buy())
    calls = [
        buy.call(Order("a", dt.date(2026, 1, 2))),
        Canvas.task("buy", sku="a", due="2026-01-02"),
        Canvas.task("buy", sku="a", due="2026-01-02", count=1, tags=[]),
    ]
    assert len({(await app.submit(call)).id for call in calls}) == 1


# -- a holder that is stopping


@pytest.mark.parametrize("mode", ["return_existing", "reject", "skip", "replace", "debounce", "keep_last"])
@pytest.mark.parametrize("alone", [True, False], ids=["alone", "member"])
async def test_a_holder_that_is_stopping_does_not_answer_for_its_key(
    app: Stemflow, registry: TaskRegistry, mode: str, alone: bool
) -> None:
    at_work: list[int] = []

    @registry.task("once", unique=True, unique_by="k", unique_mode=mode)
    async def once(x: int) -> int:
        assert not at_work
        at_work.append(x)
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            await asyncio.sleep(0.5)  # it takes its time to end
            raise
        finally:
            at_work.remove(x)
        return x

    def call(x: int) -> Any:
        return once.s(x) if alone else Canvas.group(once.s(x))

    # Given a holder that was cancelled and has not ended
    first = await app.submit(call(1))
    await asyncio.sleep(1)
    await first.cancel()
    assert (await first.root()).state == "stopping"

    # When the key is used again, then the call waits for that end and runs
    second = await app.submit(call(2))
    assert not second.existing
    assert (await second.wait()).value == (2 if alone else [2])
    assert (await first.wait()).status == "cancelled"


async def test_calls_after_the_one_that_waits_for_a_stopping_holder_find_that_one(
    app: Stemflow, registry: TaskRegistry
) -> None:
    @registry.task("once", unique=True, unique_by="k")
    async def once(x: int) -> int:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            await asyncio.sleep(0.5)
            raise
        return x

    first = await app.submit(once.s(1))
    await asyncio.sleep(1)
    await first.cancel()
    second = await app.submit(once.s(2))
    third = await app.submit(once.s(3))
    member = await app.submit(Canvas.group(once.s(4)))
    with pytest.raises(DuplicateRun):
        await app.submit(once.with_options(unique_mode="reject").s(5))
    assert (third.existing, third.id) == (True, second.id)
    assert [(await one.wait()).value for one in (second, third, member)] == [2, 2, [2]]
