"""The timeout of a task that an expression gives."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from stemflow import InvalidWorkflow, Stemflow, TaskRegistry, load_workflow, to_yaml

FILE = """
stemflow: "1"
name: limits
inputs: {{patience: {{type: integer, default: 3}}}}
defaults: {{task: {{timeout: 1h}}}}
steps:
  limit: {{set: {{text: 2s}}}}
  slow: {{task: slow, timeout: {timeout}}}
"""


@pytest.fixture(autouse=True)
def tasks(registry: TaskRegistry) -> None:
    @registry.task("slow")
    async def slow() -> float:
        began = asyncio.get_running_loop().time()
        try:
            await asyncio.sleep(1_000)
        finally:
            lasted.append(round(asyncio.get_running_loop().time() - began))
        return began

    lasted: list[int] = []
    registry.lasted = lasted  # type: ignore[attr-defined]


def flow(folder: Path, timeout: str) -> Any:
    file = folder / "limits.yaml"
    file.write_text(FILE.format(timeout=timeout), "utf-8")
    return load_workflow(file)


@pytest.mark.parametrize(
    ("timeout", "lasted"),
    [
        ('"${{ inputs.patience }}s"', 3), ('"${{ steps.limit.output.text }}"', 2),
        ('{soft: 1s, hard: "${{ inputs.patience * 2 }}"}', 6),
    ],
)  # fmt: skip
async def test_a_task_is_stopped_at_the_limit_that_its_expression_gives(
    app: Stemflow, registry: TaskRegistry, tmp_path: Path, timeout: str, lasted: int
) -> None:
    result = await (await app.submit(flow(tmp_path, timeout))).wait(timeout=2_000)
    assert result.error is not None and result.error.type == "TaskTimeout"
    assert registry.lasted == [lasted]  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("timeout", "message"),
    [
        ('"${{ inputs.patience - 3 }}s"', "slow: timeout: expected a timeout above 0, got '0s'"),
        ('"${{ inputs.patience }} bananas"', "slow: timeout: expected a duration"),
        ('{soft: 4s, hard: "${{ inputs.patience }}s"}', "slow: timeout: expected the soft limit below the hard one"),
        ('"${{ [1][inputs.patience] }}"', "slow: timeout: "),
    ],
)
async def test_a_limit_that_cannot_be_fails_the_task_before_it_is_called(
    app: Stemflow, registry: TaskRegistry, tmp_path: Path, timeout: str, message: str
) -> None:
    result = await (await app.submit(flow(tmp_path, timeout))).wait(timeout=2_000)
    assert result.error is not None and message in result.error.message
    assert registry.lasted == []  # type: ignore[attr-defined]


@pytest.mark.parametrize("timeout", ['"${{ inputs.patience }}s"', '{soft: 1s, hard: "${{ inputs.patience }}s"}'])
def test_a_computed_limit_is_exported(tmp_path: Path, registry: TaskRegistry, timeout: str) -> None:
    (tmp_path / "again.yaml").write_text(to_yaml(flow(tmp_path, timeout)), "utf-8")
    assert load_workflow(tmp_path / "again.yaml").body.steps[1] == load_workflow(tmp_path / "limits.yaml").body.steps[1]


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ('defaults: {task: {timeout: "${{ inputs.n }}s"}}\nsteps: {a: {task: slow}}', "SF203"),
        ('steps: {a: {task: slow, timeout: "${{ inputs.none }}s"}}', "SF205"),
        ('steps: {a: {task: slow, timeout: {soft: "${{ inputs.n }}s", hard: 1h}}}', "SF501"),
    ],
)
def test_where_a_limit_cannot_be_computed_it_is_refused(tmp_path: Path, text: str, code: str) -> None:
    file = tmp_path / "refused.yaml"
    file.write_text(f'stemflow: "1"\nname: refused\ninputs: {{n: {{type: integer}}}}\n{text}\n', "utf-8")
    with pytest.raises(InvalidWorkflow) as refused:
        load_workflow(file)
    assert code in [one.code for one in refused.value.diagnostics]
