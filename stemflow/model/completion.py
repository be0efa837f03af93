"""When a group or map is decided before all of its members have ended, or in spite of failures."""

from __future__ import annotations

import re

from msgspec import Struct

from stemflow.errors import OptionError


class Completion(Struct, frozen=True, omit_defaults=True):
    """How many members of a group or map must succeed, or may fail.

    `quorum`: decided when that many have succeeded; the others are cancelled. `race`: so with one, whose value is that
    of the whole. `tolerate`: how many may fail; `percent`: how many of a hundred.
    """

    quorum: int | None = None
    race: bool = False
    tolerate: int | None = None
    percent: float | None = None

_SHARE = re.compile(r"(\d{1,3}(?:\.\d{1,6})?)%")


def completion_of_tolerance(where: str, tolerate: int | str) -> Completion:
    """What `tolerate` asks for: a number of failures, or a share such as `20%`. Raises OptionError."""
    share = _SHARE.fullmatch(tolerate) if isinstance(tolerate, str) else None
    if share is not None and float(share[1]) <= 100:
        return Completion(percent=float(share[1]))
    if isinstance(tolerate, bool) or not isinstance(tolerate, int) or tolerate < 0:
        raise OptionError(f"{where}: tolerate: expected a whole number, or a share such as 20%, got {tolerate!r}")
    return Completion(tolerate=tolerate)
