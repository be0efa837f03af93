"""Plain scalars by the core schema of YAML 1.2, kept to what JSON can hold.

`on`, `no`, `1:30` are texts, and so is a number with leading zeros (`010`), which YAML 1.1 and 1.2 read differently.
"""

from __future__ import annotations

import re

_WORDS: dict[str, bool | None] = {
    "": None, "~": None, "null": None, "Null": None, "NULL": None,
    "true": True, "True": True, "TRUE": True,
    "false": False, "False": False, "FALSE": False,
}  # fmt: skip
_INTEGER = re.compile(r"[-+]?(0|[1-9][0-9]*)")
_BASED = re.compile(r"0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|(0|[1-9][0-9]*)(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_SMALLEST, _GREATEST = -(2**63), 2**64 - 1
_MOST_DIGITS = 400


class ScalarError(ValueError):
    """A scalar that JSON cannot hold; the text says what to write."""


def resolve(text: str) -> str | int | float | bool | None:
    """The value of a plain scalar; raises ScalarError for infinities, NaN and integers beyond 64 bits."""
    if text in _WORDS:
        return _WORDS[text]
    if text[0] not in "+-.0123456789":
        return text
    if _INTEGER.fullmatch(text):
        return _integer(text, 10)
    if _BASED.fullmatch(text):
        return _integer(text, 0)
    if _FLOAT.fullmatch(text):
        return _finite(text)
    if _NOT_FINITE.fullmatch(text):
        raise ScalarError(f"{text} is not a JSON number; write it in quotes for a text")
    return text


def _integer(text: str, base: int) -> int:
    value = int(text, base) if len(text) <= _MOST_DIGITS else _GREATEST + 1
    if not _SMALLEST <= value <= _GREATEST:
        raise ScalarError("an integer beyond 64 bits is not portable; write it in quotes for a text")
    return value


def _finite(text: str) -> float:
    value = float(text) if len(text) <= _MOST_DIGITS else float("inf")
    if value in (float("inf"), float("-inf")):
        raise ScalarError("the number does not fit into 64 bits; write it in quotes for a text")
    return value
