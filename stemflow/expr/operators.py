"""Operators on JSON values: Python's meaning, with the cost counted before the work is done."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

from stemflow.expr import dates
from stemflow.expr.dates import DATES
from stemflow.expr.errors import LimitRefusal, Refusal
from stemflow.expr.limits import BITS_PER_STEP, INTEGER_BITS, Frame, number
from stemflow.expr.values import describe

Binary = Callable[[Frame, Any, Any], Any]
Binary2 = Callable[[Any, Any], Any]

NUMBERS = (int, float)
CONTAINERS = (str, list, dict)


def _mismatch(verb: str, left: Any, right: Any) -> Refusal:
    hint = None
    if isinstance(left, str) or isinstance(right, str):
        hint = 'write f"{...}" to put a value into a text, from_json(text) to read a number from one'
    return Refusal(f"cannot {verb} {describe(left)} and {describe(right)}", hint)


def _arithmetic(verb: str, work: Callable[[Any, Any], Any], of_dates: Binary2 | None = None) -> Binary:
    def compute(frame: Frame, left: Any, right: Any) -> Any:
        if isinstance(left, NUMBERS) and isinstance(right, NUMBERS):
            return number(work(left, right))
        if of_dates is not None and (isinstance(left, DATES) or isinstance(right, DATES)):
            return of_dates(left, right)
        raise _mismatch(verb, left, right)

    return compute


def _add(frame: Frame, left: Any, right: Any) -> Any:
    if isinstance(left, NUMBERS) and isinstance(right, NUMBERS):
        return number(left + right)
    if isinstance(left, str) and isinstance(right, str):
        frame.charge_text(len(left) + len(right))
        return left + right
    if isinstance(left, list) and isinstance(right, list):
        frame.charge(len(left) + len(right))
        return left + right
    if isinstance(left, DATES) or isinstance(right, DATES):
        return dates.add(left, right)
    raise _mismatch("add", left, right)


def _multiply(frame: Frame, left: Any, right: Any) -> Any:
    if isinstance(left, NUMBERS) and isinstance(right, NUMBERS):
        return number(left * right)
    for many, times in ((left, right), (right, left)):
        if isinstance(times, int) and isinstance(many, (str, list)):
            total = len(many) * max(times, 0)
            if isinstance(many, str):
                frame.charge_text(total)
            elif total > frame.left:
                raise LimitRefusal(f"a list of {total:,} elements needs more than {frame.steps:,} steps")
            else:
                frame.charge(total)
            return many * times
    if isinstance(left, DATES) or isinstance(right, DATES):
        return dates.multiply(left, right)
    raise _mismatch("multiply", left, right)


def _power(frame: Frame, base: Any, exponent: Any) -> Any:
    if not (isinstance(base, NUMBERS) and isinstance(exponent, NUMBERS)):
        raise _mismatch("raise to a power", base, exponent)
    if isinstance(base, int) and isinstance(exponent, int) and abs(base) > 1:
        # |base| >= 2 ** (bit_length - 1), so the result has at least this many bits.
        bits = (base.bit_length() - 1) * exponent
        if bits > INTEGER_BITS:
            raise LimitRefusal(f"an integer of {bits:,} bits is above the limit of {INTEGER_BITS:,}")
        frame.charge(max(bits, 0) // BITS_PER_STEP)
    return number(base**exponent)


def _modulo(frame: Frame, left: Any, right: Any) -> Any:
    if isinstance(left, str):
        raise Refusal("'%' does not format a text", 'write f"{...}"')
    return _remainder(frame, left, right)


def _ordered(work: Callable[[Any, Any], Any]) -> Binary:
    def compare(frame: Frame, left: Any, right: Any) -> Any:
        if isinstance(left, NUMBERS) and isinstance(right, NUMBERS):
            return work(left, right)
        frame.charge_value(left)
        frame.charge_value(right)
        if isinstance(left, (str, list)) and isinstance(right, type(left)):
            return work(left, right)
        if isinstance(left, DATES) or isinstance(right, DATES):
            dates.same_kind(left, right)
            return work(left, right)
        raise _mismatch("order", left, right)

    return compare


def equal(frame: Frame, left: Any, right: Any) -> bool:
    """`left == right`, as deep as the values go."""
    if isinstance(left, CONTAINERS) and isinstance(right, CONTAINERS):
        frame.charge_value(left)
        frame.charge_value(right)
    if (isinstance(left, DATES) or isinstance(right, DATES)) and left is not None and right is not None:
        dates.same_kind(left, right)
    return bool(left == right)


def contains(frame: Frame, needle: Any, stack: Any) -> bool:
    """`needle in stack`: an element of a list, a key of an object, a part of a text."""
    if isinstance(stack, str):
        if not isinstance(needle, str):
            raise Refusal(f"expected a text before 'in' a text, got {describe(needle)}")
        frame.charge(len(stack) // 16)
    elif isinstance(stack, list):
        frame.charge_value(stack)
    elif isinstance(stack, Mapping):
        return isinstance(needle, str) and needle in stack
    else:
        raise Refusal(f"expected a list, a text or an object after 'in', got {describe(stack)}")
    return needle in stack


def negate(frame: Frame, value: Any) -> Any:
    """`-value`."""
    if isinstance(value, (int, float, timedelta)):
        return -value
    raise Refusal(f"expected a number after '-', got {describe(value)}")


def affirm(frame: Frame, value: Any) -> Any:
    """`+value`."""
    if isinstance(value, NUMBERS):
        return +value
    raise Refusal(f"expected a number after '+', got {describe(value)}")


def text_of(value: Any, whole: bool) -> str:
    """`value` inside a longer text: Python's form in an f-string, JSON's form (`whole`) in a template."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return str(value).lower() if whole else str(value)
    if isinstance(value, NUMBERS):
        return str(number(value))
    if isinstance(value, DATES):
        return dates.iso(value)
    if value is None:
        raise Refusal("null cannot be put into a text", "write get(path, '') to say what stands for it")
    raise Refusal(f"{describe(value)} cannot be put into a text", "write json(...) around it")


def join_parts(frame: Frame, parts: list[str]) -> str:
    """The parts as one text, its length checked first."""
    frame.charge_text(sum(map(len, parts)))
    return "".join(parts)


_remainder = _arithmetic("take the remainder of", operator.mod)

BINARY: dict[type[ast.operator], Binary] = {
    ast.Add: _add,
    ast.Sub: _arithmetic("subtract", operator.sub, dates.subtract),
    ast.Mult: _multiply,
    ast.Div: _arithmetic("divide", operator.truediv, dates.divide),
    ast.FloorDiv: _arithmetic("divide", operator.floordiv),
    ast.Mod: _modulo,
    ast.Pow: _power,
}

COMPARE: dict[type[ast.cmpop], Binary] = {
    ast.Eq: equal,
    ast.NotEq: lambda frame, left, right: not equal(frame, left, right),
    ast.Lt: _ordered(operator.lt),
    ast.LtE: _ordered(operator.le),
    ast.Gt: _ordered(operator.gt),
    ast.GtE: _ordered(operator.ge),
    ast.In: contains,
    ast.NotIn: lambda frame, left, right: not contains(frame, left, right),
    # The compiler accepts `is` only with None, True and False.
    ast.Is: lambda frame, left, right: left is right,
    ast.IsNot: lambda frame, left, right: left is not right,
}
