"""What expressions mean, where they stop, and what they say then."""

from __future__ import annotations

import json
from typing import Any

import pytest

from stemflow.expr import ExpressionError, ExpressionLimitError, Reference, compile_expression

NAMES = ("inputs", "steps", "item", "prev")
ENV: dict[str, Any] = {
    "inputs": {"a": 3, "f": 2.5, "s": "héé", "list": [3, 1, 2], "o": {"k": 1, "from": "x"}, "no": None, "yes": True},
    "steps": {"pay": {"output": {"id": "x9", "receipt": None}}, "my-step": {"output": 1}},
    "item": {"rows": [{"n": 1, "ok": True}, {"n": 2, "ok": False}]},
}


def evaluate(source: str) -> Any:
    return compile_expression(source, NAMES)(ENV)


def failure(source: str) -> ExpressionError:
    with pytest.raises(ExpressionError) as caught:
        evaluate(source)
    return caught.value


VALUES = [
    ("true", True),
    ("null", None),
    ("None", None),
    ("[True, false, 1, 2.5, 'x']", [True, False, 1, 2.5, "x"]),
    ("inputs.a + inputs.f * 2 - 7 // 2", 5.0),
    ("-2 ** 2 % 3", -4 % 3),
    ("2 ** -1", 0.5),
    ("7 / 2", 3.5),
    ("'a' + 'b' * 3", "abbb"),
    ("[1] * 2 + [2]", [1, 1, 2]),
    ("1 < inputs.a <= 3 != 4", True),
    ("3 < 2 < 1 / 0", False),
    ("'é' in inputs.s and 9 not in inputs.list", True),
    ("'k' in inputs.o", True),
    ("1 in inputs.o", False),
    ("inputs.no is null", True),
    ("inputs.no is not None", False),
    ("inputs.no or 'none'", "none"),
    ("0 and 1", 0),
    ("not inputs.list", False),
    ("'big' if inputs.a > 2 else 'small'", "big"),
    ("inputs['o']['from']", "x"),
    ("inputs.list[-1]", 2),
    ("inputs.s[0]", "h"),
    ("inputs.list[1:]", [1, 2]),
    ("inputs.s[::-1]", "ééh"),
    ("{'a': 1, inputs.s: [2]}", {"a": 1, "héé": [2]}),
    ("f'{inputs.a}/{inputs.f:.2f}/{inputs.s:>5}/{inputs.yes}'", "3/2.50/  héé/True"),
    ("[x * 2 for x in inputs.list if x > 1]", [6, 4]),
    ("[[x, y] for x in [1, 2] for y in 'ab' if x > 1]", [[2, "a"], [2, "b"]]),
    ("[[y * x for y in [1, 2]] for x in [1, 2]]", [[1, 2], [2, 4]]),
    ("{k: v for k, v in zip(['a', 'b'], [1, 2])}", {"a": 1, "b": 2}),
    ("all(r.ok for r in item.rows)", False),
    ("any(1 / x > 0 for x in [1, 0])", True),
    ("[item for item in inputs.list]", [3, 1, 2]),
    ("len(inputs) + len('abc') + len([])", 10),
    ("min(inputs.list) + max(1, 9) + min([], default=5)", 15),
    ("sum(r.n for r in item.rows) + sum([1], 10)", 14),
    ("sorted(inputs.list, reverse=true)", [3, 2, 1]),
    ("[abs(-1), round(2.5), round(1.25, 1), round(17, -1)]", [1, 2, 1.2, 20]),
    ("range(1, 6, 2)", [1, 3, 5]),
    ("len(range(5, 0))", 0),
    ("enumerate(['a'], start=1)", [[1, "a"]]),
    ("keys(inputs.o) + values(inputs.o)", ["k", "from", 1, "x"]),
    ("get(inputs.no, 'default')", "default"),
    ("get(inputs.nothing.at.all)", None),
    ("get(inputs.a, 1 / 0)", 3),
    ("get(prev, 'first')", "first"),
    ("get(inputs.list[9], 0)", 0),
    ("get(inputs[inputs.missing], 0)", 0),
    ("get(first(item.rows).n, 0)", 1),
    ("has(steps.ship.output)", False),
    ("has(steps.pay.output.receipt)", False),
    ("has(steps.pay.output.id)", True),
    ("has(inputs.a.b.c) or has(prev)", False),
    ("matches('DE000042', '^[A-Z]{2}[0-9]{6}$')", True),
    ("split('a,b,c', ',', 1) + split(' a  b ')", ["a", "b,c", "a", "b"]),
    ("join(['a', 'b'], ', ') + join(x for x in 'cd')", "a, bcd"),
    ("[lower('A'), upper('ß'), strip(' a '), strip('xax', 'x')]", ["a", "SS", "a", "a"]),
    ("replace('aXa', 'a', 'bb')", "bbXbb"),
    ("startswith('abc', 'ab') and endswith('abc', 'bc')", True),
    ("format(1234.5, ',.2f')", "1,234.50"),
    ("format('{0.__class__}')", "{0.__class__}"),
    ("json({'b': [1, null, 'é'], 'a': true})", '{"b":[1,null,"é"],"a":true}'),
    ("from_json('[1, 2.5, {}]')", [1, 2.5, {}]),
    ("first([]  , 7)", 7),
    ("merge({'a': 1, 'b': 1}, {'b': 2})", {"a": 1, "b": 2}),
    ("hash({'a': 1, 'b': 2}) == hash({'b': 2, 'a': 1})", True),
    ("  1 +\n  2  # a comment", 3),
    ("'${{ 1 + 1 }}'", "${{ 1 + 1 }}"),
]


@pytest.mark.parametrize(("source", "expected"), VALUES)
def test_an_expression_means_what_python_means(source: str, expected: Any) -> None:
    value = evaluate(source)
    assert json.dumps(value) == json.dumps(expected)


# source, the text under the caret, part of the message, part of the hint
FAILURES = [
    ("step.pay", "step", "available here: inputs, item, prev, steps", "did you mean 'steps'?"),
    ("'é' + inputs.lits", ".lits", "the keys here are: a, f, list, no, o, s, yes", "did you mean 'list'?"),
    ("1 +\n  inputs.q", ".q", "there is no key 'q'", "get(path, default)"),
    ("inputs.a.b", ".b", "expected an object with the key 'b', got a number", ""),
    ("inputs.list[3]", "[3]", "index 3 is outside a list of length 3", ""),
    ("inputs.list['x']", "['x']", "expected a whole number", ""),
    ("inputs.o[1]", "[1]", "expected a text as the key", ""),
    ("prev + 1", "prev", "'prev' has no value here", "get(prev, default)"),
    ("inputs.a && true", "&&", "'&&'", "write 'and'"),
    ("'&&' == inputs.s || true", "||", "'||'", "write 'or'"),
    ("!inputs.yes", "!", "'!'", "write 'not'"),
    ("inputs.yes ? 1 : 2", "?", "'?'", "yes if condition else no"),
    ("inputs.a = 3", "=", "'='", "'=='"),
    ("inputs.a === 3", "===", "'==='", "'=='"),
    ("${{ inputs.a }}", "${{", "'${{'", "bare expression"),
    ("inputs.from", ".from", "a word of the language", "['from']"),
    ("steps.my-step.output", "step", "unknown name 'step'", "write ['my-step']"),
    ("inputs.s.upper()", "inputs.s.upper()", "no methods", "write upper(value)"),
    ("str(1)", "str", "no function 'str'", 'f"{value}"'),
    ("lenn(1)", "lenn", "no function 'lenn'", "'len'"),
    ("len", "len", "is a function", "len(...)"),
    ("len()", "len()", "takes 1 argument, got 0", "len(value)"),
    ("sorted([1], key=1)", "key=1", "takes no argument 'key='", "sorted(list, reverse=true)"),
    ("has(1)", "1", "takes a path", "has(steps.ship.output)"),
    ("(1, 2)", "(1, 2)", "no tuples", "[a, b]"),
    ("{1, 2}", "{1, 2}", "no sets", "[a, b]"),
    ("{1: 2}", "1", "expected a text as the key", "{key}"),
    ("{**inputs}", "inputs", "cannot unpack", "merge(a, b)"),
    ("inputs.a is 3", "inputs.a is 3", "'is' compares only", "'=='"),
    ("1 | 2", "1 | 2", "'|'", "merge"),
    ("'%s' % 1", "'%s' % 1", "does not format", 'f"{...}"'),
    ("inputs.s + 1", "inputs.s + 1", "cannot add a text and a number", "from_json"),
    ("inputs.s < 1", "inputs.s < 1", "cannot order a text and a number", ""),
    ("1 / 0", "1 / 0", "division by zero", ""),
    ("(-8) ** 0.5", "(-8) ** 0.5", "complex", ""),
    ("1e308 * 10", "1e308 * 10", "not a finite number", ""),
    ("1e999", "1e999", "not a finite number", ""),
    ("1j", "1j", "complex literal", ""),
    ("b'x'", "b'x'", "bytes literal", ""),
    ("f'{inputs.o}'", "inputs.o", "an object cannot be put into a text", "json(...)"),
    ("f'{inputs.no}'", "inputs.no", "null cannot be put", "get(path, '')"),
    ("f'{inputs.a!r}'", None, "conversions", "json(value)"),
    ("x for x in inputs.list", "x for x in inputs.list", "needs brackets", "[..."),
    ("[x for len in inputs.list]", "len", "cannot be the name of a loop variable", ""),
    ("[a for a, b in [[1]]]", "a, b", "expected a list of 2 to unpack, got a list of 1", ""),
    ("[[[z for z in [1]] for y in [1]] for x in [1]]", "[z for z in [1]]", "deeper than 2", ""),
    ("[x for x in 5]", "5", "expected a list, got a number", ""),
    ("1] + [2", "1] + [2", "brackets", ""),
    ("1, 2", "1, 2", "a sequence", "[a, b]"),
    ("(1", "(", "brackets", ""),
    ("", "", "empty", ""),
    ("first([])", "first([])", "the list is empty", "first(list, default)"),
    ("join('ab', ',')", "join('ab', ',')", "expected a list of texts first", "join(list, separator)"),
    ("from_json('{')", "from_json('{')", "is not JSON", ""),
    ("from_json('NaN')", "from_json('NaN')", "contains NaN", ""),
    ("matches('a', '(?=a)')", "matches('a', '(?=a)')", "only (...)", ""),
    ("none", "none", "unknown name", "write null"),
    (r"'\ud800'", None, "surrogate", ""),
]


@pytest.mark.parametrize(("source", "blamed", "message", "hint"), FAILURES)
def test_a_wrong_expression_names_the_place_and_the_next_step(
    source: str, blamed: str | None, message: str, hint: str
) -> None:
    error = failure(source)
    assert blamed is None or source[error.column : error.end] == blamed
    assert message in error.message
    assert hint in (error.hint or "")


LIMITS = [
    ("1 + " * 1100 + "1", "4,401 bytes"),
    ("-" * 70 + "1", "deeper than 64"),
    ("(" * 150 + "1" + ")" * 150 + "+" * 70 + "1", "deeper than 64"),
    ("(" * 250 + "1" + ")" * 250, "deeper than 64"),
    ("-" * 4000 + "1", "deeper than 64"),
    ("'a' * 10**9", "1,000,000,000 characters"),
    ("10**10**10", "30,000,000,000 bits"),
    ("[0] * 10**9", "1,000,000,000 elements"),
    ("range(10**12)", "1,000,000,000,000 numbers"),
    ("range(10**300)", "numbers needs more than 100,000 steps"),
    ("len([x for x in range(60000) if x + 1 > x + 2 + 3])", "100,000 steps"),
    ("[x for x in range(400) for y in range(400)]", "100,000 steps"),
    ("join([' ' * 1000] * 2000, '')", "2,000,000 characters"),
    ("replace('a' * 1000, 'a', 'b' * 100000)", "100,000,000 characters"),
    ("f\"{'a' * 600000}{'b' * 600000}\"", "1,200,000 characters"),
    ("['a' * 100000] * 20", "1,048,576 bytes"),
    ("json([[[[[['a'] * 30] * 30] * 30] * 30] * 30])", "100,000 steps"),
    ("[[[[['a'] * 30] * 30] * 30] * 30] == [[[[['a'] * 30] * 30] * 30] * 30]", "100,000 steps"),
    ("['a' * 1000000 for x in range(90000)]", "100,000 steps"),
    ("f'{1:100000}'", "100,000 characters, the limit is 1,000"),
    ("format(1, '.999999f')", "999,999 characters, the limit is 100"),
    ("matches('a' * 20000, 'a')", "20,000 characters"),
    ("matches('a', 'a{9000}')", "1,000"),
    ("matches('a' * 9000, '(a|a)*(a|a)*(a|a)*b')", "100,000 steps"),
    ("from_json('[' * 5000 + ']' * 5000)", "nested deeper"),
    ("from_json('9' * 5000)", "5,000 digits"),
]


@pytest.mark.parametrize(("source", "number"), LIMITS)
def test_a_budget_that_is_passed_is_named_with_its_number(source: str, number: str) -> None:
    error = failure(source)
    assert isinstance(error, ExpressionLimitError)
    assert number in error.message


def test_a_smaller_budget_of_steps_can_be_given_to_one_evaluation() -> None:
    expression = compile_expression("sum(x for x in range(5000))", NAMES)
    assert expression(ENV) == 12_497_500
    with pytest.raises(ExpressionLimitError, match="100 steps"):
        expression(ENV, steps=100)


REFERENCES = [
    ("steps.pay.output.id", [(("steps", "pay", "output", "id"), False, "steps.pay.output.id")]),
    ("steps['pay'].output[0].x", [(("steps", "pay", "output", "0", "x"), False, "steps['pay'].output[0].x")]),
    ("steps[item.k].output", [(("steps",), False, "steps"), (("item", "k"), False, "item.k")]),
    ("has(steps.a.b) or inputs.c", [(("steps", "a", "b"), True, "steps.a.b"), (("inputs", "c"), False, "inputs.c")]),
    ("get(steps.a, steps.b)", [(("steps", "a"), True, "steps.a"), (("steps", "b"), True, "steps.b")]),
    ("get(first(steps.a).b, 0)", [(("steps", "a"), False, "steps.a")]),
    ("[x.y for x in steps.a.rows if x.z]", [(("steps", "a", "rows"), False, "steps.a.rows")]),
    ("[item for item in item.rows]", [(("item", "rows"), False, "item.rows")]),
    ("f'é{inputs.a}' + true", [(("inputs", "a"), False, "inputs.a")]),
    ("1 + 2", []),
]


@pytest.mark.parametrize(("source", "expected"), REFERENCES)
def test_the_paths_that_an_expression_reads_are_known_before_it_runs(source: str, expected: list[Any]) -> None:
    found = compile_expression(source, NAMES).references
    assert [(ref.path, ref.optional, source[ref.column : ref.end]) for ref in found] == expected
    assert all(isinstance(ref, Reference) for ref in found)


def test_the_same_source_and_names_are_compiled_once() -> None:
    assert compile_expression("inputs.a", ["inputs"]) is compile_expression("inputs.a", {"inputs"})


def test_evaluation_changes_nothing_in_the_data() -> None:
    before = json.dumps(ENV)
    for source, _ in VALUES:
        evaluate(source)
    assert json.dumps(ENV) == before


def test_an_error_shows_names_of_keys_but_no_values() -> None:
    env = {"inputs": {"token": "hunter2", "list": ["hunter2"]}}
    for source in (
        "inputs.tokens",
        "inputs.token + 1",
        "inputs.list[5]",
        "inputs.token.x",
        "inputs.token < 1",
        "sum(inputs.list)",
        "from_json(inputs.token)",
        "round(inputs.token)",
        "f'{inputs.list}'",
    ):
        with pytest.raises(ExpressionError) as caught:
            compile_expression(source, ["inputs"])(env)
        assert "hunter2" not in str(caught.value)
