"""What the kinds and modifiers of a file mean as a signature."""

from __future__ import annotations

from typing import Any

import pytest

from stemflow.dsl import check_inputs
from stemflow.model.policy import Concurrency, RetryPolicy, normalise
from stemflow.model.rates import RateLimit
from stemflow.model.signature import ChordSig, GroupSig, MapSig, WaitSig
from stemflow.model.workflow import Workflow
from tests.dsl.files import codes, parse


def workflow(body: str) -> Workflow:
    parsed = parse(body)
    assert parsed.diagnostics == ()
    assert parsed.workflow is not None
    return parsed.workflow


def step(body: str) -> Any:
    return workflow(f"steps:\n  other: {{task: t}}\n  a: {body}\n").body.steps[1]  # type: ignore[union-attr]


def test_a_file_may_have_a_chain_a_group_or_a_chord_as_its_body() -> None:
    assert len(workflow("chain: [{task: a}, {task: b}]\n").body.steps) == 2  # type: ignore[union-attr]
    group = workflow("group: {l: {task: a}, r: {task: b}}\n").body
    assert isinstance(group, GroupSig)
    assert [member.name for member in group.members] == ["l", "r"]
    chord = workflow("chord: {group: [{task: a}], then: {task: b, args: {all: '${{ results }}'}}}\n").body
    assert isinstance(chord, ChordSig)
    assert chord.body.name is None


@pytest.mark.parametrize(
    ("body", "name"),
    [
        ("chain: [{task: t}]", "prev"),
        ("group: [{task: t}]", "results"),
        ("chord: {group: [], then: {task: t}}", "prev"),
    ],
)
def test_outputs_read_the_value_of_any_body(body: str, name: str) -> None:
    assert workflow(f"{body}\noutputs: {{all: '${{{{ {name} }}}}'}}\n").outputs == {"all": f"${{{{ {name} }}}}"}


def test_prev_takes_the_place_of_results() -> None:
    then = "{chain: [{task: a, args: {x: '${{ results }}'}}, {task: b, args: {x: '${{ prev }}', y: '${{ results }}'}}]}"
    (found,) = parse(f"chord: {{group: [{{task: t}}], then: {then}}}\n").diagnostics
    assert (found.code, found.message.split(";")[0]) == ("SF204", "unknown name `results`")


def test_a_group_in_a_list_has_members_without_names() -> None:
    group = step("{group: [{task: a}, {wait: {for: 10s}}], on_member_error: collect, timeout: 1m}")
    assert [member.name for member in group.members] == [None, None]
    assert (group.policy, group.timeout_ms) == ("collect", 60_000)
    assert isinstance(group.members[1], WaitSig)
    assert group.members[1].for_ms == 10_000


def test_a_map_may_run_over_a_list_in_the_file() -> None:
    found = step("{map: {items: [1, {x: 2}], do: {task: t, args: {i: '${{ item }}', n: '${{ index }}'}}}}")
    assert isinstance(found, MapSig)
    assert (found.items, found.var, found.index_var, found.window) == ((1, {"x": 2}), "item", "index", None)


@pytest.mark.parametrize(
    ("modifier", "options"),
    [
        ("timeout: 90s", {"soft_time_limit": None, "hard_time_limit": "90s"}),
        ("timeout: 2.5", {"soft_time_limit": None, "hard_time_limit": 2.5}),
        ("timeout: {soft: 5s}", {"soft_time_limit": "5s", "hard_time_limit": None}),
        ("retry: {max: 0}", {"max_retries": 0}),
        ("retry: {backoff: fixed}", {"retry": RetryPolicy.of(backoff="fixed")}),
        ("retry: {retry_on: [a.B], never_retry_on: [C]}",
         {"retry": RetryPolicy(retry_on=("a.B",), never_retry_on=("C",))}),
        ("retry: {budget: 1h, when: error.code > 3}",
         {"retry": RetryPolicy(when="error.code > 3", budget_ms=3_600_000)}),
        ("rate_limit: 5/m", {"rate_limit": (RateLimit(5, "1m"),)}),
        ("rate_limit: [5/m, {rate: 1/s, key: psp}]",
         {"rate_limit": (RateLimit(5, "1m"), RateLimit(1, "1s", "psp"))}),
        ("unique: true", {"unique": True}),
        ("unique: {key: 'k-${{ inputs }}', for: 1h, on_conflict: reject}",
         {"unique": True, "unique_by": "k-${{ inputs }}", "unique_for": "1h", "unique_mode": "reject"}),
        ("concurrency: {key: 'k-${{ args.x }}'}", {"concurrency": Concurrency("k-${{ args.x }}")}),
        ("concurrency: {key: k, limit: 3}", {"concurrency": Concurrency("k", 3)}),
        ("priority: 9, queue: slow", {"priority": 9, "queue": "slow"}),
        ("expires: 1d", {"expires": "1d"}),
    ],
)  # fmt: skip
def test_modifiers_become_task_options(modifier: str, options: dict[str, Any]) -> None:
    found = step(f"{{task: t, {modifier}}}")
    assert found.options == options
    normalise(found.options, "a")


def test_the_timeout_of_a_task_replaces_that_of_the_defaults() -> None:
    found = workflow("defaults: {task: {timeout: {soft: 20s, hard: 30s}}}\nsteps: {a: {task: t, timeout: 10s}}\n")
    task = found.body.steps[0]  # type: ignore[union-attr]
    merged = normalise(found.task_defaults, "d") | normalise(task.options, "a")
    assert (merged["soft_ms"], merged["hard_ms"]) == (None, 10_000)


def test_policies_of_a_step_are_kept() -> None:
    found = step("{task: t, when: true, needs: [other], run_on: always, on_error: skip_dependents}")
    assert (found.when, found.needs, found.run_on, found.on_error) == ("true", ("other",), "always", "skip_dependents")


def test_the_top_of_the_file_is_kept() -> None:
    found = workflow(
        'version: "2"\ndescription: d\nlabels: {team: x}\nvars: {limit: 3}\ntimeout: 1h\nfail_fast: true\n'
        "unique: {key: k, on_conflict: reject}\non_cancel: {compensate: true}\non_failure: {compensate: false}\n"
        "steps: {a: {task: t}}\n"
    )
    assert (found.version, found.description, found.labels, found.vars) == ("2", "d", {"team": "x"}, {"limit": 3})
    assert (found.timeout_ms, found.unique_mode, found.compensate_on) == (3_600_000, "reject", ("cancelled",))
    assert found.body.fail_fast is True  # type: ignore[union-attr]


def test_a_concurrency_key_may_be_set_on_the_file_its_tasks_and_its_composites() -> None:
    found = workflow(
        "concurrency: {key: run, limit: 2}\ndefaults: {task: {concurrency: {key: each}}}\n"
        "steps: {a: {chain: [{task: t}], concurrency: {key: line}}}\n"
    )
    assert found.concurrency == Concurrency("run", 2)
    assert found.task_defaults == {"concurrency": Concurrency("each")}
    assert found.body.steps[0].concurrency == Concurrency("line")  # type: ignore[union-attr]


def test_steps_may_be_shared_by_anchors() -> None:
    found = workflow("steps:\n  a: &a {task: t, args: {x: 1}}\n  b: *a\n  c: {<<: *a, task: u}\n")
    assert [(one.name, one.task) for one in found.body.steps] == [("a", "t"), ("b", "t"), ("c", "u")]  # type: ignore[union-attr]


def test_deep_nesting_of_steps_is_refused() -> None:
    body = "{chain: [" * 33 + "{task: t}" + "]}" * 33
    assert codes(parse(f"steps: {{a: {body}}}\n")) == ["SF003"]


def test_a_finding_may_be_ignored_with_a_reason() -> None:
    for text in (
        "steps:\n  a: {task: t, when: later}  # stemflow: ignore=SF204 filled in by the deployment\n",
        "steps:\n  # stemflow: ignore=SF204 filled in by the deployment\n  a: {task: t, when: later}\n",
    ):
        parsed = parse(text)
        assert parsed.diagnostics == ()
        assert parsed.workflow is not None



INPUTS = """\
inputs:
  name: {type: string, minLength: 2, pattern: "^(a+)+$"}
  size: {type: integer, minimum: 1, default: 3}
  kind: {enum: [big, small], default: big}
  tags: {type: array, items: {type: string}, default: []}
  box: {type: object, additionalProperties: false, required: [w], properties: {w: {type: number}}, default: {w: 1}}
steps: {a: {task: t}}
"""


@pytest.mark.parametrize(
    ("given", "messages"),
    [
        ({"name": "aa"}, []),
        ({}, ["inputs.name: expected a value, got none; give it, or write a default into the file"]),
        ({"name": "aa", "sise": 1}, ["inputs.sise: there is no such input; did you mean `size`?"]),
        ({"name": "aa", "size": "3"}, ["inputs.size: expected a whole number, got the text '3'"]),
        ({"name": "aa", "size": 0}, ["inputs.size: expected a number of at least 1, got the number 0"]),
        ({"name": "aa", "size": True}, ["inputs.size: expected a whole number, got true"]),
        ({"name": "aa", "kind": "bigg"}, ["inputs.kind: expected one of big, small, got the text 'bigg'"]),
        ({"name": "aa", "tags": ["x", 1]}, ["inputs.tags[1]: expected a text, got the number 1"]),
        ({"name": "aa", "box": {}}, ["inputs.box: expected the key `w`, got none"]),
        ({"name": "aa", "box": {"w": 1, "v": 2}}, ["inputs.box: there is no key `v` here; known keys: w"]),
        ({"name": "b"}, ["inputs.name: expected a text of at least 2 characters, got the text 'b'",
                         "inputs.name: expected a text that matches ^(a+)+$, got the text 'b'"]),
    ],
)  # fmt: skip
def test_inputs_are_checked_against_their_schemas(given: dict[str, Any], messages: list[str]) -> None:
    values, told = check_inputs(workflow(INPUTS).inputs, given)
    assert told == messages
    assert values.get("size", 3) == given.get("size", 3)


def test_no_pattern_of_an_input_is_slow() -> None:
    # Given a pattern that takes a backtracking matcher an age, and a text that does not match
    _, messages = check_inputs(workflow(INPUTS).inputs, {"name": "a" * 2_000 + "b"})
    # Then the answer comes at once
    assert len(messages) == 1


def test_the_schema_of_all_inputs_is_closed_and_names_what_must_be_given() -> None:
    schema = parse(INPUTS).inputs_schema
    assert schema["required"] == ["name"]
    assert schema["additionalProperties"] is False
    assert set(schema["properties"]) == {"name", "size", "kind", "tags", "box"}
