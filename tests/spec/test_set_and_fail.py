"""`set` gives computed values and `fail` an error of the workflow's own, both without a worker."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from stemflow import Canvas, InvalidWorkflow, RunFailed, Stemflow, TaskRegistry, load_workflow

FILE = """\
stemflow: "1"
name: checkout
inputs:
  lines: {type: array}
vars: {rate: 0.5}
steps:
  totals:
    set:
      count: ${{ len(inputs.lines) }}
      amount: ${{ sum(inputs.lines) * vars.rate }}
      text: "${{ len(inputs.lines) }} lines"
      nested: {first: ["${{ get(inputs.lines[0]) }}"]}
  empty:
    when: steps.totals.output.count == 0
    fail: {message: "no lines in ${{ run.name }}", type: EmptyOrder, data: {count: "${{ steps.totals.output.count }}"}}
  charge:
    when: steps.totals.output.count > 0
    task: give
    args: {value: "${{ steps.totals.output }}"}
outputs:
  charged: ${{ steps.charge.output }}
  why: ${{ steps.empty.error }}
"""


@pytest.fixture(autouse=True)
def give(registry: TaskRegistry) -> None:
    @registry.task("give")
    async def give(value: Any = None) -> Any:
        return value


def loaded(folder: Path, text: str = FILE) -> Any:
    path = folder / "checkout.yaml"
    path.write_text(text, "utf-8")
    return load_workflow(path)


async def test_a_set_gives_its_values_with_their_types(app: Stemflow, tmp_path: Path) -> None:
    found = await app.run(loaded(tmp_path), inputs={"lines": [1, 2]})
    assert found["charged"] == {"count": 2, "amount": 1.5, "text": "2 lines", "nested": {"first": [1]}}
    assert found["why"] is None


async def test_a_fail_ends_the_run_with_its_error_and_leaves_no_dead_letter(app: Stemflow, tmp_path: Path) -> None:
    handle = await app.submit(loaded(tmp_path), inputs={"lines": []})
    result = await handle.wait(timeout=60)
    assert result.status == "failed" and result.failed_at == "empty" and result.error is not None
    assert (result.error.type, result.error.message) == ("EmptyOrder", "no lines in checkout")
    assert result.error.data == {"count": 0}
    assert await app.store.dead_letters(handle.id) == []


async def test_a_fail_that_is_tolerated_shows_its_error(app: Stemflow, tmp_path: Path) -> None:
    text = FILE.replace("    fail: {", "    on_error: continue\n    fail: {")
    found = await app.run(loaded(tmp_path, text), inputs={"lines": []})
    assert found["why"]["type"] == "EmptyOrder" and found["why"]["data"] == {"count": 0}


async def test_a_set_whose_expression_fails_is_failed(app: Stemflow, tmp_path: Path) -> None:
    text = FILE.replace("len(inputs.lines) }}\n      amount", "1 // len(inputs.lines) }}\n      amount")
    result = await (await app.submit(loaded(tmp_path, text), inputs={"lines": []})).wait(timeout=60)
    assert result.status == "failed" and result.failed_at == "totals"


async def test_a_canvas_fails_where_no_case_fits(app: Stemflow) -> None:
    route = Canvas.switch("prev", {"a": Canvas.task("give")}, Canvas.fail("no way for ${{ prev }}", type="NoWay"))
    assert await app.run(Canvas.chain(Canvas.task("give", "a"), route)) == "a"
    with pytest.raises(RunFailed, match="NoWay: no way for b"):
        await app.run(Canvas.chain(Canvas.task("give", "b"), route))


async def test_a_rerun_of_what_failed_computes_a_set_again(app: Stemflow, tmp_path: Path) -> None:
    handle = await app.submit(loaded(tmp_path), inputs={"lines": []})
    await handle.wait(timeout=60)
    again = await app.rerun(handle.id, failed=True)
    assert (await again.wait(timeout=60)).failed_at == "empty"
    (totals,) = await app.store.read([(again.id, "totals")])
    assert totals is not None and totals.state == "succeeded"  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("before", "after", "code"),
    [
        ("steps.totals.output.count }}\"}}", "steps.total.output.count }}\"}}", "SF104"),
        ("len(inputs.lines) }} lines", "len(input.lines) }} lines", "SF202"),
        ("message: ", "mesage: ", "SF010"),
        ("type: EmptyOrder", "type: 3", "SF011"),
        ("    set:\n", "    retry: {max: 1}\n    set:\n", "SF014"),
    ],
)
def test_a_mistake_in_a_set_or_fail_is_a_finding(tmp_path: Path, before: str, after: str, code: str) -> None:
    assert before in FILE
    with pytest.raises(InvalidWorkflow) as refused:
        loaded(tmp_path, FILE.replace(before, after))
    assert code in [one.code for one in refused.value.diagnostics]
