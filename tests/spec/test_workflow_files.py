"""Workflow files from a program: the same file, checks and inputs as on the command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from stemflow import InvalidInputs, InvalidWorkflow, Stemflow, TaskRegistry, load_workflow

FILE = """\
stemflow: "1"
name: greeting
inputs:
  name: {type: string, minLength: 1}
  times: {type: integer, default: 2}
steps:
  say: {task: say, args: {name: "${{ inputs.name }}", times: "${{ inputs.times }}"}}
outputs: {said: "${{ steps.say.output }}"}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "greeting.yaml"
    path.write_text(FILE, "utf-8")
    return path


@pytest.fixture(autouse=True)
def say(registry: TaskRegistry) -> None:
    @registry.task("say")
    async def say(name: str, times: int) -> str:
        return name * times


async def test_a_file_runs_from_a_program_with_its_defaults_filled_in(app: Stemflow, file: Path) -> None:
    assert await app.run(load_workflow(file), inputs={"name": "ho"}) == {"said": "hoho"}


async def test_inputs_that_do_not_fit_are_refused_all_at_once_and_nothing_is_stored(app: Stemflow, file: Path) -> None:
    with pytest.raises(InvalidInputs) as refused:
        await app.submit(load_workflow(file), inputs={"name": "", "tmies": 3})
    assert refused.value.messages == [
        "inputs.name: expected a text that is not empty, got the text ''",
        "inputs.tmies: there is no such input; did you mean `times`?",
    ]
    assert await app.store.runs(10) == []


def test_all_errors_of_a_file_are_reported_with_their_places(file: Path) -> None:
    file.write_text(FILE.replace("task: say", "tsak: say").replace("inputs.times", "inputs.tiems"), "utf-8")
    with pytest.raises(InvalidWorkflow) as invalid:
        load_workflow(file)
    assert [one.line for one in invalid.value.diagnostics] == sorted(one.line for one in invalid.value.diagnostics)
    assert str(invalid.value).startswith(f"{file}:7:")


def test_unknown_tasks_are_found_when_a_registry_is_given(file: Path) -> None:
    with pytest.raises(InvalidWorkflow, match="SF401"):
        load_workflow(file, known_tasks=TaskRegistry())
