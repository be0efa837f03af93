"""What would cost too much time or memory is refused before it is done, and what is charged does not depend on luck."""

from __future__ import annotations

import time
import tracemalloc
from typing import Any

import pytest

from stemflow.expr import ExpressionError, ExpressionLimitError, compile_expression, parse_template

MEBI = 1_048_576
BIG = "a" * 1_000_000
ENV: dict[str, Any] = {
    "inputs": {
        "big": BIG,
        "keys": {f"{'k' * 500}{number}": number for number in range(20_000)},
        "numbers": list(range(50_000)),
    }
}

COSTLY = [
    "'a' * 10**9", "10**9 * 'a'", "9**9**9", "(-7)**9**9", "range(10**12)", "range(0, -10**15, -1)", "[0] * 10**9",
    "f'{1:>1000000}'", "format(1, '.999999f')", "format('a', '999999999')", "[f'{n:1000}' for n in range(90000)]",
    "join(['a'] * 99999, 'b' * 9999)", "join([inputs.big] * 50000)", "join([inputs.big, inputs.big], inputs.big)",
    "replace(inputs.big, 'a', 'bb')", "replace(inputs.big, '', 'x')", "split(',' * 1000000, ',')",
    "strip(inputs.big, join(f'{n}' for n in range(9999)))",
    "[strip(inputs.big, 'xyz') for n in range(1000)]", "[startswith(inputs.big, inputs.big) for n in range(90000)]",
    "[endswith(inputs.big, inputs.big) for n in range(90000)]", "[upper(inputs.big) for n in range(90000)]",
    "[inputs.big == inputs.big + '' for n in range(90000)]", "['b' in inputs.big for n in range(90000)]",
    "[x * y for x in range(9999) for y in range(9999)]", "any(x for x in range(9999) for y in range(9999) if y < 0)",
    "[3 ** 2500 for n in range(90000)]", "[from_json('[1, 2, 3]') for n in range(90000) for m in range(9)]",
    "from_json('[' * 100000)", "from_json('1' * 100000)", "[json(inputs.numbers) for n in range(99)]",
    "[hash(inputs.numbers) for n in range(99)]", "[sorted(inputs.numbers) for n in range(99)]",
    "[inputs.numbers == inputs.numbers for n in range(99)]", "[inputs.big for n in range(99)]",
    "[[inputs.big] * 100 for n in range(900)]", "{f'{n}{inputs.big}': 1 for n in range(90000)}",
    "matches('a' * 9999, '(a|aa)+$b')", "matches('ab' * 4999, '(a|b)*a(a|b){100}c')", "matches(inputs.big, 'a')",
    "merge(inputs.keys, inputs.keys, inputs.keys, inputs.keys, inputs.keys, inputs.keys)",
    "zip(inputs.numbers, inputs.numbers, inputs.numbers)", "enumerate([0] * 99999)", "round(1e300, -301)",
    "[duration('90m') * n for n in range(99999)]", "[date('2026-01-31') for n in range(99999)]",
]  # fmt: skip


@pytest.mark.parametrize("source", COSTLY)
def test_a_costly_expression_is_refused_within_64_mib_and_a_moment(source: str) -> None:
    # When it is compiled and evaluated, it is refused
    began = time.process_time()
    with pytest.raises(ExpressionError):
        compile_expression(source, ["inputs"])(ENV)
    # Then in a moment: 50 ms where nothing else runs, so ten times that is a fault and not the machine
    assert time.process_time() - began < 0.5
    # And without much memory
    tracemalloc.start()
    with pytest.raises(ExpressionError):
        compile_expression(source, ["inputs"])(ENV)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 64 * MEBI


def test_a_misspelt_key_of_a_large_object_is_reported_quickly() -> None:
    # Given 20,000 keys of 500 characters that are alike
    expression = compile_expression(f"inputs.keys.{'k' * 499}x", ["inputs"])
    began = time.process_time()
    with pytest.raises(ExpressionError, match="and 19988 more"):
        expression(ENV)
    assert time.process_time() - began < 0.5


def test_a_text_holds_a_thousand_expressions_at_most() -> None:
    assert parse_template("${{ 1 }}" * 1_000, [])({}) == "1" * 1_000
    with pytest.raises(ExpressionLimitError, match="more than the 1,000 expressions"):
        parse_template("${{ 1 }} " * 100_000, [])


@pytest.mark.parametrize(
    ("source", "value"),
    [
        ("strip('xxaxx', 'x')", "a"), ("strip('xyaxy', 'yxyx')", "a"), ("strip('a', '')", "a"),
        ("strip('a' * 100000, 'b' * 99999 + 'a')", ""),
        ("split('a,b,c', ',', 1)", ["a", "b,c"]), ("split('a,b,c', ',', 0)", ["a,b,c"]), ("split('', ',')", [""]),
        ("startswith('ab', '')", True), ("2 ** 4000 % 7", 2 ** 4000 % 7), ("2 ** -1", 0.5),
    ],
)  # fmt: skip
def test_what_is_charged_for_still_means_what_python_means(source: str, value: Any) -> None:
    assert compile_expression(source, [])({}) == value
