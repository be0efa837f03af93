"""Every example of docs/expressions.md does what the page says."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml

from stemflow.expr import FUNCTION_NAMES, ExpressionError, compile_expression, parse_template

PAGE = (Path(__file__).parents[2] / "docs" / "expressions.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", PAGE, re.DOTALL)
ENV = json.loads(next(body for kind, body in BLOCKS if kind == "json"))
EXAMPLE = re.compile(r"(.*?)\s+# (=>|!!) (.*)")


def examples(kind: str) -> list[tuple[str, str, str]]:
    rows = [line for name, body in BLOCKS if name == kind for line in body.splitlines()]
    found = [EXAMPLE.fullmatch(line) for line in rows]
    assert all(found), "each line of an example says what it gives"
    return [(match[1], match[2], match[3]) for match in found if match]


@pytest.mark.parametrize(("source", "kind", "outcome"), examples("python"))
def test_an_expression_of_the_page_gives_what_the_page_says(source: str, kind: str, outcome: str) -> None:
    expression_says(lambda: compile_expression(source, ENV)(ENV), kind, outcome)


@pytest.mark.parametrize(("line", "kind", "outcome"), examples("yaml"))
def test_a_template_of_the_page_gives_what_the_page_says(line: str, kind: str, outcome: str) -> None:
    (value,) = yaml.safe_load(line).values()
    expression_says(lambda: parse_template(value, ENV)(ENV), kind, outcome)


def expression_says(evaluate: object, kind: str, outcome: str) -> None:
    assert callable(evaluate)
    if kind == "=>":
        assert evaluate() == json.loads(outcome)
    else:
        with pytest.raises(ExpressionError) as caught:
            evaluate()
        assert str(caught.value).startswith(outcome)


def test_every_function_has_an_example() -> None:
    called = set(re.findall(r"\b(\w+)\(", "\n".join(source for source, _, _ in examples("python"))))
    assert called >= FUNCTION_NAMES
