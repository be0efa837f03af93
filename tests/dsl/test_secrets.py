"""The checker on `secrets`: where they may be read, and that they are declared."""

from __future__ import annotations

import pytest

from stemflow.cli.test.rehearse import rehearse
from stemflow.dsl import parse_workflow
from stemflow.dsl.export import to_yaml
from tests.dsl.checked import check, told

SECRETS = "secrets: {token: {env: TOKEN}, key: {vault: kv/key}}\n"
UNDO = "on_failure: {compensate: true}\n"
READ = "'${{ secrets.token }}'"


@pytest.mark.parametrize(
    ("body", "code", "mark"),
    [
        (f"steps:\n  a: {{task: do, args: {{what: {READ}}}}}\n", None, ""),
        (f"steps:\n  a: {{task: do, env: {{A: {READ}}}}}\n", None, ""),
        (f"defaults: {{tasks: {{do: {{args: {{what: {READ}}}}}}}}}\nsteps:\n  a: {{task: do}}\n", None, ""),
        (f"steps:\n  a: {{task: do, compensate: {{task: do, args: {{what: {READ}}}}}}}\n{UNDO}", None, ""),
        ("steps:\n  a: {task: do, args: {what: '${{ secrets.tokn }}'}}\n", "SF606", "secrets.tokn"),
        (f"steps:\n  a: {{task: do}}\noutputs: {{t: {READ}}}\n", "SF605", "secrets"),
        (f"unique: {{key: {READ}}}\nsteps:\n  a: {{task: do}}\n", "SF605", "secrets"),
        (f"steps:\n  a: {{task: do, unique: {{key: {READ}}}}}\n", "SF605", "secrets"),
        (f"steps:\n  a: {{task: do, concurrency: {{key: {READ}}}}}\n", "SF605", "secrets"),
        (f"steps:\n  a: {{task: do, rate_limit: {{rate: 1/s, key: {READ}}}}}\n", "SF605", "secrets"),
        (f"steps:\n  a: {{task: do, cache: {{ttl: 1h, key: {READ}}}}}\n", "SF605", "secrets"),
        (f"steps:\n  a: {{set: {{t: {READ}}}}}\n", "SF605", "secrets"),
        (f"steps:\n  a: {{fail: {READ}}}\n", "SF605", "secrets"),
        (f"steps:\n  a: {{emit: {{type: x, data: {READ}}}}}\n", "SF605", "secrets"),
        ("steps:\n  a: {task: do, when: secrets.token == 'x'}\n", "SF605", "secrets"),
        ("steps:\n  a: {map: {items: '[secrets.token]', do: {task: do}}}\n", "SF605", "secrets"),
        (f"steps:\n  a: {{task: do, labels: {{a: {READ}}}}}\n", "SF203", READ),
    ],
)
def test_a_secret_is_read_only_where_it_is_not_stored(body: str, code: str | None, mark: str) -> None:
    assert told(check(SECRETS + body)) == ([] if code is None else [(code, mark)])


def test_a_template_passes_a_secret_on_to_arguments_only() -> None:
    text = (
        "templates:\n"
        "  good: {params: {t: {type: string}}, do: {task: do, args: {what: 'Bearer ${{ params.t }}'}}}\n"
        "  bad: {params: {t: {type: string}}, do: {set: {t: '${{ params.t }}'}}}\n"
    )
    given = "args: {t: '${{ secrets.key }}'}"
    uses = f"steps:\n  a: {{template: good, {given}}}\n  b: {{template: bad, {given}}}\n"
    (found,) = check(SECRETS + text + uses).found
    assert (found.code, found.line) == ("SF605", 9)


def test_secrets_are_exported_by_their_sources() -> None:
    flow = parse_workflow('stemflow: "1"\nname: x\n' + SECRETS + "steps:\n  a: {task: do}\n", "x").workflow
    assert flow is not None
    assert "secrets: {token: {env: TOKEN}, key: {vault: kv/key}}" in to_yaml(flow)


def test_a_test_case_needs_no_values() -> None:
    text = f"""stemflow: "1"
name: x
{SECRETS}steps:
  a: {{task: do, args: {{what: {READ}}}}}
tests:
  one:
    mocks: {{do: {{value: 1}}}}
    expect: {{state: succeeded, args: {{a: {{what: "secret:token"}}}}}}
"""
    parsed = parse_workflow(text, "x")
    assert parsed.workflow is not None
    outcome = rehearse(parsed.workflow, parsed.cases[0], None)
    assert outcome.broken is None and outcome.state == "succeeded"
    assert [dict(call.kwargs) for call in outcome.calls] == [{"what": "secret:token"}]
