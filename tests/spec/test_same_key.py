"""Many submissions at once under one key cost few exchanges, and none of them fails for the others."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from stemflow import Stemflow, TaskRegistry
from tests.spec.conftest import OpenApp

MANY = 120
OPTIONS: dict[str, dict[str, Any]] = {
    "a concurrency key": {"concurrency": 2},
    "a unique key": {"unique": True, "unique_by": "k"},
    "a debounced key": {"unique": True, "unique_by": "k", "unique_mode": "debounce", "unique_for": "3s"},
    "the newest of a key": {"unique": True, "unique_by": "k", "unique_mode": "keep_last"},
}


def decisions_sent(app: Stemflow, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many decisions each exchange carries from now on."""
    sent: list[int] = []
    exchange = app.store.exchange

    async def counted(request: Any, decisions: Any, want: Any) -> Any:
        sent.append(len(decisions))
        return await exchange(request, decisions, want)

    monkeypatch.setattr(app.store, "exchange", counted)
    return sent


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
async def test_submissions_at_once_under_one_key_share_exchanges(
    open_app: OpenApp, registry: TaskRegistry, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    # Given an engine without a worker
    @registry.task("f", **options)
    async def f(i: int) -> int:
        return i

    app = await open_app(worker=False)
    sent = decisions_sent(app, monkeypatch)
    # When many runs under one key are submitted at once
    handles = await asyncio.gather(*[app.submit(f.s(i)) for i in range(MANY)])
    # Then all are through, each decided about once
    assert len(handles) == MANY
    assert sum(sent) <= 2 * MANY, sent
    # And a worker brings them all to an end
    worker = await open_app()
    results = await asyncio.gather(*[(await worker.handle(handle.id)).wait(600) for handle in handles])
    assert {result.status for result in results} <= {"succeeded", "skipped"}


async def test_submit_many_under_one_key_shares_exchanges(
    open_app: OpenApp, registry: TaskRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    @registry.task("f", concurrency=2)
    async def f(i: int) -> int:
        return i

    app = await open_app(worker=False)
    sent = decisions_sent(app, monkeypatch)
    handles = await app.submit_many([f.s(i) for i in range(MANY)])
    assert len({handle.id for handle in handles}) == MANY
    assert sum(sent) <= 2 * MANY, sent
