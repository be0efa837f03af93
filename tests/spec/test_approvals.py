"""Steps that wait for a person."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from stemflow import (
    Canvas,
    InvalidInputs,
    InvalidWorkflow,
    NotWaiting,
    OptionError,
    Stemflow,
    TaskRegistry,
    UnknownRun,
    load_workflow,
)
from tests.spec.conftest import OpenApp
from tests.spec.test_events import until

FILE = """\
stemflow: "1"
name: release
inputs: {version: {type: string, default: "7"}}
steps:
  agreed:
    approval:
      by: [ann, bob]
      message: "Release ${{ inputs.version }}?"
      inputs: {percent: {type: integer, maximum: 100, default: 10}}
  told: {set: {who: "${{ steps.agreed.output.by }}", percent: "${{ steps.agreed.output.inputs.percent }}"}}
outputs: {told: "${{ steps.told.output }}", note: "${{ steps.agreed.output.note }}"}
"""


def loaded(folder: Path, text: str) -> Any:
    path = folder / "approval.yaml"
    path.write_text(text, "utf-8")
    return load_workflow(path)


async def waiting(app: Stemflow, what: Any, step: str) -> Any:
    handle = await app.submit(what)
    await until(app, handle.id, step)
    return handle


async def test_an_approval_is_listed_checked_and_gives_its_value(
    app: Stemflow, open_app: OpenApp, tmp_path: Path
) -> None:
    other = await open_app(TaskRegistry(), worker=False)
    handle = await waiting(app, loaded(tmp_path, FILE), "agreed")
    (found,) = await other.approvals()
    assert (found.run_id, found.name, found.step, found.by) == (handle.id, "release", "agreed", ("ann", "bob"))
    assert found.message == "Release 7?" and found.until_ms is None and "percent" in found.inputs
    with pytest.raises(OptionError, match="expected an answer by ann or bob, got one by 'eve'"):
        await other.approve(handle.id, "agreed", by="eve")
    with pytest.raises(InvalidInputs, match="percent"):
        await other.approve(handle.id, "agreed", by="ann", inputs={"percent": 101})
    assert (await other.approvals(handle.id)) == [found]
    await other.approve(handle.id, "agreed", by="ann", note="go", inputs={"percent": 50})
    value = (await handle.wait(timeout=30)).required()
    assert value == {"told": {"who": "ann", "percent": 50}, "note": "go"}
    assert await other.approvals() == await other.approvals(handle.id) == []


async def test_the_first_answer_counts_and_repeating_it_changes_nothing(app: Stemflow) -> None:
    handle = await waiting(app, Canvas.chain(Canvas.approval(), Canvas.wait("1h")), "[0]")
    await app.approve(handle.id, "[0]", by="ann")
    await app.approve(handle.id, "[0]", by="ann", note="again")
    with pytest.raises(NotWaiting, match="it was approved by ann at "):
        await app.reject(handle.id, "[0]", by="bob")
    assert (await handle.value_of("[0]"))["note"] == ""


async def test_a_rejected_step_fails_unless_it_says_otherwise(app: Stemflow) -> None:
    handle = await waiting(app, Canvas.chain(Canvas.approval()), "[0]")
    await app.reject(handle.id, "[0]", by="ann", note="too soon")
    await app.reject(handle.id, "[0]", by="ann")
    error = (await handle.wait(timeout=30)).error
    assert error is not None and (error.type, error.message) == ("Rejected", "rejected by ann: too soon")
    assert error.data == {"by": "ann", "note": "too soon"}
    with pytest.raises(NotWaiting, match="it has failed: rejected by ann"):
        await app.approve(handle.id, "[0]", by="ann")
    other = await waiting(app, Canvas.approval(on_reject="continue"), "")
    await app.reject(other.id, "", by="bob", note="no")
    value = (await other.wait(timeout=30)).required()
    assert (value["approved"], value["by"], value["note"], value["inputs"]) == (False, "bob", "no", {})


@pytest.mark.parametrize(
    ("on_timeout", "status", "error", "approved"),
    [
        ("fail", "failed", "TaskTimeout", None),
        ("reject", "failed", "Rejected", None),
        ("approve", "succeeded", None, True),
        ("skip", "skipped", None, None),
    ],
)
async def test_what_follows_when_nobody_answers(
    app: Stemflow, on_timeout: Any, status: str, error: str | None, approved: bool | None
) -> None:
    handle = await app.submit(Canvas.chain(Canvas.approval(timeout="10s", on_timeout=on_timeout)))
    result = await handle.wait(timeout=60)
    assert result.status == status and (result.error and result.error.type) == error
    if approved:
        assert result.value["approved"] and result.value["by"] is None
        assert result.value["note"] == "nobody answered in time"


async def test_what_does_not_wait_cannot_be_answered(app: Stemflow) -> None:
    handle = await waiting(app, Canvas.chain(Canvas.approval(), Canvas.approval(), Canvas.wait(1)), "[0]")
    with pytest.raises(UnknownRun):
        await app.approve("nothing", "a", by="ann")
    with pytest.raises(NotWaiting, match=r"expected a step that waits for an answer; \[0\] of this run does"):
        await app.approve(handle.id, "[1]", by="ann")
    with pytest.raises(OptionError, match="by: expected a text"):
        await app.approve(handle.id, "[0]", by="")
    with pytest.raises(OptionError, match="expected no inputs"):
        await app.approve(handle.id, "[0]", by="ann", inputs={"x": 1})
    await app.approve(handle.id, "[0]", by="ann")
    await app.approve(handle.id, "[1]", by="ann")
    await until(app, handle.id, "[2]")
    with pytest.raises(NotWaiting, match="another kind"):
        await app.approve(handle.id, "[2]", by="ann")


async def test_cancel_and_the_timeout_of_a_scope_around_end_it(app: Stemflow) -> None:
    handle = await waiting(app, Canvas.approval(), "")
    await handle.cancel()
    with pytest.raises(NotWaiting, match="it is cancelled"):
        await app.approve(handle.id, "", by="ann")
    late = await app.submit(Canvas.chain(Canvas.approval()).with_timeout("5s"))
    assert (await late.wait(timeout=60)).status == "failed"


async def test_one_of_two_that_answer_at_once_is_refused(app: Stemflow, open_app: OpenApp) -> None:
    other = await open_app(TaskRegistry(), worker=False)
    handle = await waiting(app, Canvas.chain(Canvas.approval(), Canvas.wait("1h")), "[0]")
    done = await asyncio.gather(
        app.approve(handle.id, "[0]", by="ann"), other.reject(handle.id, "[0]", by="bob"), return_exceptions=True
    )
    assert [one for one in done if one is not None] and any(one is None for one in done)


async def test_a_rerun_keeps_an_approval(app: Stemflow, registry: TaskRegistry) -> None:
    @registry.task("flaky")
    async def flaky(value: Any) -> Any:
        if len(calls := registry_calls.setdefault("n", [])) == 0:
            calls.append(1)
            raise ValueError("no")
        return value["by"]

    registry_calls: dict[str, list[int]] = {}
    handle = await waiting(app, Canvas.chain(Canvas.approval(), Canvas.task("flaky")), "[0]")
    await app.approve(handle.id, "[0]", by="ann")
    assert (await handle.wait(timeout=30)).status == "failed"
    assert (await (await app.rerun(handle.id, failed=True)).wait(timeout=30)).required() == "ann"


@pytest.mark.parametrize(
    ("step", "code"),
    [
        ("approval: {who: ann}", "SF010"),
        ("approval: {by: [1]}", "SF011"),
        ("approval: {on_timeout: reject}", "SF015"),
        ("approval: {inputs: {n: {type: integer, default: x}}}", "SF301"),
        ("approval: {message: '${{ nobody }}'}", "SF204"),
    ],
)
def test_a_mistake_is_a_finding(tmp_path: Path, step: str, code: str) -> None:
    with pytest.raises(InvalidWorkflow) as refused:
        loaded(tmp_path, f'stemflow: "1"\nname: x\nsteps:\n  a:\n    {step}\n')
    assert code in [one.code for one in refused.value.diagnostics]
