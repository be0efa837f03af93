"""`defaults.tasks`, `labels`, `env` and `returns` of steps in workflow files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from stemflow import RunFailed, Stemflow, TaskContext, TaskRegistry, load_workflow
from stemflow.runtime.client.run_list import RunQuery, list_runs
from tests.spec.conftest import OpenApp

HEAD = 'stemflow: "1"\nname: settings\n'


@pytest.fixture(params=["memory"])
def url(request: pytest.FixtureRequest) -> str:
    return "memory:"


@pytest.fixture(autouse=True)
def tasks(registry: TaskRegistry) -> None:
    @registry.task("psp.charge", max_retries=1)
    async def charge(context: TaskContext, amount: int = 0, region: str = "", currency: str = "") -> Any:
        return {"amount": amount, "region": region, "currency": currency, "queue": context.queue,
                "retries": context.max_retries, "env": dict(context.env), "labels": dict(context.labels)}  # fmt: skip

    @registry.task("give", max_retries=3)
    async def give(context: TaskContext, value: Any = None) -> Any:
        calls.append(context.attempt)
        return value

    calls: list[int] = []
    registry.calls = calls  # type: ignore[attr-defined]


def loaded(folder: Path, text: str) -> Any:
    path = folder / "settings.yaml"
    path.write_text(HEAD + text, "utf-8")
    return load_workflow(path)


async def test_what_is_said_of_a_task_goes_before_what_is_said_of_a_prefix_and_of_all(
    app: Stemflow, tmp_path: Path
) -> None:
    flow = loaded(tmp_path, """\
inputs: {region: {type: string, default: eu}}
defaults:
  task: {queue: all, retry: {max: 7}}
  tasks:
    psp.*: {queue: payments, args: {region: "${{ inputs.region }}", currency: EUR}, env: {A: "1", B: "1"}}
    psp.charge: {args: {currency: USD}, retry: {backoff: {initial: 3s}}, env: {B: "2"}}
steps:
  plain: {task: psp.charge}
  own: {task: psp.charge, queue: slow, retry: {max: 2}, args: {currency: CHF, amount: 3}, env: {A: "${{ 1 + 1 }}"}}
outputs: {plain: "${{ steps.plain.output }}", own: "${{ steps.own.output }}"}
""")  # fmt: skip
    found = await app.run(flow)
    plain, own = found["plain"], found["own"]
    assert (plain["queue"], plain["retries"], plain["region"], plain["currency"]) == ("payments", 7, "eu", "USD")
    assert (own["queue"], own["retries"], own["region"], own["currency"]) == ("slow", 2, "eu", "CHF")
    assert own["amount"] == 3
    assert plain["env"] == {"A": "1", "B": "2"} and own["env"] == {"A": "2", "B": "2"}
    plan_options = flow.body.steps[1].options["retry"]
    assert plan_options.initial_ms == 3_000, "the retry of the step completes that of the task's name"


async def test_labels_reach_the_handler_and_find_the_run(app: Stemflow, tmp_path: Path) -> None:
    flow = loaded(tmp_path, """\
labels: {team: billing, tier: gold}
steps:
  a: {task: psp.charge, labels: {tier: silver, step: a}}
  b: {group: [{task: give}], labels: {part: "2"}}
outputs: {a: "${{ steps.a.output.labels }}"}
""")  # fmt: skip
    found = await app.run(flow)
    assert found["a"] == {"team": "billing", "tier": "silver", "step": "a"}

    async def listed(name: str, value: str) -> int:
        return len((await list_runs(app.store, RunQuery(labels={name: value}), 10)).runs)

    assert await listed("team", "billing") == await listed("step", "a") == await listed("part", "2") == 1
    assert await listed("tier", "silver") == 1 and await listed("step", "b") == 0


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("{id: 1}", "result of give.id: expected"),
        ("{}", "result of give: expected the key `id`, got none"),
        ("null", "result: expected a mapping, got nothing (null)"),
    ],
)
async def test_a_result_that_does_not_fit_fails_the_task_without_a_retry(
    app: Stemflow, registry: TaskRegistry, tmp_path: Path, value: str, said: str
) -> None:
    flow = loaded(tmp_path, f"""\
steps:
  a:
    task: give
    args: {{value: {value}}}
    returns: {{type: object, required: [id], properties: {{id: {{type: string}}}}}}
""")  # fmt: skip
    with pytest.raises(RunFailed) as caught:
        await app.run(flow)
    assert caught.value.error is not None and caught.value.error.type == "ResultMismatch"
    assert caught.value.error.message.startswith(said)
    assert registry.calls == [0]  # type: ignore[attr-defined]


async def test_a_result_that_fits_is_given_on(app: Stemflow, tmp_path: Path) -> None:
    returns = "returns: {type: array, items: {type: integer}}"
    flow = loaded(tmp_path, f"chain: [{{task: give, args: {{value: [1]}}, {returns}}}]\n")
    assert await app.run(flow) == [1]


async def test_a_step_with_a_label_is_not_merged_into_the_group_around_it(open_app: OpenApp, tmp_path: Path) -> None:
    flow = loaded(tmp_path, """\
chord:
  group: [{group: [{task: give, args: {value: 1}}], labels: {kept: "yes"}}]
  then: {task: give, args: {value: "${{ results }}"}}
""")  # fmt: skip
    app = await open_app()
    assert await app.run(flow) == [[1]]
