"""The schema is the judge: the fast way through it says what a plain draft-7 validator says."""

from __future__ import annotations

import copy
import json
import random
from typing import Any

import pytest
from jsonschema import Draft7Validator

from stemflow.dsl import load_schema, parse_workflow
from stemflow.dsl.findings import Findings
from stemflow.dsl.schema import _judge, check_shape
from stemflow.dsl.source import read
from stemflow.dsl.vocabulary import KINDS
from tests.dsl.files import FOLDER

FILES = [FOLDER / "order.yaml", *sorted((FOLDER / "golden").glob("*.yaml"))]


def test_the_schema_is_draft_7_and_closed_everywhere() -> None:
    schema = load_schema()
    Draft7Validator.check_schema(schema)
    for name, definition in {"": schema, **schema["definitions"]}.items():
        if "properties" in definition:
            assert "additionalProperties" in definition, name


def test_the_schema_has_no_one_of_whose_errors_have_no_place() -> None:
    def keys(value: Any) -> set[str]:
        if isinstance(value, dict):
            return set(value) | {key for inner in value.values() for key in keys(inner)}
        return {key for inner in value for key in keys(inner)} if isinstance(value, list) else set()

    assert not keys(load_schema()) & {"oneOf", "anyOf"}


def test_every_kind_of_step_has_a_definition_that_holds_its_key() -> None:
    for kind in KINDS:
        assert kind in load_schema()["definitions"][f"{kind}_step"]["properties"]


def errors_of(validator: Any, value: Any) -> set[tuple[Any, ...]]:
    return {(tuple(one.absolute_path), one.validator, one.message) for one in validator.iter_errors(value)}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_dispatch_by_kind_finds_what_a_plain_validator_finds(path: Any) -> None:
    root = read(path.read_text(), Findings(""))
    if root is not None:
        assert errors_of(_judge(), root.value) == errors_of(Draft7Validator(load_schema()), root.value)


def test_dispatch_agrees_with_a_plain_validator_on_damaged_files() -> None:
    root = read((FOLDER / "order.yaml").read_text(), Findings(""))
    assert root is not None
    plain, fast = Draft7Validator(load_schema()), _judge()
    rng = random.Random(7)
    for _ in range(60):
        damaged = _damage(copy.deepcopy(root.value), rng)
        assert errors_of(fast, damaged) == errors_of(plain, damaged)


def _damage(value: Any, rng: random.Random) -> Any:
    """Change one place: another type, a key gone, a key too many."""
    if isinstance(value, dict) and value and rng.random() < 0.85:
        key = rng.choice(list(value))
        value[key] = _damage(value[key], rng)
        return value
    if isinstance(value, list) and value and rng.random() < 0.85:
        place = rng.randrange(len(value))
        value[place] = _damage(value[place], rng)
        return value
    if isinstance(value, dict) and value and rng.random() < 0.6:
        if rng.random() < 0.5:
            del value[rng.choice(list(value))]
        else:
            value[rng.choice([*KINDS, "surplus", "needs", "when"])] = rng.choice([1, "x", [], {}])
        return value
    return rng.choice([None, 3, "text", [], {}, [{}], {"task": "t"}, True])


def test_every_refusal_becomes_a_finding() -> None:
    root = read((FOLDER / "order.yaml").read_text(), Findings(""))
    assert root is not None
    rng = random.Random(11)
    for _ in range(60):
        damaged = _damage(copy.deepcopy(root.value), rng)
        findings = Findings("")
        node = read(json.dumps(damaged), findings)
        assert node is not None
        check_shape(node, findings)
        if errors_of(_judge(), damaged):
            assert findings.by_place()


def test_a_thousand_steps_are_parsed() -> None:
    steps = "".join(
        f"  s{i}: {{task: t, args: {{x: '${{{{ steps.s0.output }}}}'}}, retry: {{max: 1}}}}\n" for i in range(1_000)
    )
    parsed = parse_workflow('stemflow: "1"\nname: x\nsteps:\n' + steps, "x.yaml")
    assert parsed.diagnostics == ()
    assert parsed.workflow is not None
    assert len(parsed.workflow.body.steps) == 1_000  # type: ignore[union-attr]


def test_more_steps_than_the_limit_are_refused() -> None:
    steps = "".join(f"  s{i}: {{task: t}}\n" for i in range(10_001))
    (found,) = parse_workflow('stemflow: "1"\nname: x\nsteps:\n' + steps, "x.yaml").diagnostics
    assert (found.code, found.line) == ("SF003", 10_004)


@pytest.mark.parametrize(
    ("step", "key"),
    [
        ("{approval: {by: [ann]}, timeout: 2s}", "timeout"),
        ("{approval: {by: [ann]}, on_timeout: skip}", "on_timeout"),
        ("{event: {type: x}, match: 'true'}", "match"),
        ("{wait: {for: 2s}, until: now}", "until"),
    ],
)
def test_a_key_next_to_its_kind_is_named_as_one_that_belongs_inside(step: str, key: str) -> None:
    (found,) = parse_workflow(f'stemflow: "1"\nname: n\nsteps:\n  a: {step}\n', "f.yaml").diagnostics
    assert found.hint is not None and found.hint.startswith("write it inside `") and key in found.hint
