"""The kit for tests of programs built on stemflow."""

from __future__ import annotations

from pathlib import Path

import pytest

from stemflow import Canvas, RunFailed, TaskCancelled, TaskContext, TaskRegistry, load_workflow
from stemflow.runtime.tasks.sync_context import SyncTaskContext
from stemflow.testing import Rehearsal, answers, context_for, virtual_time
from stemflow.testing.simulation.virtual_loop import OutOfTime

registry = TaskRegistry()


class Unavailable(Exception):
    pass


@registry.task("charge", max_retries=3)
async def charge(cents: int) -> int:
    raise AssertionError("tests never call the provider")


@registry.task("mail", queue="slow", priority=3)
async def mail(to: str, cents: int = 0) -> str:
    return f"{to}: {cents}"


@registry.task("crawl")
async def crawl(context: TaskContext, pages: int) -> int:
    for page in range(pages):
        await context.heartbeat()
        await context.progress(100 * page / pages, {"page": page})
    await context.extend_lease("1m")
    await context.add_to_group(mail.si("crawled"))
    await context.enqueue(mail.s("done"))
    return pages


@registry.task("plain")
def plain(context: SyncTaskContext, word: str) -> str:
    context.progress(50)
    return word


@virtual_time
async def test_retries_are_waited_for_in_no_time_and_each_attempt_is_a_call() -> None:
    async with Rehearsal(registry, stubs={"charge": answers(Unavailable(), Unavailable, 7)}) as rehearsal:
        assert await rehearsal.run(charge.s(120) | mail.si("ann")) == "ann: 0"
        assert [call.attempt for call in rehearsal.calls_of("charge")] == [0, 1, 2]
        assert rehearsal.calls_of("charge")[0].args == (120,)
        first, second, third = (call.at_ms for call in rehearsal.calls_of("charge"))
        assert 1_500 <= second - first <= 2_100
        assert 3_000 <= third - second <= 4_100
        assert rehearsal.elapsed_ms >= third


@virtual_time
async def test_a_stub_is_called_with_the_arguments_and_the_registry_is_unchanged() -> None:
    async with Rehearsal(registry, stubs={"charge": lambda cents: cents * 2}) as rehearsal:
        assert await rehearsal.run(charge.s(60)) == 120
    assert registry.middleware.on_execute == ()
    async with Rehearsal(registry) as rehearsal:
        with pytest.raises(RunFailed, match="tests never call the provider"):
            await rehearsal.run(charge.s(60))


@virtual_time
async def test_what_was_enqueued_can_be_looked_at_without_running_it() -> None:
    async with Rehearsal(registry, worker=False) as rehearsal:
        await rehearsal.submit(mail.with_options(countdown=5).s("ann", cents=3))
        await rehearsal.submit(Canvas.group(mail.s("bob"), charge.s(1) | mail.si("cee")))
        found = await rehearsal.assert_enqueued("mail", "ann", cents=3)
        assert (found.queue, found.priority, found.state) == ("slow", 3, "ready")
        assert found.at_ms == rehearsal.clock.now_ms() + 5_000
        assert [(one.task, one.args) for one in await rehearsal.enqueued()] == [
            ("mail", ("ann",)), ("mail", ("bob",)), ("charge", (1,)),
        ]  # fmt: skip
        with pytest.raises(AssertionError, match=r"^expected mail\('dan'\) .*; there is mail\('ann', cents=3\); mail"):
            await rehearsal.assert_enqueued("mail", "dan")


@virtual_time
async def test_a_workflow_file_is_rehearsed_with_tasks_that_are_not_here() -> None:
    async with Rehearsal(TaskRegistry(), stubs={"psp.pay": answers({"id": "c1"}), "mail.send": answers("sent")}) as r:
        workflow = load_workflow(Path(__file__).with_name("pay.yaml"), known_tasks=r.app.registry)
        assert await r.run(workflow, inputs={"cents": 5}) == {"mail": "sent"}
        assert r.calls_of("mail.send")[0].kwargs == {"charge": "c1"}


def test_a_test_that_waits_for_nothing_says_so() -> None:
    @virtual_time
    async def stuck() -> None:
        async with Rehearsal(registry, worker=False) as rehearsal:
            await (await rehearsal.submit(mail.s("ann"))).wait()

    # A waiter looks at its run again every minute, so it is the virtual day that ends.
    with pytest.raises(OutOfTime, match="waits at"):
        stuck()


async def test_a_handler_is_called_with_a_context_that_records() -> None:
    context = context_for(crawl, attempt=1, headers={"tenant": "a"})
    assert (context.attempt, context.headers["tenant"], context.name) == (1, "a", "crawl")
    assert await crawl(context, 2) == 2
    assert context.asked.heartbeats == 2
    assert context.asked.progress_reports == [(0, {"page": 0}), (50, {"page": 1})]
    assert context.asked.extensions_ms == [60_000]
    assert [sig.task for sig in context.asked.enqueued] == ["mail"]
    assert [sig.args for sig in context.added] == [("crawled",)]


async def test_a_handler_can_see_that_it_was_cancelled() -> None:
    context = context_for(crawl)
    context.cancel()
    with pytest.raises(TaskCancelled):
        await crawl(context, 2)
    assert context.asked.heartbeats == 0


def test_a_plain_handler_is_given_a_context_that_answers_at_once() -> None:
    context = context_for(plain)
    assert plain(context, "hm") == "hm"
    assert context.asked.progress_reports == [(50, None)]


def test_answers_need_at_least_one_outcome() -> None:
    with pytest.raises(Exception, match=r"write answers\(None\)"):
        answers()


