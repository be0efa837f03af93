"""Names that authors give: of steps, of types of events, of the cases of a switch."""

from __future__ import annotations

import re
from typing import Any, Final

from msgspec import json

from stemflow.errors import OptionError

BODY = "body"
"""The path segment of the body of a sub-workflow."""
DEFAULT_CASE = "default"
"""The path segment of a switch's default."""

NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,127}")
"""The name of a step: letters, digits, `_` and `-`, as in a workflow file."""

EVENT_TYPE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.:/-]{0,127}")
"""A type of events: letters, digits, `_`, `.`, `:`, `/` and `-`."""


def expect_event_type(value: Any, where: str) -> str:
    """`value` if it is a type of events. Raises OptionError, beginning with `where`."""
    if not isinstance(value, str) or not EVENT_TYPE.fullmatch(value):
        raise OptionError(
            f"{where}: expected a type of events such as order.paid (1 to 128 letters, digits, `_`, `.`, `:`, `/` and "
            f"`-`, a letter or `_` first), got {value!r:.80}"
        )
    return value


def case_text(value: Any) -> str:
    """The key of a case as text: a text as it is, else its JSON (`true`, `null`, `404`); 1.0 is the number 1."""
    if isinstance(value, str):
        return value
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return json.encode(value).decode()


def case_name(key: str) -> str | None:
    """The name of a case in paths and in `members`: its key, if that is a valid name, else its index."""
    return key if NAME.fullmatch(key) else None
