"""Errors inside scripts, as Redis before 7.0 reports them: the server's own error is the end of another."""

from __future__ import annotations

import re
from typing import Final

from redis.exceptions import OutOfMemoryError, ReadOnlyError, ResponseError

WRAPPED: Final = re.compile(r"Error running script .*?: -(?P<error>(?P<code>[A-Z]+) (?P<text>.*))", re.DOTALL)
KINDS: Final[dict[str, type[ResponseError]]] = {"OOM": OutOfMemoryError, "READONLY": ReadOnlyError}
"""Codes for which redis-py has a class. A script meets no others of them: those are said before it starts."""


def unwrapped(error: ResponseError) -> ResponseError:
    """What redis-py would have raised, had the server answered its own error alone."""
    found = WRAPPED.fullmatch(str(error))
    if found is None:
        return error
    kind = KINDS.get(found["code"])
    return ResponseError(found["error"]) if kind is None else kind(found["text"])
