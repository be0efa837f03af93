"""Items of a map that were given as a list: stored in pages, leased one by one."""

from __future__ import annotations

import asyncio
from typing import Any

from stemflow import Canvas, RetryPolicy, Stemflow, TaskRegistry
from stemflow.runtime.values.map_items import PAGE, PAGES
from stemflow.store.memory.store import MemoryStore


async def test_a_page_of_items_is_read_once_however_many_members_ask_for_it(monkeypatch: Any) -> None:
    # Given
    registry, read = TaskRegistry(), []
    page = MemoryStore.page

    async def counted(store: MemoryStore, key: Any, number: int) -> bytes | None:
        read.append(number)
        return await page(store, key, number)

    @registry.task("same")
    async def same(value: Any) -> Any:
        return value

    monkeypatch.setattr(MemoryStore, "page", counted)
    items = [{"n": i} for i in range(2 * PAGE + 1)]
    # When
    async with Stemflow("memory:", registry) as app:
        values = await app.run(Canvas.map(same.s(), items))
    # Then
    assert values == items
    assert sorted(read) == [0, 1, 2]


async def test_an_item_that_a_handler_changed_is_whole_again_when_it_is_retried() -> None:
    # Given
    registry, seen = TaskRegistry(), []

    @registry.task("greedy", max_retries=1, retry=RetryPolicy.of(initial=0))
    async def greedy(order: dict[str, Any]) -> int:
        seen.append(len(order["lines"]))
        taken = order["lines"].pop()
        if len(seen) == 1:
            raise ValueError("once")
        return int(taken)

    # When
    async with Stemflow("memory:", registry) as app:
        values = await app.run(Canvas.map(greedy.s(), [{"lines": [1, 2, 3]}]))
    # Then
    assert values == [3]
    assert seen == [3, 3]


async def test_pages_that_were_used_last_are_kept_and_no_more_than_a_few() -> None:
    # Given
    registry = TaskRegistry()

    @registry.task("same")
    async def same(value: Any) -> Any:
        return value

    # When
    async with Stemflow("memory:", registry) as app:
        maps = [Canvas.map(same.s(), [i, i + 1]) for i in range(2 * PAGES)]
        values = await app.run(Canvas.group(maps))
    # Then
    assert values == [[i, i + 1] for i in range(2 * PAGES)]
    assert len(app.library.items.pages) == PAGES


async def test_a_plan_is_read_once_however_many_members_begin_together(monkeypatch: Any) -> None:
    # Given a run whose plan the process that works on it has never seen
    registry, read = TaskRegistry(), []
    plan = MemoryStore.plan

    async def counted(store: MemoryStore, digest: str) -> Any:
        read.append(digest)
        await asyncio.sleep(0)
        return await plan(store, digest)

    @registry.task("same")
    async def same(value: Any) -> Any:
        return value

    monkeypatch.setattr(MemoryStore, "plan", counted)
    async with Stemflow("memory:", registry, worker=False) as app:
        handle = await app.submit(Canvas.group([same.s(i) for i in range(50)]))
        # When
        async with Stemflow("memory:", registry, store=app.store) as other:
            values = (await (await other.handle(handle.id)).wait()).value
    # Then
    assert values == list(range(50))
    assert len(read) == 1
