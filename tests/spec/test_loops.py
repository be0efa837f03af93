"""A loop repeats a step, one iteration after the other, each given what the one before gave."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from stemflow import Canvas, InvalidWorkflow, OptionError, Stemflow, TaskRegistry, load_workflow
from stemflow.runtime.tasks.context import Reject


@pytest.fixture
def calls(registry: TaskRegistry) -> list[Any]:
    seen: list[Any] = []

    @registry.task("add")
    async def add(value: Any, by: int = 1) -> Any:
        seen.append(value)
        return (value or 0) + by

    @registry.task("page")
    async def page(token: Any) -> Any:
        seen.append(token)
        number = token or 0
        return {"items": [number], "next": number + 1 if number < 2 else None}

    @registry.task("undo")
    async def undo(value: Any) -> None:
        seen.append(f"undo {value}")

    @registry.task("bad")
    async def bad(value: Any = None) -> None:
        seen.append("bad")
        raise Reject("no")

    @registry.task("slow")
    async def slow(value: Any) -> int:
        seen.append(value)
        await asyncio.sleep(60)
        return (value or 0) + 1

    return seen


def add(by: int = 1) -> Any:
    return Canvas.task("add", by=by)


async def test_until_is_asked_after_each_iteration(app: Stemflow, calls: list[Any]) -> None:
    assert await app.run(Canvas.chain(Canvas.task("add", 5), Canvas.loop(add(), until="carry > 8"))) == 9
    assert calls == [5, 6, 7, 8]


async def test_while_is_asked_before_each_iteration_and_may_allow_none(app: Stemflow, calls: list[Any]) -> None:
    assert await app.run(Canvas.loop(add(), while_="carry < 3", carry=0)) == 3
    assert await app.run(Canvas.loop(add(), while_="carry < 3", carry=7)) == 7
    assert calls == [0, 1, 2]


async def test_without_a_condition_there_are_max_iterations(app: Stemflow, calls: list[Any]) -> None:
    assert await app.run(Canvas.loop(add(2), max=4, carry=0)) == 8


async def test_a_condition_that_never_ends_it_fails_the_loop_after_max_iterations(
    app: Stemflow, calls: list[Any]
) -> None:
    result = await (await app.submit(Canvas.loop(add(), until="carry < 0", max=3, carry=0))).wait(timeout=60)
    assert result.status == "failed" and result.error is not None and result.error.type == "LoopLimit"
    assert result.error.message == "its condition did not end it within 3 iterations"
    assert calls == [0, 1, 2]


async def test_an_iteration_that_fails_ends_the_loop(app: Stemflow, calls: list[Any]) -> None:
    tree = Canvas.loop(Canvas.chain(add(), Canvas.task("bad")), until="carry", carry=0)
    result = await (await app.submit(tree)).wait(timeout=60)
    assert result.status == "failed" and result.failed_at == "[0][1]"
    assert calls == [0, "bad"]


async def test_a_condition_that_cannot_be_evaluated_fails_the_loop(app: Stemflow, calls: list[Any]) -> None:
    for until in ("1 // (carry - 2) > 0", "carry"):
        result = await (await app.submit(Canvas.loop(add(), until=until, carry=0))).wait(timeout=60)
        assert result.status == "failed" and result.error is not None
    assert result.error.message == "until: expected true or false, got a number"  # type: ignore[union-attr]
    assert calls == [0, 1, 0]


async def test_a_cancel_stops_the_iteration_that_runs_and_opens_no_other(app: Stemflow, calls: list[Any]) -> None:
    handle = await app.submit(Canvas.loop(Canvas.task("slow"), max=5, carry=0))
    await asyncio.sleep(90)
    await handle.cancel()
    assert (await handle.wait(timeout=600)).status == "cancelled"
    assert calls == [0, 1]


FILE = """\
stemflow: "1"
name: pages
steps:
  all:
    loop:
      until: carry.next == null
      carry: {next: null, items: []}
      do:
        steps:
          page:
            task: page
            args: {token: "${{ carry.next }}"}
            compensate: {task: undo, args: {value: "${{ self.output.items[0] }}"}}
        outputs:
          next: ${{ steps.page.output.next }}
          items: ${{ carry.items + steps.page.output.items }}
          number: ${{ index }}
  after: {task: AFTER, args: {value: "${{ steps.all.output.items }}"}}
on_failure: {compensate: true}
outputs: {items: "${{ steps.all.output.items }}", last: "${{ steps.all.output.number }}"}
"""


def loaded(folder: Path, text: str) -> Any:
    path = folder / "pages.yaml"
    path.write_text(text, "utf-8")
    return load_workflow(path)


async def test_a_file_collects_pages_and_each_iteration_has_a_path(
    app: Stemflow, registry: TaskRegistry, calls: list[Any], tmp_path: Path
) -> None:
    @registry.task("keep")
    async def keep(value: Any) -> Any:
        return value

    handle = await app.submit(loaded(tmp_path, FILE.replace("AFTER", "keep")))
    assert (await handle.wait(timeout=60)).value == {"items": [0, 1, 2], "last": 2}
    assert calls == [None, 1, 2]
    found = await app.store.read([(handle.id, f"all[{number}].page") for number in range(4)])
    assert [node and node.state for node in found] == ["succeeded"] * 3 + [None]  # type: ignore[union-attr]


async def test_compensation_undoes_the_last_iteration_first(app: Stemflow, calls: list[Any], tmp_path: Path) -> None:
    handle = await app.submit(loaded(tmp_path, FILE.replace("AFTER", "bad")))
    assert (await handle.wait(timeout=60)).status == "failed"
    assert calls == [None, 1, 2, "bad", "undo 2", "undo 1", "undo 0"]


async def test_a_rerun_keeps_the_iterations_that_succeeded(app: Stemflow, calls: list[Any], tmp_path: Path) -> None:
    text = FILE.replace("AFTER", "bad").replace("on_failure: {compensate: true}\n", "")
    handle = await app.submit(loaded(tmp_path, text))
    await handle.wait(timeout=60)
    again = await app.rerun(handle.id, failed=True)
    assert (await again.wait(timeout=60)).failed_at == "after"
    assert calls == [None, 1, 2, "bad", "bad"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"until": "carry", "while_": "carry"}, "expected until or while_, got both"),
        ({"until": "carry."}, "loop: until: "),
        ({"max": 0}, "expected a whole number from 1 to 10,000, got 0"),
    ],
)
def test_a_loop_that_cannot_work_is_refused(given: Any, message: str) -> None:
    with pytest.raises(OptionError) as refused:
        Canvas.loop(add(), **given)
    assert message in str(refused.value)


@pytest.mark.parametrize(
    ("before", "after", "code"),
    [
        ("      until: carry.next == null\n", "", "SF015"),
        ("      until: ", "      while: 'true'\n      until: ", "SF013"),
        ("      until: ", "      max: 0\n      until: ", "SF011"),
        ("until: carry.next", "until: cary.next", "SF204"),
        ('"${{ steps.all.output.items }}"', '"${{ carry }}"', "SF204"),
        ("      do:\n", "      did:\n", "SF010"),
    ],
)
def test_a_mistake_in_a_loop_is_a_finding(tmp_path: Path, before: str, after: str, code: str) -> None:
    assert before in FILE
    with pytest.raises(InvalidWorkflow) as refused:
        loaded(tmp_path, FILE.replace("AFTER", "bad").replace(before, after))
    assert code in [one.code for one in refused.value.diagnostics]
