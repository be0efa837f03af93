"""A retry policy that is a list: the first rule that fits the error, with a number of retries of its own."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from stemflow import InvalidWorkflow, OptionError, RetryPolicy, Stemflow, TaskRegistry, load_workflow


class Busy(Exception):
    """An error with data."""

    def __init__(self, status: int) -> None:
        super().__init__(f"status {status}")
        self.status = status

    def error_data(self) -> Any:
        return {"status": self.status}


Raised = list[tuple[float, str]]


@pytest.fixture
def raised(registry: TaskRegistry) -> Raised:
    """When which error was raised; `play` raises one error after the other, then gives how many there were."""
    found: Raised = []
    left: list[BaseException] = []

    @registry.task("play")
    async def play(errors: list[str]) -> int:
        if not found:
            left.extend(_error(one) for one in errors)
        found.append((asyncio.get_running_loop().time(), errors[len(found)] if len(found) < len(errors) else ""))
        if left:
            raise left.pop(0)
        return len(errors)

    return found


def _error(name: str) -> BaseException:
    if name.isdigit():
        return Busy(int(name))
    return {"io": OSError("down"), "key": KeyError("k"), "value": ValueError("v")}[name]


def delays(raised: Raised) -> list[int]:
    return [round(later[0] - earlier[0]) for earlier, later in pairwise(raised)]


RULES = [
    RetryPolicy.of(retry_on=OSError, max_retries=2, backoff="fixed", initial="10s", jitter=0),
    RetryPolicy.of(when="error.data.status == 429", max_retries=3, backoff="linear", initial="30s", factor=1, jitter=0),
    RetryPolicy.of(retry_on="ValueError", max_retries=1, backoff="fixed", initial="1s", jitter=0),
]


async def ended(app: Stemflow, registry: TaskRegistry, errors: list[str], **options: Any) -> Any:
    task = registry.get("play")
    assert task is not None
    return await (await app.submit(task.with_options(retry=RULES, **options).s(errors))).wait(timeout=10_000)


async def test_each_rule_has_its_own_counter_and_delays(app: Stemflow, registry: TaskRegistry, raised: Raised) -> None:
    errors = ["io", "429", "io", "429", "value"]
    result = await ended(app, registry, errors)
    assert result.status == "succeeded" and result.value == 5
    assert delays(raised) == [10, 30, 10, 60, 1]


@pytest.mark.parametrize(
    ("errors", "attempts"),
    [(["io", "io", "io"], 3), (["value", "io", "value"], 3), (["key"], 1), (["500"], 1), (["429"] * 4, 4)],
)
async def test_a_rule_that_is_used_up_and_an_error_that_none_fits_end_the_task(
    app: Stemflow, registry: TaskRegistry, raised: Raised, errors: list[str], attempts: int
) -> None:
    result = await ended(app, registry, errors)
    assert result.status == "failed" and len(raised) == attempts


async def test_a_number_at_the_call_limits_the_list(app: Stemflow, registry: TaskRegistry, raised: Raised) -> None:
    result = await ended(app, registry, ["io", "429", "io"], max_retries=1)
    assert result.status == "failed" and len(raised) == 2


async def test_a_file_has_rules_that_replace_its_defaults(
    app: Stemflow, raised: Raised, registry: TaskRegistry, tmp_path: Path
) -> None:
    file = tmp_path / "flow.yaml"
    file.write_text("""
stemflow: "1"
name: rules
defaults: {task: {retry: {max: 9, retry_on: [KeyError]}}}
steps:
  play:
    task: play
    args: {errors: [io, "429"]}
    retry:
      - {on: [OSError], max: 1, backoff: {kind: fixed, initial: 5s, jitter: 0}}
      - {when: error.data.status == 429, max: 1, backoff: {kind: fixed, initial: 7s, jitter: 0}}
""")
    result = await (await app.submit(load_workflow(file))).wait(timeout=1_000)
    assert result.status == "succeeded" and delays(raised) == [5, 7]


@pytest.mark.parametrize(
    ("retry", "code"),
    [("[{on: [OSError]}]", "SF015"), ("[]", "SF011"), ("[{max: 1, retry_on: [X]}]", "SF010"),
     ("[{max: 1, when: vars.x}]", "SF204")],
)  # fmt: skip
def test_a_rule_that_cannot_be_read_is_refused(tmp_path: Path, retry: str, code: str) -> None:
    file = tmp_path / "flow.yaml"
    file.write_text(f'stemflow: "1"\nname: refused\nsteps: {{a: {{task: play, retry: {retry}}}}}\n')
    with pytest.raises(InvalidWorkflow) as refused:
        load_workflow(file)
    assert code in [one.code for one in refused.value.diagnostics]


def test_each_rule_of_a_program_says_how_many_retries_it_allows(registry: TaskRegistry) -> None:
    with pytest.raises(OptionError, match="policy 2: expected max_retries"):
        registry.task("bad", retry=[RULES[0], RetryPolicy.of(retry_on=KeyError)])(lambda: None)


@pytest.mark.parametrize(
    ("when", "attempts"),
    [
        ("attempt < 2", 3), ("elapsed < 15", 3), ("args.errors[1] == 'io' and attempt == 0", 2),
        ("inputs.patience > attempt", 2), ("attempt < 9 and error.type == 'OSError'", 4), ("args.none == 1", 1),
    ],
)  # fmt: skip
async def test_a_condition_reads_the_attempt_the_time_the_arguments_and_the_inputs(
    app: Stemflow, raised: Raised, tmp_path: Path, when: str, attempts: int
) -> None:
    file = tmp_path / "flow.yaml"
    file.write_text(f"""
stemflow: "1"
name: conditions
inputs: {{patience: {{type: integer, default: 1}}}}
steps:
  play:
    task: play
    args: {{errors: [io, io, io, key]}}
    retry: {{max: 9, when: "{when}", backoff: {{kind: fixed, initial: 10s, jitter: 0}}}}
""")
    result = await (await app.submit(load_workflow(file))).wait(timeout=1_000)
    assert result.status == "failed" and len(raised) == attempts


async def test_a_condition_of_a_program_reads_arguments_by_name(
    app: Stemflow, registry: TaskRegistry, raised: Raised
) -> None:
    policy = RetryPolicy.of(when="args.errors[0] == 'io' and attempt < 1", jitter=0)
    task = registry.get("play")
    assert task is not None
    handle = await app.submit(task.with_options(retry=policy, max_retries=5).s(["io", "io", "io"]))
    assert (await handle.wait(timeout=1_000)).status == "failed" and len(raised) == 2
