"""The time limits of a step that computes them."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any

from msgspec import structs

from stemflow.errors import OptionError, StemflowError
from stemflow.expr import ExpressionError
from stemflow.model.policy import Options
from stemflow.units import parse_duration_ms


def timeout_ms(value: Any) -> int:
    """A duration above 0, in ms. Raises StemflowError."""
    found = parse_duration_ms(value)
    if found < 1:
        raise StemflowError(f"expected a timeout above 0, got {value!r}")
    return found


async def with_hard_limit(options: Options, limit: Awaitable[Any], path: str) -> Options:
    """The options of the task at `path` with the hard limit that an expression gives. Raises OptionError."""
    try:
        value = await limit
    except ExpressionError as error:
        raise OptionError(error.said_of(f"{path}: timeout")) from None
    try:
        hard_ms = timeout_ms(value)
    except StemflowError as error:
        raise OptionError(f"{path}: timeout: {error}") from None
    if options.soft_ms is not None and options.soft_ms >= hard_ms:
        raise OptionError(
            f"{path}: timeout: expected the soft limit below the hard one, got {options.soft_ms} and {hard_ms} ms"
        )
    return structs.replace(options, hard_ms=hard_ms)
