"""`types`: schemas with names, wherever a file has schemas."""

from __future__ import annotations

from typing import Any

import pytest

from stemflow.dsl import parse_workflow
from tests.dsl.checked import check, told

TYPES = "types:\n  Line: {type: object, properties: {sku: {type: string}, qty: {type: integer, minimum: 1}}}\n"
TYPES += "  Order: {type: object, required: [lines], properties: {lines: {type: array, items: {type: Line}}}}\n"


def body(inputs: str, read: str = "inputs") -> str:
    return f"{TYPES}inputs:\n  order: {inputs}\nsteps:\n  a: {{task: do, args: {{what: '${{{{ {read} }}}}'}}}}\n"


def test_a_name_is_replaced_by_its_schema_with_the_keywords_next_to_it() -> None:
    text = 'stemflow: "1"\nname: x\n' + body("{type: Order, description: mine, required: []}")
    flow = parse_workflow(text, "x.yaml").workflow
    assert flow is not None
    line: Any = {"type": "object", "properties": {"sku": {"type": "string"}, "qty": {"type": "integer", "minimum": 1}}}
    lines = {"lines": {"type": "array", "items": line}}
    assert flow.inputs["order"] == {"type": "object", "required": [], "properties": lines, "description": "mine"}


@pytest.mark.parametrize(
    ("inputs", "read", "code"),
    [
        ("{type: Order}", "inputs.order.lines[0].qty + 1", None),
        ("{type: Order}", "inputs.order.lines[0].sku + 1", "SF216"),
        ("{type: Order, default: {lines: [{sku: a, qty: 2}]}}", "inputs", None),
        ("{type: Order, default: {lines: [{sku: a, qty: 0}]}}", "inputs", "SF301"),
        ("{type: Order, default: {}}", "inputs", "SF301"),
        ("{type: Ordr}", "inputs", "SF011"),
        ("{type: [Order, 'null']}", "inputs", "SF011"),
        ("{type: array, items: {type: Order}, minLength: 1}", "inputs", "SF308"),
    ],
)
def test_schemas_are_checked_with_the_types_that_they_name(inputs: str, read: str, code: str | None) -> None:
    found = [one.code for one in check(body(inputs, read)).found if one.code != "SF710"]
    assert found == ([] if code is None else [code])


def test_a_result_and_a_form_may_name_a_type() -> None:
    text = TYPES + (
        "steps:\n  a: {task: do, returns: {type: Order}}\n"
        "  b: {approval: {inputs: {line: {type: Line}}}}\n"
        "  c: {task: do, args: {what: '${{ steps.a.output.lnies }}'}}\n"
        "  d: {task: do, args: {what: '${{ steps.b.output.inputs.line.sku + 1 }}'}}\n"
    )
    assert [one.code for one in check(text).found] == ["SF307", "SF216"]


def test_a_type_that_contains_itself_is_reported_with_the_way() -> None:
    text = "types:\n  A: {type: array, items: {type: B}}\n  B: {type: object, properties: {a: {type: A}}}\n"
    checked = check(text + "inputs: {a: {type: B}}\nsteps:\n  a: {task: do, args: {what: '${{ inputs.a }}'}}\n")
    assert told(checked) == [("SF311", "A")]
    assert "A -> B -> A" in checked.found[0].message


def test_a_type_that_nothing_uses_is_a_warning() -> None:
    assert told(check("types: {A: {type: object}}\nsteps:\n  a: {task: do}\n")) == [("SF710", "A")]
