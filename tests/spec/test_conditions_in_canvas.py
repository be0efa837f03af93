"""Tasks and composites of a canvas have conditions, and say what their failure does to what is around them."""

from __future__ import annotations

from typing import Any

import pytest

from stemflow import Canvas, OptionError, Stemflow, TaskRegistry
from stemflow.runtime.tasks.context import Reject


@pytest.fixture
def calls(registry: TaskRegistry) -> list[str]:
    found: list[str] = []

    @registry.task("give")
    async def give(value: Any, name: str = "give") -> Any:
        found.append(name)
        return value

    @registry.task("bad")
    async def bad(value: Any = None) -> None:
        found.append("bad")
        raise Reject("no")

    return found


async def ended(app: Stemflow, tree: Any) -> Any:
    return await (await app.submit(tree)).wait(timeout=60)


@pytest.mark.parametrize(("value", "runs"), [(200, True), (50, False)])
@pytest.mark.parametrize("composite", [False, True])
async def test_what_has_a_condition_is_skipped_unless_it_holds(
    app: Stemflow, calls: list[str], value: int, runs: bool, composite: bool
) -> None:
    step: Any = Canvas.task("give", name="alert")
    step = Canvas.group(step, step) if composite else step
    result = await ended(app, Canvas.chain(Canvas.task("give", value), step.with_when("prev > 100")))
    assert result.status == ("succeeded" if runs else "skipped")
    assert calls.count("alert") == runs * (1 + composite)


async def test_a_condition_reads_the_item_of_a_map(app: Stemflow, calls: list[str]) -> None:
    each = Canvas.chain(Canvas.task("give")).with_when("item != 2 and index < 3")
    assert (await ended(app, Canvas.map(each, [1, 2, 3, 4]))).value == [1, None, 3, None]


@pytest.mark.parametrize(
    ("policy", "status", "after"),
    [("continue", "succeeded", True), ("skip_dependents", "skipped", False), ("fail", "failed", False)],
)
async def test_a_failure_of_a_composite_does_what_it_says(
    app: Stemflow, calls: list[str], policy: Any, status: str, after: bool
) -> None:
    failing = Canvas.group(Canvas.task("bad")).with_on_error(policy)
    result = await ended(app, Canvas.chain(failing, Canvas.task("give", name="after")))
    assert result.status == status and ("after" in calls) == after
    if after:
        assert result.value is None


async def test_what_is_no_condition_or_policy_is_refused(app: Stemflow, calls: list[str]) -> None:
    step = Canvas.task("give", 1)
    with pytest.raises(OptionError, match=r"\[1\]: when: "):
        await app.submit(Canvas.chain(step, step.with_when("prev >")))
    with pytest.raises(OptionError, match="the canvas: when: "):
        await app.submit(Canvas.group(step).with_when("nothing"))
    with pytest.raises(OptionError, match="with_when: expected an expression"):
        step.with_when(True)  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="with_on_error: expected fail or continue"):
        step.with_on_error("ignore")  # type: ignore[arg-type]
