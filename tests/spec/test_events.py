"""Steps that wait for an event, steps that send one, and events that are sent from outside."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from stemflow import Canvas, InvalidWorkflow, OptionError, RunFailed, Stemflow, TaskRegistry, load_workflow
from tests.spec.conftest import OpenApp

WAITS = """\
stemflow: "1"
name: waits
inputs: {order: {type: string}}
steps:
  paid:
    event: {type: order.paid, match: event.data.order == inputs.order, timeout: 1h}
outputs: {amount: "${{ steps.paid.output.data.amount }}", id: "${{ steps.paid.output.id }}"}
"""


def loaded(folder: Path, text: str) -> Any:
    path = folder / "events.yaml"
    path.write_text(text, "utf-8")
    return load_workflow(path)


async def until(app: Stemflow, run: str, step: str, state: str = "held") -> None:
    """Until the step is in this state."""
    seen = 0
    for _ in range(100):
        if any(node.path == step and node.state == state for node in await app.store.nodes(run)):
            return
        seen = await app.store.wait_for_change(seen, 1_000, run)
    raise AssertionError(f"{step} was never {state}")


async def test_an_event_ends_the_steps_that_it_fits(app: Stemflow, tmp_path: Path) -> None:
    waits = loaded(tmp_path, WAITS)
    first, second = [await app.submit(waits, inputs={"order": order}) for order in "ab"]
    await until(app, first.id, "paid")
    await until(app, second.id, "paid")
    sent = await app.send_event("order.paid", {"order": "a", "amount": 7}, id="p1")
    assert (await first.wait(timeout=30)).value == {"amount": 7, "id": "p1"}
    assert not sent.existing and sent.id == "p1"
    await app.send_event("order.shipped", {"order": "b"})
    result = await second.wait(timeout=10)
    assert result.timed_out
    await app.send_event("order.paid", {"order": "b", "amount": 8})
    assert (await second.wait(timeout=30)).required()["amount"] == 8


async def test_an_event_that_came_early_is_kept(app: Stemflow, tmp_path: Path) -> None:
    for order in "abc":
        await app.send_event("order.paid", {"order": order, "amount": 1})
    assert (await app.run(loaded(tmp_path, WAITS), inputs={"order": "b"}))["amount"] == 1


async def test_an_event_is_kept_only_as_long_as_its_sender_says(app: Stemflow, tmp_path: Path) -> None:
    await app.send_event("order.paid", {"order": "a", "amount": 1}, keep="10s")
    await asyncio.sleep(11)
    handle = await app.submit(loaded(tmp_path, WAITS), inputs={"order": "a"})
    assert (await handle.wait(timeout=30)).timed_out
    await app.send_event("order.paid", {"order": "a", "amount": 2}, keep="10s")
    assert (await handle.wait(timeout=30)).required()["amount"] == 2


async def test_an_event_of_one_id_is_sent_once(app: Stemflow, open_app: OpenApp, tmp_path: Path) -> None:
    sender = await open_app(TaskRegistry(), worker=False)
    first = await app.send_event("order.paid", {"order": "a", "amount": 1}, id="x")
    again = await sender.send_event("order.paid", {"order": "a", "amount": 2}, id="x")
    other = await sender.send_event("order.seen", {}, id="x")
    assert [first.existing, again.existing, other.existing] == [False, True, False]
    assert (await app.run(loaded(tmp_path, WAITS), inputs={"order": "a"}))["amount"] == 1


async def test_a_process_without_a_worker_wakes_the_step_at_once(
    app: Stemflow, open_app: OpenApp, tmp_path: Path
) -> None:
    sender = await open_app(TaskRegistry(), worker=False)
    handle = await app.submit(loaded(tmp_path, WAITS), inputs={"order": "a"})
    await until(app, handle.id, "paid")
    await asyncio.sleep(5)
    loop = asyncio.get_running_loop()
    began = loop.time()
    await sender.send_event("order.paid", {"order": "a", "amount": 3})
    assert (await handle.wait(timeout=30)).required()["amount"] == 3
    assert loop.time() - began < 2


@pytest.mark.parametrize(
    ("on_timeout", "status", "value"), [("fail", "failed", None), ("continue", "succeeded", [None]),
                                        ("skip", "succeeded", [None])],
)  # fmt: skip
async def test_what_follows_when_no_event_comes(app: Stemflow, on_timeout: Any, status: str, value: Any) -> None:
    step = Canvas.event("never", timeout="20s", on_timeout=on_timeout)
    handle = await app.submit(Canvas.group(step))
    result = await handle.wait(timeout=3_600)
    assert (result.status, result.value) == (status, value)
    if status == "failed":
        assert result.error is not None and result.error.type == "TaskTimeout" and result.failed_at == "[0]"
        assert "no event never that it waits for came within 20000 ms" in result.error.message


async def test_a_step_that_waits_survives_its_worker(open_app: OpenApp, tmp_path: Path) -> None:
    first = await open_app()
    handle = await first.submit(loaded(tmp_path, WAITS), inputs={"order": "a"})
    await until(first, handle.id, "paid")
    await first.hand_back()
    second = await open_app(worker=False)
    await second.send_event("order.paid", {"order": "a", "amount": 5})
    third = await open_app()
    assert (await (await third.handle(handle.id)).wait(timeout=30)).required()["amount"] == 5


async def test_a_step_may_send_an_event_to_another_run_and_to_its_own(app: Stemflow) -> None:
    other = await app.submit(Canvas.event("said", match="event.data.n == 1"))
    both = Canvas.group(Canvas.event("said"), Canvas.chain(Canvas.wait("1s"), Canvas.emit("said", {"n": 1})))
    handle = await app.submit(both)
    heard, sent = (await handle.wait(timeout=60)).required()
    assert heard == sent and heard["data"] == {"n": 1} and heard["id"] == f"{handle.id}/[1][1]"
    assert (await other.wait(timeout=60)).required() == sent


async def test_an_event_is_sent_once_per_id_by_steps_too(app: Stemflow) -> None:
    await app.run(Canvas.chain(Canvas.emit("t", 1, id="same"), Canvas.emit("t", 2, id="same"), Canvas.emit("t", 3)))
    found = await app.run(Canvas.chain(Canvas.event("t", match="event.data > 1")))
    assert found["data"] == 3


async def test_iterations_of_a_loop_get_one_event_each(app: Stemflow, tmp_path: Path) -> None:
    loop = """\
stemflow: "1"
name: drain
steps:
  all:
    loop:
      max: 3
      do: {event: {type: tick}}
  last: {set: {n: "${{ steps.all.output.data }}"}}
outputs: {n: "${{ steps.last.output.n }}"}
"""
    for number in range(2):
        await app.send_event("tick", number)
    handle = await app.submit(loaded(tmp_path, loop))
    await until(app, handle.id, "all[2]")
    states = {node.path: node.state for node in await app.store.nodes(handle.id)}
    assert states["all[0]"] == states["all[1]"] == "succeeded"
    await app.send_event("tick", 2)
    assert (await handle.wait(timeout=30)).required() == {"n": 2}


async def test_members_of_a_map_all_get_an_event_early_or_late(app: Stemflow) -> None:
    waits: Any = Canvas.group(*(Canvas.event("go") for _ in range(3)))
    late = await app.submit(waits)
    await until(app, late.id, "[2]")
    await app.send_event("go", "now")
    assert [one["data"] for one in (await late.wait(timeout=30)).required()] == ["now"] * 3
    assert [one["data"] for one in await app.run(waits)] == ["now"] * 3


async def test_a_match_that_fails_or_gives_no_boolean_fails_the_step(app: Stemflow) -> None:
    cases = (("a", "event.data.x + 1", "match: expected true or false"), ("b", "1 / event.data.x > 1", "match: "))
    for kind, match, message in cases:
        handle = await app.submit(Canvas.event(kind, match=match))
        await until(app, handle.id, "")
        await app.send_event(kind, {"x": 0})
        with pytest.raises(RunFailed, match=message):
            (await handle.wait(timeout=30)).required()


async def test_cancel_timeout_and_fail_fast_end_a_step_that_waits(app: Stemflow, registry: TaskRegistry) -> None:
    @registry.task("bad")
    async def bad() -> None:
        raise ValueError("no")

    cancelled = await app.submit(Canvas.event("t"))
    await until(app, cancelled.id, "")
    await cancelled.cancel()
    assert (await cancelled.wait(timeout=30)).status == "cancelled"
    late = await app.submit(Canvas.chain(Canvas.event("t")).with_timeout("10s"))
    assert (await late.wait(timeout=300)).status == "failed"
    group = await app.submit(Canvas.group(Canvas.event("t"), Canvas.task("bad")))
    assert (await group.wait(timeout=300)).failed_at == "[1]"
    forced = await app.submit(Canvas.chain(Canvas.event("t")))
    await until(app, forced.id, "[0]")
    await forced.cancel(force=True)
    (topic,) = await app.store.read([("", "topic:t")])
    assert topic is None


async def test_a_rerun_keeps_the_event_and_sends_none_again(app: Stemflow, registry: TaskRegistry) -> None:
    calls: list[Any] = []

    @registry.task("flaky")
    async def flaky(event: Any) -> Any:
        calls.append(event["data"])
        if len(calls) == 1:
            raise ValueError("no")
        return event["data"]

    await app.send_event("t", "first", keep="10s")
    handle = await app.submit(Canvas.chain(Canvas.event("t"), Canvas.task("flaky")))
    assert (await handle.wait(timeout=60)).status == "failed"
    await asyncio.sleep(120)
    again = await app.rerun(handle.id, failed=True)
    assert (await again.wait(timeout=60)).required() == "first"


async def test_many_runs_wait_for_one_type(app: Stemflow) -> None:
    handles = await app.submit_many([Canvas.event("t", match=f"event.data == {n % 2}") for n in range(12)])
    for handle in handles:
        await until(app, handle.id, "")
    await app.send_event("t", 1)
    done = [await handle.wait(timeout=5) for handle in handles[1::2]]
    assert all(one.status == "succeeded" for one in done)
    assert [(await handle.wait(timeout=0.1)).timed_out for handle in handles[0:4:2]] == [True, True]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda app: app.send_event("a b"), "expected a type of events"),
        (lambda app: app.send_event("a", id=""), "send_event: id: expected a text"),
        (lambda app: app.send_event("a", keep="soon"), "send_event: keep"),
        (lambda app: app.send_event("a", object()), "data of event a"),
    ],
)
async def test_a_wrong_event_is_refused(app: Stemflow, call: Any, message: str) -> None:
    with pytest.raises(Exception, match=message):
        await call(app)


@pytest.mark.parametrize(
    ("step", "code"),
    [
        ("event: {match: event.data.x}", "SF015"),
        ("event: {type: a b}", "SF011"),
        ("event: {type: a, on_timeout: skip}", "SF015"),
        ("event: {type: a, timeout: 1h, on_timeout: never}", "SF011"),
        ("event: {type: a, match: evnt.data}", "SF204"),
        ("event: {type: a, until: 3}", "SF010"),
        ("emit: {type: a, data: '${{ event.data }}'}", "SF202"),
        ("emit: {type: a, keep: soon}", "SF501"),
    ],
)
def test_a_mistake_is_a_finding(tmp_path: Path, step: str, code: str) -> None:
    with pytest.raises(InvalidWorkflow) as refused:
        loaded(tmp_path, f'stemflow: "1"\nname: x\nsteps:\n  a:\n    {step}\n')
    assert code in [one.code for one in refused.value.diagnostics]


def test_the_canvas_refuses_what_makes_no_step() -> None:
    for make in (
        lambda: Canvas.event("a b"),
        lambda: Canvas.event("a", match="x +"),
        lambda: Canvas.event("a", on_timeout="never"),  # type: ignore[arg-type]
        lambda: Canvas.event("a").with_concurrency("k"),
    ):
        with pytest.raises(OptionError):
            make()
