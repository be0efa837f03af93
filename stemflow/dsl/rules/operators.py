"""What operators give for operands of known types, and which of them can never work or never be true."""

from __future__ import annotations

import ast
from typing import NamedTuple

from stemflow.dsl.findings import did_you_mean
from stemflow.dsl.rules.types import ANY, INTEGER, NULL, NUMBER, NUMBERS, STRING, Type

_COUNTED = NUMBERS | {"boolean"}
"""Kinds that operators treat as numbers: true is 1, as in Python."""

_VERBS: dict[type[ast.operator], str] = {
    ast.Add: "add",
    ast.Sub: "subtract",
    ast.Mult: "multiply",
    ast.Div: "divide",
    ast.FloorDiv: "divide",
    ast.Mod: "take the remainder of",
    ast.Pow: "raise",
}


class Fault(NamedTuple):
    """What is wrong with an operation; `hint` says what to write instead."""

    message: str
    hint: str | None = None


def arithmetic(operator: ast.operator, left: Type, right: Type) -> Type | Fault:
    """The type of `left operator right`."""
    a, b = left.certain, right.certain
    if not a or not b:
        return ANY
    fits = bool(a & _COUNTED and b & _COUNTED)
    if isinstance(operator, ast.Add):
        fits = fits or bool(a & b & {"string", "array"})
    elif isinstance(operator, ast.Mult):
        fits = fits or bool((a & {"string", "array"} and b & _COUNTED) or (b & {"string", "array"} and a & _COUNTED))
    elif isinstance(operator, ast.Mod):
        fits = fits or "string" in a
    if not fits:
        is_text = "string" in a | b and isinstance(operator, ast.Add)
        hint = 'write f"{...}" to put values into a text' if is_text else None
        return Fault(f"cannot {_VERBS.get(type(operator), 'combine')} {left.words()} and {right.words()}", hint)
    if a <= NUMBERS and b <= NUMBERS:
        whole = left.only("integer") and right.only("integer") and not isinstance(operator, (ast.Div, ast.Pow))
        return INTEGER if whole else NUMBER
    return STRING if a == b == {"string"} else ANY


def comparison(operator: ast.cmpop, left: Type, right: Type) -> Fault | None:
    """What is wrong with `left operator right`, except for `in`."""
    if isinstance(operator, (ast.Eq, ast.NotEq)):
        return _equality(left, right)
    if isinstance(operator, (ast.Lt, ast.LtE, ast.Gt, ast.GtE)):
        return _order(left, right)
    return None


def _equality(left: Type, right: Type) -> Fault | None:
    if left.kinds is None or right.kinds is None or "null" in left.kinds & right.kinds:
        return None
    if NULL.kinds in (left.kinds, right.kinds):
        return None  # a test for null is never wrong where others may be null
    a, b = set(left.certain or ()), set(right.certain or ())
    for kinds in (a, b):
        if kinds & _COUNTED:
            kinds |= _COUNTED
    if a.isdisjoint(b):
        return Fault(f"{left.words()} is never equal to {right.words()}", _quote_hint(left, right))
    if left.values is None or right.values is None or any(v in right.values for v in left.values):
        return None
    (few, many) = sorted((left.values, right.values), key=len)
    if len(few) != 1 or len(many) < 2:
        return None
    near = did_you_mean(str(few[0]), map(str, many), "values")
    shown = ", ".join(map(repr, many[:8]))
    hint = near if near and near.startswith("did") else None
    return Fault(f"{few[0]!r} is none of the values that there are: {shown}", hint)


def _order(left: Type, right: Type) -> Fault | None:
    a, b = left.certain, right.certain
    if not a or not b or (a & _COUNTED and b & _COUNTED) or a & b & {"string", "array"}:
        return None
    return Fault(f"cannot order {left.words()} and {right.words()}", _quote_hint(left, right))


def _quote_hint(left: Type, right: Type) -> str | None:
    if "string" in (left.certain or ()) and (right.certain or frozenset()) & NUMBERS:
        return "compare with a text in quotes"
    if "string" in (right.certain or ()) and (left.certain or frozenset()) & NUMBERS:
        return "write the number without quotes"
    return None
