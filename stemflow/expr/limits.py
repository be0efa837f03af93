"""Budgets of one evaluation: steps, characters and elements, counted before they are spent."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

from stemflow.expr.errors import LimitRefusal, Refusal

SOURCE_BYTES = 4096
SOURCE_DEPTH = 64
STEPS = 100_000
RESULT_BYTES = 1_048_576
RESULT_DEPTH = 200
INTEGER_BITS = 4096
CHARACTERS_PER_STEP = 64
BITS_PER_STEP = 64


class Frame:
    """What one evaluation reads (`env`), its loop variables (`slots`) and the steps that it has left."""

    __slots__ = ("env", "left", "slots", "steps")

    def __init__(self, env: Mapping[str, Any], slots: int, steps: int) -> None:
        self.env = env
        self.slots: list[Any] = [None] * slots
        self.steps = steps
        self.left = steps

    def charge(self, steps: int) -> None:
        """Spend `steps`; refuse when the budget is passed."""
        self.left -= steps
        if self.left < 0:
            raise LimitRefusal(
                f"the expression needs more than its {self.steps:,} steps",
                "work on less data here, or move this into a task",
            )

    def charge_text(self, characters: int) -> None:
        """Spend what reading or writing a text of this many characters costs; refuse one above 1 MiB."""
        if characters > RESULT_BYTES:
            raise LimitRefusal(
                f"a text of {characters:,} characters is above the limit of {RESULT_BYTES:,}",
                "keep large data in a task's own storage and pass its address",
            )
        self.charge(characters // CHARACTERS_PER_STEP)

    def charge_value(self, value: Any) -> None:
        """Spend what walking through `value` costs: counted, never trusted, as parts may be shared."""
        if isinstance(value, str):
            self.charge(len(value) // CHARACTERS_PER_STEP)
        elif isinstance(value, (list, dict)):
            for part in walk(value):
                self.charge(1 + len(part) // CHARACTERS_PER_STEP if isinstance(part, str) else 1)


def walk(value: Any) -> Iterator[Any]:
    """Every value inside `value`, itself included, keys left out; refuse one nested too deeply."""
    pending = [iter((value,))]
    while pending:
        for part in pending[-1]:
            yield part
            if isinstance(part, (list, dict)):
                if len(pending) > RESULT_DEPTH:
                    raise LimitRefusal(f"the value is nested deeper than {RESULT_DEPTH} levels")
                pending.append(iter(part.values() if isinstance(part, dict) else part))
                break
        else:
            pending.pop()


def number(value: Any) -> Any:
    """`value` if JSON can hold this number; refuse infinities, complex numbers and very long integers."""
    if isinstance(value, int):
        if value.bit_length() > INTEGER_BITS:
            raise LimitRefusal(f"an integer of {value.bit_length():,} bits is above the limit of {INTEGER_BITS:,}")
    elif not isinstance(value, float):
        raise Refusal(f"the result is a {type(value).__name__} number, which JSON cannot hold")
    elif not math.isfinite(value):
        raise Refusal("the result is not a finite number, which JSON cannot hold")
    return value


def check_result(value: Any) -> None:
    """Refuse a result that is not JSON or takes more than 1 MiB as compact JSON."""
    size = 0
    for part in walk(value):
        size += _own_bytes(part)
        if size > RESULT_BYTES:
            raise LimitRefusal(
                f"the result takes more than the {RESULT_BYTES:,} bytes allowed as JSON",
                "keep large data in a task's own storage and pass its address",
            )


def _own_bytes(part: Any) -> int:
    """Bytes of compact JSON for `part`, without what it contains; the separator after it included."""
    if isinstance(part, str):
        return _text_bytes(part) + 1
    if part is None or isinstance(part, bool):
        return 6
    if isinstance(part, (int, float)):
        return len(repr(part)) + 1
    if isinstance(part, dict):
        return 2 + sum(_text_bytes(key) + 1 for key in part)
    return 2


def _text_bytes(text: str) -> int:
    if len(text) > RESULT_BYTES:
        return len(text)
    if text.isascii() and text.isprintable():
        return len(text) + 2 + text.count('"') + text.count("\\")
    try:
        return len(json.dumps(text, ensure_ascii=False).encode())
    except UnicodeEncodeError:
        raise Refusal("a text holds half of a surrogate pair, which JSON cannot carry") from None
