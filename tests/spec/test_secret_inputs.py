"""Inputs with `secret: true`: a run is given where workers find their values, and no value is stored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from stemflow import InvalidInputs, Stemflow, TaskContext, TaskRegistry, load_workflow
from stemflow.cli.test.rehearse import rehearse
from stemflow.dsl import parse_workflow
from tests.dsl.checked import check, told
from tests.spec.test_secrets import everything

VALUE = "hunter2-and-long-enough"
CHILD = """\
stemflow: "1"
name: child
inputs: {key: {secret: true}}
steps: {call: {task: use, args: {token: "${{ inputs.key }}"}}}
outputs: {said: "${{ steps.call.output.said }}"}
"""
FILE = """\
stemflow: "1"
name: secretive
inputs:
  token: {type: string, secret: true}
  spare: {secret: true, default: {vault: spare}}
steps:
  use:
    task: use
    args: {token: "Bearer ${{ inputs.token }}", all: "${{ inputs }}"}
    env: {SPARE: "${{ inputs.spare }}"}
    unique: {key: "${{ args.token }}"}
  called:
    workflow: {ref: ./child.yaml, inputs: {key: "${{ inputs.token }}"}}
outputs: {use: "${{ steps.use.output }}", called: "${{ steps.called.output.said }}"}
"""


@pytest.fixture
def seen(registry: TaskRegistry, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    monkeypatch.setenv("SPEC_INPUT", VALUE)
    seen: list[Any] = []

    @registry.secret_provider("vault")
    def vault(key: str) -> str:
        return f"from-the-vault-{key}"

    @registry.task("use")
    async def use(context: TaskContext, token: str, all: Any = None) -> Any:
        seen.append((token, all, dict(context.env)))
        return {"said": token, "all": all}

    return seen


def loaded(folder: Path) -> Any:
    (folder / "child.yaml").write_text(CHILD, "utf-8")
    (folder / "flow.yaml").write_text(FILE, "utf-8")
    return load_workflow(folder / "flow.yaml")


async def test_tasks_get_the_value_and_the_store_its_place(
    app: Stemflow, seen: list[Any], tmp_path: Path, url: str
) -> None:
    found = await app.run(loaded(tmp_path), inputs={"token": {"env": "SPEC_INPUT"}})
    both = {"token": VALUE, "spare": "from-the-vault-spare"}
    assert sorted(seen, key=repr) == [(f"Bearer {VALUE}", both, {"SPARE": both["spare"]}), (VALUE, None, {})]
    hidden = {"token": "***", "spare": "***"}
    assert found == {"use": {"said": "Bearer ***", "all": hidden}, "called": "***"}
    kept = everything(app.store, tmp_path, url)
    assert VALUE.encode() not in kept and both["spare"].encode() not in kept and b"SPEC_INPUT" in kept


@pytest.mark.parametrize("given", [VALUE, 7, {}, {"env": ""}, {"env": "A", "file": "b"}, {"env": {"a": VALUE}}])
async def test_a_value_in_place_of_its_place_is_refused_and_not_shown(
    app: Stemflow, seen: list[Any], tmp_path: Path, given: Any
) -> None:
    with pytest.raises(InvalidInputs) as refused:
        await app.submit(loaded(tmp_path), inputs={"token": given})
    assert str(refused.value) == (
        "inputs.token: it is secret, so expected where workers find its value, such as {env: NAME}, got something else"
    )


async def test_a_secret_input_without_a_value_fails_the_attempt(
    app: Stemflow, seen: list[Any], tmp_path: Path
) -> None:
    handle = await app.submit(loaded(tmp_path), inputs={"token": {"env": "SPEC_NONE"}})
    error = (await handle.wait()).error
    assert error is not None and error.type == "SecretUnavailable"
    assert error.message.removeprefix("inputs.").partition(":")[0] in ("token", "key")
    assert error.message.endswith(": expected the environment variable SPEC_NONE in the worker, found none")


INPUTS = "inputs: {token: {secret: true}}\n"
READ = "'${{ inputs.token }}'"


@pytest.mark.parametrize(
    ("body", "found"),
    [
        (f"steps:\n  a: {{task: do, args: {{what: {READ}}}}}\n", []),
        (f"steps:\n  a: {{task: do, env: {{A: {READ}}}}}\n", []),
        ("steps:\n  a: {task: do, args: {count: '${{ inputs.token + 1 }}'}}\n", [("SF216", "inputs.token + 1")]),
        (f"steps:\n  a: {{task: do}}\noutputs: {{t: {READ}}}\n", [("SF605", "inputs.token")]),
        (f"unique: {{key: {READ}}}\nsteps:\n  a: {{task: do}}\n", [("SF605", "inputs.token")]),
        (f"steps:\n  a: {{set: {{t: {READ}}}}}\n", [("SF605", "inputs.token")]),
        (f"steps:\n  a: {{emit: {{type: x, data: {READ}}}}}\n", [("SF605", "inputs.token")]),
        ("steps:\n  a: {task: do, when: inputs.token == 'x'}\n", [("SF605", "inputs.token")]),
        ("steps:\n  a: {task: do, retry: {max: 1, when: inputs.token == 'x'}}\n", [("SF605", "inputs.token")]),
        (f"templates: {{t: {{params: {{p: {{type: string}}}}, do: {{set: {{v: '${{{{ params.p }}}}'}}}}}}}}\n"
         f"steps:\n  a: {{template: t, args: {{p: {READ}}}}}\n", [("SF605", "inputs.token")]),
    ],
)  # fmt: skip
def test_a_secret_input_is_read_only_where_it_is_not_stored(body: str, found: list[tuple[str, str]]) -> None:
    assert told(check(INPUTS + body)) == found


@pytest.mark.parametrize(
    ("schema", "code"),
    [
        ("{secret: true, default: hunter2}", "SF301"),
        ("{secret: true, minLength: 3}", "SF607"),
        ("{secret: true, type: integer}", "SF607"),
        ("{type: object, properties: {a: {secret: true}}}", "SF010"),
        ("{secret: false}", "SF011"),
    ],
)
def test_a_secret_input_is_a_text_of_the_file(schema: str, code: str) -> None:
    body = f"inputs: {{a: {schema}}}\nsteps:\n  a: {{task: do, args: {{what: '${{{{ inputs.a }}}}'}}}}\n"
    assert [one for one, _ in told(check(body))] == [code]


@pytest.mark.parametrize(
    ("given", "codes"), [("{env: TOKEN}", []), ("hunter2", ["SF533"]), ("'${{ tick.at }}'", ["SF533"])]
)
def test_a_schedule_gives_the_place_of_a_secret_input(given: str, codes: list[str]) -> None:
    body = f"on: {{schedule: {{daily: {{cron: 0 3 * * *, timezone: UTC, inputs: {{token: {given}}}}}}}}}\n"
    body += f"steps:\n  a: {{task: do, args: {{what: {READ}}}}}\n"
    assert [one for one, _ in told(check(INPUTS + body))] == codes


def test_only_a_secret_input_of_a_called_workflow_is_given_one(tmp_path: Path) -> None:
    (tmp_path / "child.yaml").write_text(CHILD.replace("secret: true", "type: string"), "utf-8")
    (tmp_path / "flow.yaml").write_text(FILE, "utf-8")
    with pytest.raises(Exception, match="SF605"):
        load_workflow(tmp_path / "flow.yaml")


def test_a_test_case_says_any_place() -> None:
    text = f"""stemflow: "1"
name: x
{INPUTS}steps:
  a: {{task: do, args: {{what: {READ}}}}}
tests:
  one:
    inputs: {{token: {{env: ANY}}}}
    mocks: {{do: {{value: 1}}}}
    expect: {{state: succeeded}}
"""
    parsed = parse_workflow(text, "x")
    assert parsed.workflow is not None
    outcome = rehearse(parsed.workflow, parsed.cases[0], None)
    assert [dict(call.kwargs) for call in outcome.calls] == [{"what": "secret:inputs.token"}]
