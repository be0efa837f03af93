"""What cannot be decided or read concerns one run: it ends as damaged, with a dead letter, and no other run notices."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from typing import Any

import pytest

from stemflow import Stemflow, TaskContext, TaskRegistry
from stemflow.core.fire import ACTIONS
from stemflow.core.work import Work
from stemflow.model.records import Node


async def test_an_assertion_of_the_machine_ends_one_run_and_is_logged_with_its_story(
    app: Stemflow, registry: TaskRegistry, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    ran: Counter[str] = Counter()

    # They meet in a concurrency key, so that their reports are decided together.
    @registry.task("job", concurrency={"key": "k", "limit": 10}, visibility_timeout="2s")
    async def job(context: TaskContext) -> str:
        ran[context.run_id] += 1
        await asyncio.sleep(1)
        return context.run_id

    succeed = ACTIONS["succeed"]

    def planted(w: Work, node: Node, fact: Any) -> None:
        assert node.run != "bad", "planted"
        succeed(w, node, fact)

    monkeypatch.setitem(ACTIONS, "succeed", planted)
    caplog.set_level(logging.CRITICAL, "stemflow")
    names = ["one", "bad", "two", "three"]
    handles = [await app.submit(job.s(), run_id=name) for name in names]
    results = {handle.id: await handle.wait(600) for handle in handles}
    assert {name: result.status for name, result in results.items()} == {
        "one": "succeeded", "two": "succeeded", "three": "succeeded", "bad": "failed",
    }  # fmt: skip
    error = results["bad"].error
    assert error is not None and error.type == "Damaged" and "planted" in error.message
    assert {name: ran[name] for name in names if name != "bad"} == {"one": 1, "two": 1, "three": 1}
    (letter,) = await app.store.dead_letters()
    assert (letter.run, letter.reason) == ("bad", "damaged")
    told = [record for record in caplog.records if "could not be decided" in record.getMessage()]
    assert told and all("run bad" in record.getMessage() and record.exc_info for record in told)
    assert "reported: Ended bad: Ok under delivery" in told[0].getMessage()
    assert len(told) == 3
