"""Expressions inside YAML values."""

from __future__ import annotations

from typing import Any

import pytest

from stemflow.expr import ExpressionError, compile_expression, parse_condition, parse_template

NAMES = ("inputs", "steps")
ENV = {"inputs": {"a": 3, "f": 1.5, "yes": True, "no": None, "s": "é", "list": [1, {"k": 2}]}}

TEMPLATES: list[tuple[Any, Any]] = [
    ("${{ inputs.list }}", [1, {"k": 2}]),
    ("  ${{ inputs.a }}\n", 3),
    ("${{ inputs.no }}", None),
    ("n=${{ inputs.a }} f=${{inputs.f}} b=${{ inputs.yes }} s=${{ inputs.s }}!", "n=3 f=1.5 b=true s=é!"),
    ("${{ inputs.a }}${{ inputs.a }}", "33"),
    ("${{ {'a': {'b': inputs.a}} }}", {"a": {"b": 3}}),
    ("${{ {'a': {'b': inputs.a}}}}", {"a": {"b": 3}}),
    ("${{ '}}' + \"'}}\" }}", "}}'}}"),
    ("${{ '${{' }}", "${{"),
    ("json: ${{ json(inputs.list) }}", 'json: [1,{"k":2}]'),
    ("$ {{ }} { } $", "$ {{ }} { } $"),
    (
        {"a": ["${{ inputs.a }}", 1, None], "b": {"c": "${{ inputs.s }}"}, "d": "x"},
        {"a": [3, 1, None], "b": {"c": "é"}, "d": "x"},
    ),
    ([], []),
    (5, 5),
]


@pytest.mark.parametrize(("tree", "expected"), TEMPLATES)
def test_a_template_is_filled_with_values(tree: Any, expected: Any) -> None:
    filled = parse_template(tree, NAMES)(ENV)
    assert filled == expected
    assert type(filled) is type(expected)


@pytest.mark.parametrize("tree", ["text", 1, None, {"a": [1, "b"]}, [], {}])
def test_a_tree_without_expressions_is_a_constant(tree: Any) -> None:
    template = parse_template(tree, NAMES)
    assert template.constant
    assert template.references == ()
    assert template({}) is tree


def test_references_of_a_tree_know_the_scalar_that_holds_them() -> None:
    tree = {"x": 1, "y": ["é ${{ inputs.a }} and ${{ get(steps.b, 1) }}"]}
    template = parse_template(tree, NAMES)
    assert not template.constant
    text = tree["y"][0]  # type: ignore[index]
    assert [(ref.path, ref.optional, ref.place, text[ref.column : ref.end]) for ref in template.references] == [
        (("inputs", "a"), False, ("y", 0), "inputs.a"),
        (("steps", "b"), True, ("y", 0), "steps.b"),
    ]


BAD_TEMPLATES: list[tuple[Any, tuple[str | int, ...], str, str]] = [
    ("a ${{ inputs.list }} b", (), "${{ inputs.list }}", "a list cannot be put into a text"),
    ("a ${{ inputs.no }} b", (), "${{ inputs.no }}", "null cannot be put into a text"),
    ("é ${{ inputs.a }} ${{ input.a }}", (), "input", "unknown name 'input'"),
    ({"k": ["x", "é ${{ inputs.a + zz }}"]}, ("k", 1), "zz", "unknown name 'zz'"),
    ({"k": ["x", "é ${{ inputs.q }}"]}, ("k", 1), ".q", "there is no key 'q'"),
    ("ab ${{ inputs.a", (), "${{", "is not closed"),
    ("ab ${{ 'x }}", (), "${{", "is not closed"),
    ("ab ${{ }}", (), "", "the expression is empty"),
    ({"a": {"k ${{ inputs.a }}": 1}}, ("a", "k ${{ inputs.a }}"), "${{ inputs.a }}", "a key cannot hold"),
]


@pytest.mark.parametrize(("tree", "place", "blamed", "message"), BAD_TEMPLATES)
def test_a_wrong_template_names_the_scalar_and_the_columns(
    tree: Any, place: tuple[str | int, ...], blamed: str, message: str
) -> None:
    with pytest.raises(ExpressionError) as caught:
        parse_template(tree, NAMES)(ENV)
    error = caught.value
    assert error.place == place
    text = tree
    for step in place:
        text = text[step] if step in text or isinstance(step, int) else step
    text = text if isinstance(text, str) else str(place[-1])
    assert text[error.column : error.end] == blamed
    assert message in error.message


@pytest.mark.parametrize("text", ["inputs.a == 3", "${{ inputs.a == 3 }}", "  ${{inputs.a == 3}}  ", "'${{' != ''"])
def test_a_condition_is_bare_or_inside_one_pair_of_marks(text: str) -> None:
    condition = parse_condition(text, NAMES)
    assert condition(ENV) is True
    assert all(text[ref.column : ref.end] == "inputs.a" for ref in condition.references)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("${{ true }} and false", "there is text after the expression"),
        ("not ${{ true }}", "'${{' is not an operator here"),
        ("${{ true }} ${{ true }}", "there is text after the expression"),
        ("", "the expression is empty"),
        ("${{ true", "is not closed"),
    ],
)
def test_text_around_a_condition_is_refused(text: str, message: str) -> None:
    with pytest.raises(ExpressionError) as caught:
        parse_condition(text, NAMES)
    assert message in caught.value.message


def test_columns_of_a_condition_count_from_the_start_of_its_scalar() -> None:
    text = "  ${{ inputs.a >\n zz }}"
    with pytest.raises(ExpressionError) as caught:
        parse_condition(text, NAMES)
    assert text[caught.value.column : caught.value.end] == "zz"


def test_a_template_text_stops_at_its_limit() -> None:
    part = "${{ 'a' * 600000 }}"
    with pytest.raises(ExpressionError, match="1,048,576 characters"):
        parse_template(part + part, NAMES)(ENV)


def test_compiled_expressions_are_shared_between_equal_texts() -> None:
    assert compile_expression(" inputs.a ", NAMES).source == "inputs.a"
