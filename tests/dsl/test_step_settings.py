"""The checker on `defaults.tasks`, `labels`, `env` and `returns`, and how they are exported."""

from __future__ import annotations

import os

import pytest

from stemflow.dsl import parse_workflow
from stemflow.dsl.export import to_yaml
from stemflow.runtime.attempt.process_main import environment
from tests.dsl.checked import check, step, told

RETURNS = "returns: {type: object, properties: {id: {type: string}, lines: {type: array, items: {type: integer}}}}"


@pytest.mark.parametrize(
    ("body", "code", "mark"),
    [
        ("defaults: {tasks: {od.*: {queue: x}}}\nsteps:\n  a: {task: do}\n", "SF709", "od.*"),
        ("defaults: {tasks: {dd: {queue: x}}}\nsteps:\n  a: {task: do}\n", "SF709", "dd"),
        ("defaults: {tasks: {do: {}}}\nsteps:\n  a: {task: do}\n", "SF011", "{}"),
        ("defaults: {tasks: {do: {when: x}}}\nsteps:\n  a: {task: do}\n", "SF010", "when"),
        ("defaults: {tasks: {do: {args: {count: x}}}}\nsteps:\n  a: {task: do}\n", "SF304", "a"),
        ("defaults: {tasks: {do: {args: {what: '${{ steps.a }}'}}}}\nsteps:\n  a: {task: do}\n", "SF204", "steps"),
        (step("{task: do, labels: {a: 1}}"), "SF011", "1"),
        (step("{task: do, labels: {a: '${{ run.id }}'}}"), "SF203", "'${{ run.id }}'"),
        (step("{task: do, env: {a-b: x}}"), "SF012", "a-b"),
        (step("{task: do, env: {A: '${{ steps.c.output }}'}}"), "SF104", "steps.c.output"),
        (step("{group: [{task: do}], env: {A: b}}"), "SF014", "env"),
        (step("{wait: {for: 1s}, returns: {type: array}}"), "SF014", "returns"),
        (step("{task: do, returns: {type: text}}"), "SF011", "text"),
        (step("{task: do, returns: {type: string, minLength: 3, maxLength: 1}}"), "SF305", "3"),
    ],
)
def test_a_fault_in_a_setting_is_found_on_its_part(body: str, code: str, mark: str) -> None:
    assert told(check(body, tasks=True)) == [(code, mark)]


@pytest.mark.parametrize(
    ("read", "code"),
    [
        ("steps.a.output.id", None),
        ("steps.a.output.lines[0]", None),
        ("steps.a.output.ids", "SF307"),
        ("steps.a.output.id + 1", "SF216"),
        ("upper(steps.a.output.lines)", "SF220"),
    ],
)
def test_expressions_are_checked_against_the_declared_result(read: str, code: str | None) -> None:
    body = f"steps:\n  a: {{task: do, {RETURNS}}}\n  b: {{task: do, args: {{what: '${{{{ {read} }}}}'}}}}\n"
    assert [one.code for one in check(body).found] == ([] if code is None else [code])


def test_settings_are_written_into_an_exported_file() -> None:
    text = (
        'stemflow: "1"\nname: x\ndefaults:\n  tasks:\n    do: {args: {what: 1}, env: {A: b}, retry: {max: 2}}\n'
        f"steps:\n  a: {{task: do, {RETURNS}, labels: {{team: x}}}}\n"
    )
    flow = parse_workflow(text, "x.yaml").workflow
    assert flow is not None
    written = to_yaml(flow)
    assert "team: x" in written and "A: b" in written and "returns:" in written and "what: 1" in written


def test_a_process_has_the_variables_of_a_task_only_while_it_runs() -> None:
    os.environ["STEMFLOW_KEPT"] = "before"
    try:
        with environment({"STEMFLOW_KEPT": "during", "STEMFLOW_NEW": "x"}):
            assert (os.environ["STEMFLOW_KEPT"], os.environ["STEMFLOW_NEW"]) == ("during", "x")
        assert os.environ["STEMFLOW_KEPT"] == "before" and "STEMFLOW_NEW" not in os.environ
    finally:
        del os.environ["STEMFLOW_KEPT"]
