"""Paths of fields such as `steps.pay.output.id`, which most expressions are: read without building a tree."""

from __future__ import annotations

import keyword
import re

from stemflow.expr.errors import Reference, Span
from stemflow.expr.limits import SOURCE_DEPTH

_PLAIN = re.compile(r" *([A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*)+) *")
_MOST_CHARACTERS = 512


def plain_path(text: str) -> tuple[str, ...] | None:
    """The keys of an expression that is fields of a name and nothing else; None for any other expression.

    It may also be None for a path that is long or unusual: the tree of the expression then tells.
    """
    if len(text) > _MOST_CHARACTERS:
        return None
    found = _PLAIN.fullmatch(text)
    if found is None:
        return None
    keys = tuple(found[1].split("."))
    if len(keys) >= SOURCE_DEPTH or any(keyword.iskeyword(key) or key.startswith("__") for key in keys):
        return None
    return keys


def plain_reference(text: str, keys: tuple[str, ...], offset: int) -> tuple[Reference, Span]:
    """The reference of a plain path that begins `offset` characters into its scalar, and where it is."""
    start = offset + len(text) - len(text.lstrip(" "))
    span = Span(start, offset + len(text.rstrip(" ")))
    return Reference(keys, False, *span), span
