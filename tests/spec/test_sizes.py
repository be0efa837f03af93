"""Large workflows: what is held and written at one time does not grow with the number of members. In counts.

Sizes with times are measured by `benchmarks/limits.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from stemflow import Canvas, Stemflow, TaskRegistry
from stemflow.dsl import parse_workflow
from stemflow.model.effects import Decision
from stemflow.model.records import FINAL, Node
from stemflow.store.base import Exchange, Request, Want

HEAD = 'stemflow: "1"\nname: sizes\n'


class Written:
    """What an engine writes: the number of records so far, and the members that are open now and were at most."""

    def __init__(self, app: Stemflow) -> None:
        self.records, self.most = 0, 0
        self._open: set[str] = set()
        self._exchange = app.store.exchange
        app.store.exchange = self.exchange  # type: ignore[method-assign]

    async def exchange(self, request: Request, decisions: Sequence[Decision], want: Want | None) -> Exchange:
        for put in (one for decision in decisions for one in decision.puts):
            self.records += 1
            if isinstance(put.record, Node) and put.record.tally is None:
                (self._open.discard if put.record.state in FINAL else self._open.add)(put.record.path)
        self.most = max(self.most, len(self._open))
        return await self._exchange(request, decisions, want)


@pytest.fixture
def url() -> str:
    return "memory:"


async def test_a_map_has_no_more_open_members_than_its_window(app: Stemflow, registry: TaskRegistry) -> None:
    @registry.task("same")
    async def same(value: int) -> int:
        return value

    # Given a map over many items, with a window; when it runs
    written = Written(app)
    values = await app.run(Canvas.map(same.s(), range(600), concurrency=40))

    # Then no more members than that were open at a time, and each was written twice, not with each other one
    assert values == list(range(600))
    assert 30 <= written.most <= 40
    assert written.records < 5 * 600


async def test_an_iteration_of_a_loop_writes_the_same_however_many_there_were(
    app: Stemflow, registry: TaskRegistry
) -> None:
    marks: list[int] = []

    @registry.task("mark")
    async def mark(before: Any = None) -> None:
        marks.append(written.records)

    # Given a loop of many iterations; when it runs
    written = Written(app)
    await app.run(Canvas.loop(mark.s(), until="index >= 200", max=200))

    # Then late iterations wrote as many records as early ones, and one was open at a time
    assert marks[80] - marks[50] == marks[199] - marks[169] <= 5 * 30
    assert written.most == 1


async def test_steps_may_be_nested_32_deep(app: Stemflow, registry: TaskRegistry) -> None:
    @registry.task("noop")
    async def noop() -> int:
        return 7

    def file(depth: int) -> str:
        step = "{task: noop}"
        for _ in range(depth - 1):
            step = f"{{group: [{step}]}}"
        return f"{HEAD}steps: {{s: {step}}}\noutputs: {{s: '${{{{ steps.s.output }}}}'}}\n"

    deepest = parse_workflow(file(32), "deep.yaml")
    assert deepest.workflow is not None and deepest.diagnostics == ()
    value: Any = (await app.run(deepest.workflow))["s"]
    for _ in range(31):
        (value,) = value
    assert value == 7
    assert {one.code for one in parse_workflow(file(33), "deep.yaml").diagnostics} == {"SF003"}
