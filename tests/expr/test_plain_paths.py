"""Paths of fields are read without a tree, and mean exactly what their tree means."""

from __future__ import annotations

from typing import Any

import pytest

from stemflow.expr import ExpressionError, expression
from stemflow.expr.plain import plain_path

NAMES = frozenset({"inputs", "steps", "prev"})
ENV: dict[str, Any] = {"inputs": {"a": {"b": [1]}, "day": "2026-01-31", "none": None}, "steps": {"x": 7}}
PLAIN = ["inputs.a", " inputs.a.b ", "inputs.none", "inputs.a.missing", "steps.x.y", "inputs.none.z", "prev.x",
         "inputs.day.year"]  # fmt: skip


def outcome(found: expression.Expression) -> Any:
    try:
        return found(ENV)
    except ExpressionError as error:
        return (str(error), error.column, error.end)


@pytest.mark.parametrize("text", PLAIN)
def test_a_plain_path_gives_what_its_tree_gives(text: str) -> None:
    # Given a path that is read with and without its tree
    assert plain_path(text) is not None
    short, whole = expression.compile_at(text, NAMES, 3), expression._of_tree(text, NAMES, 3)
    # Then values, errors with their places, and references are the same
    assert outcome(short) == outcome(whole)
    assert (short.references, short.source, repr(short)) == (whole.references, whole.source, repr(whole))


@pytest.mark.parametrize("text", [
    "inputs", "inputs.a[0]", "inputs.class", "inputs.__a", "true.x.None", "inputs.a\n", "inputs. a", "1.5",
    "inputs.\u00e4", "inputs..a", "", "inputs.a.", "x" * 600 + ".y", ".".join(["inputs"] * 64),
])  # fmt: skip
def test_any_other_expression_is_not_a_plain_path(text: str) -> None:
    assert plain_path(text) is None


@pytest.mark.parametrize("text", ["nope.a", "inputs.if"])
def test_what_cannot_be_read_is_refused_as_by_its_tree(text: str) -> None:
    with pytest.raises(ExpressionError):
        expression.compile_at(text, NAMES, 0)
