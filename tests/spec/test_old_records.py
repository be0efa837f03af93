"""A process that remembers an older record than the store has decides again: nothing is lost or run twice."""

from __future__ import annotations

import asyncio
import copy
import logging
from collections import Counter
from collections.abc import Sequence

import pytest

from stemflow import Stemflow, TaskContext, TaskRegistry
from stemflow.model.effects import Decision
from stemflow.model.records import HELD, READY, Node
from stemflow.store.base import Exchange, Request, Want
from tests.spec.conftest import OpenApp


async def stored(app: Stemflow, run: str) -> Node:
    (record,) = await app.store.read([(run, "")])
    assert isinstance(record, Node)
    return record


@pytest.mark.parametrize("what", ["one that was ready", "none"])
async def test_a_report_counts_although_its_record_is_remembered_as_it_was_before_the_lease(
    app: Stemflow, registry: TaskRegistry, what: str
) -> None:
    ran: Counter[str] = Counter()

    @registry.task("f")
    async def f(context: TaskContext) -> int:
        ran[context.run_id] += 1
        old = copy.copy(await stored(app, context.run_id))
        old.state, old.delivery = READY, old.delivery - 1
        app.decider.records[old.key] = old if what == "one that was ready" else None
        return 7

    result = await (await app.submit(f.s(), run_id="a")).wait(5)
    assert (result.status, result.value, ran) == ("succeeded", 7, {"a": 1})


async def test_the_next_under_a_key_may_be_remembered_as_it_was_before_it_waited_for_it(
    app: Stemflow, registry: TaskRegistry, caplog: pytest.LogCaptureFixture
) -> None:
    ran: Counter[str] = Counter()
    go = asyncio.Event()

    @registry.task("f", concurrency={"key": "k", "limit": 1})
    async def f(context: TaskContext) -> int:
        ran[context.run_id] += 1
        await go.wait()
        return 7

    caplog.set_level(logging.WARNING, "stemflow")
    first = await app.submit(f.s(), run_id="a")
    second = await app.submit(f.s(), run_id="b")
    old = copy.copy(await stored(app, "b"))
    assert (old.state, old.slot) == (HELD, "concurrency:k")
    old.slot, old.rev = None, old.rev - 1
    app.decider.records[old.key] = old
    go.set()
    for handle in (first, second):
        assert (await handle.wait(5)).value == 7
    assert ran == {"a": 1, "b": 1}
    assert not caplog.records


async def test_a_record_that_contradicts_the_others_in_the_store_ends_its_run_alone(
    app: Stemflow, registry: TaskRegistry, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    ran: Counter[str] = Counter()
    go = asyncio.Event()

    @registry.task("f", concurrency={"key": "k", "limit": 1})
    async def f(context: TaskContext) -> int:
        ran[context.run_id] += 1
        await go.wait()
        return 7

    @registry.task("plain")
    async def plain() -> int:
        return 8

    caplog.set_level(logging.CRITICAL, "stemflow")
    first = await app.submit(f.s(), run_id="a")
    second, third = await app.submit(f.s(), run_id="b"), await app.submit(f.s(), run_id="c")
    read = app.store.read

    async def damaged(keys):  # type: ignore[no-untyped-def]
        """The waiter has forgotten for what it waits."""
        found = await read(keys)
        for at, one in enumerate(found):
            if isinstance(one, Node) and one.run == "b" and one.state == HELD:
                found[at] = twin = copy.copy(one)
                twin.slot = None
        return found

    monkeypatch.setattr(app.store, "read", damaged)
    go.set()
    assert (await first.wait(60)).value == (await third.wait(60)).value == 7
    error = (await second.wait(60)).error
    assert error is not None and error.type == "Damaged"
    assert ran == {"a": 1, "c": 1}
    assert await app.run(plain.s()) == 8
    assert [letter.reason for letter in await app.store.dead_letters("b")] == ["damaged"]
    (told,) = caplog.records
    assert told.getMessage().startswith("run b: ") and told.getMessage().endswith("that run is ended as damaged")


async def test_the_lease_of_a_handler_that_has_ended_holds_until_its_report_is_committed(
    app: Stemflow, open_app: OpenApp, registry: TaskRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: Counter[str] = Counter()

    @registry.task("f", visibility_timeout="1s")
    async def f(context: TaskContext) -> int:
        ran[context.run_id] += 1
        return 7

    exchange = app.store.exchange

    async def slow(request: Request, decisions: Sequence[Decision], want: Want | None) -> Exchange:
        if any(put.guard for one in decisions for put in one.puts):
            await asyncio.sleep(10)
        return await exchange(request, decisions, want)

    monkeypatch.setattr(app.store, "exchange", slow)
    handle = await app.submit(f.s(), run_id="a")
    await open_app()
    assert (await handle.wait(60)).value == 7
    assert ran == {"a": 1}
    assert (await stored(app, "a")).losses == 0
