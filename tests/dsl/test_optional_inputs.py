"""Inputs with `required: false` are null where they are not given."""

from __future__ import annotations

from typing import Any

import pytest

from stemflow.dsl import check_inputs, parse_workflow
from tests.dsl.checked import check, told

BODY = "steps:\n  a: {task: do, args: {what: '${{ inputs.a }}'}}\n"
WRONG = "inputs.a: expected "


@pytest.mark.parametrize(
    ("schema", "given", "value", "wrong"),
    [
        ("{type: string, required: false}", {}, None, ""),
        ("{type: string, required: false}", {"a": None}, None, ""),
        ("{type: string, required: false}", {"a": "x"}, "x", ""),
        ("{type: string, required: false}", {"a": 7}, 7, WRONG),
        ("{required: false}", {}, None, ""),
        ("{enum: [x, y], required: false}", {"a": None}, None, ""),
        ("{enum: [x, y], required: false}", {"a": "z"}, "z", WRONG),
        ("{const: x, required: false}", {"a": None}, None, ""),
        ("{type: [string, integer], required: false, default: 3}", {}, 3, ""),
        ("{type: string, required: true}", {}, None, "inputs.a: expected a value, got none"),
        ("{type: object, required: [k]}", {"a": {}}, {}, WRONG),
        ("{secret: true, required: false}", {}, None, ""),
    ],
)
def test_an_input_is_null_or_fits(schema: str, given: dict[str, Any], value: Any, wrong: str) -> None:
    workflow = parse_workflow(f'stemflow: "1"\nname: x\ninputs: {{a: {schema}}}\n{BODY}', "x").workflow
    assert workflow is not None
    values, messages = check_inputs(workflow.inputs, given)
    assert values.get("a") == value
    assert [bool(wrong) and one.startswith(wrong) for one in messages] == ([True] if wrong else [])


@pytest.mark.parametrize(
    ("schema", "found"),
    [
        ("{type: string, required: false}", []),
        ("{type: object, properties: {b: {required: false}}}", [("SF011", "false")]),
        ("{type: string, required: [x]}", [("SF308", "required")]),
    ],
)
def test_only_an_input_itself_may_be_required_or_not(schema: str, found: list[tuple[str, str]]) -> None:
    assert told(check(f"inputs: {{a: {schema}}}\n{BODY}")) == found
